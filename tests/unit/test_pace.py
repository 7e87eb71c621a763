"""Compile jobs run at full speed alone and step back while clients are served."""

from __future__ import annotations

import asyncio
import time

import pytest

from guard.pace import Pace


class _Engine:
    """Counts what is in it: ``clients``, and the turns that are running."""

    def __init__(self, clients: int) -> None:
        self.clients = clients
        self.turns = 0
        self.most = 0

    def unfinished(self) -> int:
        return self.clients + self.turns


async def _take(engine: _Engine, pace: Pace, seconds: float) -> None:
    async with pace.turn():
        engine.turns += 1
        engine.most = max(engine.most, engine.turns)
        await asyncio.sleep(seconds)
        engine.turns -= 1


async def _taken(engine: _Engine, count: int, seconds: float) -> float:
    pace = Pace(engine.unfinished)
    began = time.monotonic()
    await asyncio.gather(*(_take(engine, pace, seconds) for _ in range(count)))
    return time.monotonic() - began


@pytest.mark.asyncio
async def test_alone_many_turns_run_at_once() -> None:
    engine = _Engine(clients=0)
    await _taken(engine, 40, 0.01)
    assert 1 < engine.most < 40


@pytest.mark.asyncio
async def test_while_clients_are_served_turns_come_one_by_one_and_rest_twice_as_long() -> None:
    engine = _Engine(clients=3)
    spent = await _taken(engine, 3, 0.02)
    assert engine.most == 1
    assert spent >= 7 * 0.02  # two rests stand between three turns


@pytest.mark.asyncio
async def test_a_rest_ends_with_the_last_client() -> None:
    engine = _Engine(clients=1)

    async def leave() -> None:
        await asyncio.sleep(0.1)
        engine.clients = 0

    leaving = asyncio.create_task(leave())
    assert await _taken(engine, 20, 0.5) < 4  # one after the other they would take 10 seconds, without rests
    assert engine.most > 1  # and the others do not queue up one behind the other
    await leaving


@pytest.mark.asyncio
async def test_a_turn_that_fails_leaves_the_way_free() -> None:
    engine = _Engine(clients=1)
    pace = Pace(engine.unfinished)
    with pytest.raises(RuntimeError):
        async with pace.turn():
            raise RuntimeError("no answer")
    await asyncio.wait_for(_take(engine, pace, 0.0), 1)
