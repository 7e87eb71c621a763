"""How compile jobs share the engine with clients: at full speed while nobody is served, hardly noticed otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

#: Turns at once while no client is served: few enough that the next client finds room in the next step.
_AT_ONCE = 16
#: Of the time, while clients are served, one turn at a time. A prompt makes one step longer, what follows hardly any.
_SHARE = 1 / 3
#: Seconds that a rest lasts at most: a turn may have been long because it waited in the engine's queue.
_LONGEST = 5.0
#: Seconds between looks whether clients are still served.
_LOOK = 0.1


class Pace:
    """Grants turns on the engine.

    vLLM's priorities decide who is admitted first; what is admitted still makes the steps of all others longer.
    """

    def __init__(self, unfinished: Callable[[], int]) -> None:
        """Take ``unfinished``, which counts the requests in the engine, those of turns included.

        Of several API servers before one engine each counts its own; a job does not see the clients of the others.
        """
        self._unfinished = unfinished
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._alone = asyncio.Lock()
        self._rested = 0.0  # when the next turn among clients may begin (monotonic)
        self._mine = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, of one request; while clients are served, turns come one by one with rests between them."""
        async with self._room:
            if self._crowded:
                async with self._alone:
                    await self._rest()
                    if self._crowded:
                        began = time.monotonic()
                        async with self._counted():
                            yield
                        ended = time.monotonic()
                        self._rested = ended + min((1 / _SHARE - 1) * (ended - began), _LONGEST)
                        return
            async with self._counted():
                yield

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

    async def _rest(self) -> None:
        """Leave the engine to clients until the last turn has been made up for, or none is left."""
        while self._crowded and (left := self._rested - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _LOOK))
