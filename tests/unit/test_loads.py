"""What the workers hold: loaded once, unloaded when nobody uses it any more."""

from __future__ import annotations

from typing import Any

import pytest

from guard import loads
from guard.loads import Loads


class _Workers:
    """Keep what they are told to, as those of the engine do."""

    def __init__(self) -> None:
        self.held: dict[str, object] = {}
        self.calls = 0

    async def call(self, method: str, args: tuple[Any, ...]) -> None:
        self.calls += 1
        if method.startswith("lethe_load_"):
            self.held[args[0]] = (method.removeprefix("lethe_load_"), *args[1:])
        else:
            kind, *_ = self.held.pop(args[0])  # type: ignore[misc]
            assert method == f"lethe_drop_{kind}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(loads.time, "monotonic", lambda: now[0])
    return now


async def test_the_same_content_is_loaded_once(clock: list[float]) -> None:
    workers = _Workers()
    held = Loads(workers.call)
    name = await held.load("edit", b"one", "sent")
    assert await held.load("edit", b"one", "sent") == name != await held.load("edit", b"two", "other")
    assert workers.calls == 2 and workers.held[name] == ("edit", "sent")
    assert held.holds(name) and not held.holds("unknown")


async def test_what_nobody_uses_is_unloaded_and_can_be_loaded_again(clock: list[float]) -> None:
    workers = _Workers()
    held = Loads(workers.call)
    unused, used = await held.load("phrases", b"unused", 1), await held.load("edit", b"used", 2)
    clock[0] = 0.75 * loads._UNUSED
    assert held.holds(used)
    clock[0] = 1.5 * loads._UNUSED
    new = await held.load("skill", b"new", 3)
    assert workers.held.keys() == {used, new} and not held.holds(unused)
    assert await held.load("phrases", b"unused", 1) == unused and unused in workers.held


async def test_something_is_dropped_once(clock: list[float]) -> None:
    workers = _Workers()
    held = Loads(workers.call)
    name = await held.load("edit", b"one", 1)
    await held.drop(name)
    await held.drop(name)
    assert not workers.held and not held.holds(name)


async def test_what_is_used_while_others_are_unloaded_stays(clock: list[float]) -> None:
    class _Busy(_Workers):
        """Somebody begins to use something while another thing is being unloaded."""

        async def call(self, method: str, args: tuple[Any, ...]) -> None:
            await super().call(method, args)
            if method.startswith("lethe_drop_"):
                assert held.holds(used)

    workers = _Busy()
    held = Loads(workers.call)
    unused, used = await held.load("edit", b"unused", 1), await held.load("edit", b"used", 2)
    clock[0] = 1.5 * loads._UNUSED
    new = await held.load("edit", b"new", 3)
    assert workers.held.keys() == {used, new} and held.holds(used) and not held.holds(unused)
