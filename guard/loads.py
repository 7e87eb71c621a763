"""What the workers hold for requests to name: edits, phrases, features, skills, each by the hash of its content."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: What nobody used for so long is unloaded, in seconds: longer than a request lasts, which may need it to its end.
_UNUSED = 3600.0

#: Calls a method of all workers with some arguments.
Call = Callable[[str, tuple[Any, ...]], Awaitable[Any]]


class Loads:
    """Loads each thing once, and unloads what has gone out of use when something else is loaded.

    The workers hold what was used within the last hour, and since then have been told nothing new.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._used: dict[str, tuple[str, float]] = {}  # by name: what kind of thing, and when it was used (monotonic)

    def holds(self, name: str) -> bool:
        """Whether the workers hold something, which is being used now."""
        known = self._used.get(name)
        if known is None:
            return False
        self._used[name] = (known[0], time.monotonic())
        return True

    async def load(self, kind: str, content: bytes, sent: object) -> str:
        """Load something unless the workers have it.

        Args:
            kind: as the workers' methods ``lethe_load_<kind>`` and ``lethe_drop_<kind>`` are called.
            content: what names it, by its hash.
            sent: what the workers are sent.

        Returns:
            Its name.
        """
        name = hashlib.sha256(content).hexdigest()[:32]
        if not self.holds(name):
            await self._call(f"lethe_load_{kind}", (name, sent))
            self._used[name] = (kind, time.monotonic())
            await self._sweep()
        return name

    async def drop(self, name: str) -> None:
        """Unload something; unknown names are ignored."""
        kind, _ = self._used.pop(name, ("", 0.0))
        if kind:
            await self._call(f"lethe_drop_{kind}", (name,))

    async def _sweep(self) -> None:
        oldest = time.monotonic() - _UNUSED
        for name in list(self._used):
            # Asked anew for each: while another was being dropped, somebody may have begun to use this one.
            if self._used.get(name, ("", oldest))[1] < oldest:
                await self.drop(name)
