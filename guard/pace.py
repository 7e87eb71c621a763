"""How compile jobs share the engine with clients: at full speed while nobody is served, hardly noticed otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

#: Turns at once while no client is served: few enough that the next client finds room in the next step.
_AT_ONCE = 16
#: Of the time, while clients are served. A step that a probe is part of is up to twice as long, so clients lose less.
_SHARE = 0.1
#: Seconds between looks whether clients are still served.
_LOOK = 0.1


class Pace:
    """Grants turns on the engine.

    vLLM's priorities decide who is admitted first; what is admitted still makes the steps of all others longer.
    """

    def __init__(self, unfinished: Callable[[], int]) -> None:
        """Take ``unfinished``, which counts the requests in the engine, those of turns included."""
        self._unfinished = unfinished
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._alone = asyncio.Lock()
        self._mine = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, of one request; while clients are served, turns come one by one with rests between them."""
        async with self._room:
            if not self._crowded:
                async with self._counted():
                    yield
                return
            async with self._alone:
                began = time.monotonic()
                async with self._counted():
                    yield
                await self._rest((1 / _SHARE - 1) * (time.monotonic() - began))

    @property
    def _crowded(self) -> bool:
        return self._unfinished() > self._mine

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._mine += 1
        try:
            yield
        finally:
            self._mine -= 1

    async def _rest(self, seconds: float) -> None:
        """Leave the engine to clients for so long, or until none is left."""
        until = time.monotonic() + seconds
        while self._crowded and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _LOOK))
