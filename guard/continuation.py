"""Going on with an answer from some token on, in another way than before."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams

from guard.outputs import GuardedRequest
from guard.worker.batch import Stretch, corrupted
from guard.worker.controls import Constraint, Controls, Corruption, Features

Run = Callable[[GuardedRequest], AsyncGenerator[RequestOutput, None]]

#: How much of what was said a constraint is told, in tokens: more than its longest phrase.
_TAIL = 200


class Serving:
    """Runs requests on the engine and remembers how the last one was run: that is what a continuation goes on from.

    Args:
        run: runs a request on the engine.
        resumable: whether the engine keeps to a constraint, without which it would only say the same again.
    """

    def __init__(self, run: Run, *, resumable: bool) -> None:
        self._run = run
        self._resumable = resumable
        self._request: GuardedRequest | None = None
        self._outputs: AsyncGenerator[RequestOutput, None] | None = None

    def __call__(self, request: GuardedRequest) -> AsyncGenerator[RequestOutput, None]:
        """Run a request."""
        self._request, self._outputs = request, self._run(request)
        return self._outputs

    @property
    def resumable(self) -> bool:
        """Whether :meth:`resume` can be called. A grammar cannot be taken up in its middle."""
        request = self._request
        return self._resumable and request is not None and request.params.structured_outputs is None

    def resume(
        self, said: Sequence[int], index: int, attempt: int, banned: Collection[int]
    ) -> AsyncGenerator[RequestOutput, None]:
        """Go on with choice ``index`` after ``said``, for the ``attempt``-th time, not with a token of ``banned``.

        What was said becomes part of the prompt, of which the prefix cache has everything but the last block. Penalties
        for presence and frequency forget it.
        """
        request = self._request
        if request is None:
            raise RuntimeError("nothing was run that could be resumed")
        return self._run(
            replace(
                request,
                prompt={**request.prompt, "prompt_token_ids": [*request.token_ids, *said]},
                params=_params(request.params, len(said), index, attempt),
                request_id=f"{request.request_id}-{index}-{attempt}",
                controls=_controls(request, said) | Controls(constraint=_constraint(request, said, banned)),
            )
        )

    async def abort(self) -> None:
        """Stop the last request; whoever reads its outputs must have stopped before."""
        if self._outputs is not None:
            with contextlib.suppress(Exception):  # its errors are of no interest any more
                await self._outputs.aclose()


def _params(params: SamplingParams, said: int, index: int, attempt: int) -> SamplingParams:
    changed = params.clone()
    changed.prompt_logprobs = None
    if params.max_tokens is not None:
        changed.max_tokens = params.max_tokens - said
    changed.min_tokens = max(0, params.min_tokens - said)
    if params.seed is not None:
        # vLLM gives choice i the seed s + i; none of the choices may draw again what another drew.
        changed.seed = params.seed + index + params.n * attempt
    changed.n = 1
    return changed


def _constraint(request: GuardedRequest, said: Sequence[int], banned: Collection[int]) -> Constraint:
    """What may not come first; phrases that were begun before may not be completed either."""
    before = request.controls.constraint
    tail = "" if before is None else before.tail + request.tokenizer.decode(said[-_TAIL:])
    return Constraint(tail=tail, banned=tuple(sorted(banned)))


def _controls(request: GuardedRequest, said: Sequence[int]) -> Controls:
    """The controls of a request that goes on: what was said is prompt to the worker part, yet treated as before."""
    changed: dict[str, Any] = {}
    controls = request.controls
    if controls.features is not None:
        # Nobody asks for the verdict again; and the rule would see too little of what comes out of the prefix cache.
        always = (*controls.features.always, *controls.features.clamp)
        changed["features"] = Features(always=always) if always else None
    if controls.corruption is not None:
        changed["corruption"] = _corruption(controls, controls.corruption, len(request.token_ids), said)
    return msgspec.structs.replace(controls, **changed)


def _corruption(controls: Controls, corruption: Corruption, prompt_length: int, said: Sequence[int]) -> Corruption:
    """With the names that the model spelled among what is corrupted of the prompt."""
    stretch = Stretch("", controls, 0, prompt_length, len(said))
    spelled = tuple((at, at + 1) for at in corrupted(corruption, stretch, said, prompt_length))
    return msgspec.structs.replace(corruption, spans=(*corruption.spans, *spelled))
