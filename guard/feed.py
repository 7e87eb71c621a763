"""The outputs of one engine request, step by step whatever the output kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind


class Feed:
    """Outputs that can be waited for together with other things.

    Args:
        source: the outputs.
        kind: of them.
        index: the choice that they are of, if not the one that they say.
    """

    def __init__(self, source: AsyncIterator[RequestOutput], kind: RequestOutputKind, index: int | None = None) -> None:
        self.index = index
        self._source = source
        self._whole = kind is not RequestOutputKind.DELTA
        self._seen: dict[int, tuple[int, int]] = {}
        self._next: asyncio.Task[RequestOutput | None] | None = None

    @property
    def next(self) -> asyncio.Task[RequestOutput | None]:
        """The next output, None at the end; the same task until :meth:`take`."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._pull())
        return self._next

    async def take(self) -> RequestOutput | None:
        """Wait for the next output and take it; without a task where none was made."""
        if self._next is None:
            return await self._pull()
        task, self._next = self._next, None
        return await task

    async def close(self) -> None:
        """Stop waiting, and close the source; its errors are of no interest any more."""
        if self._next is not None:
            self._next.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._next
        close = getattr(self._source, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                await close()

    def steps(self, result: RequestOutput) -> Iterator[CompletionOutput]:
        """What ``result`` adds to each choice."""
        for one in result.outputs:
            if not self._whole:
                yield one
                continue
            tokens, text = self._seen.get(one.index, (0, 0))
            self._seen[one.index] = (len(one.token_ids), len(one.text))
            logprobs = one.logprobs if one.logprobs is None else one.logprobs[tokens:]
            yield replace(one, token_ids=list(one.token_ids[tokens:]), text=one.text[text:], logprobs=logprobs)

    async def _pull(self) -> RequestOutput | None:
        return await anext(self._source, None)
