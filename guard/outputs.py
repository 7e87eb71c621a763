"""Building engine outputs for text that the model did not write: refusals and fallbacks.

A client must not be able to tell such an answer by its shape, so it carries token ids, log-probabilities, a finish
reason and stop handling like any other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from vllm.logprobs import Logprob, PromptLogprobs
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.prompt import PromptView, Tokenizer
from guard.worker.controls import Controls


@dataclass(frozen=True, slots=True)
class GuardedRequest:
    """One call of ``EngineClient.generate``, as interventions see it."""

    prompt: Mapping[str, Any]  # vLLM's rendered TokensInput (or multi-modal input)
    params: SamplingParams
    request_id: str
    view: PromptView
    tokenizer: Tokenizer
    vocab_size: int
    eos_token_id: int | None
    lead_in: str = ""  # text that must precede an answer, such as the mark that ends a reasoning model's thoughts
    options: Mapping[str, Any] = field(default_factory=dict)  # the other keyword arguments of ``generate``
    controls: Controls = field(default_factory=Controls)  # what the worker part does for it

    @property
    def token_ids(self) -> list[int]:
        """The prompt's token ids."""
        return list(self.prompt["prompt_token_ids"])


@dataclass(frozen=True, slots=True)
class Canned:
    """A fixed text cut to what the request allows. ``pieces[i]`` is the text that token ``i`` adds."""

    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    finish_reason: str
    stop_reason: str | None = None


def can(request: GuardedRequest, text: str, *, used: int = 0) -> Canned:
    """Fit ``text`` to the request's ``max_tokens`` (``used`` of which are spent) and stop strings."""
    params, tokenizer = request.params, request.tokenizer
    finish_reason, stop_reason = "stop", None
    for stop in [params.stop] if isinstance(params.stop, str) else params.stop or []:
        if stop and stop in text:
            text, stop_reason = text[: text.index(stop)], stop
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = _pieces(tokenizer, ids)
    if stop_reason is None and request.eos_token_id is not None:
        ids, pieces = [*ids, request.eos_token_id], [*pieces, ""]
    room = len(ids) if params.max_tokens is None else max(params.max_tokens - used, 0)
    if len(ids) > room:
        ids, pieces, finish_reason, stop_reason = ids[:room], pieces[:room], "length", None
    return Canned(tuple(ids), tuple(pieces), finish_reason, stop_reason)


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a token that ends inside a character adds nothing yet."""
    pieces, done = [], ""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        if text.endswith("\ufffd") and count < len(ids):
            text = done
        pieces.append(text[len(done) :])
        done = text
    return pieces


def hides_text(params: SamplingParams) -> bool:
    """Whether the text of an answer is less than its tokens say, so that it is these which must be read.

    With stop strings it lags behind them and ends before them, and what stopped it is told to the client; the text
    of a stop token is left out, though its id is told.
    """
    return bool(params.stop or params.stop_token_ids) or not params.detokenize


def certain(token_ids: Sequence[int], pieces: Sequence[str]) -> list[dict[int, Logprob]]:
    """Log-probabilities of tokens that had no alternative."""
    return [{token: Logprob(0.0, 1, piece)} for token, piece in zip(token_ids, pieces, strict=True)]


def completion(request: GuardedRequest, index: int, canned: Canned, span: slice) -> CompletionOutput:
    """Choice ``index`` with the tokens ``span`` of ``canned``; it is finished when the span reaches the end."""
    ids, pieces = canned.token_ids[span], canned.pieces[span]
    wants_logprobs = request.params.num_logprobs is not None
    finished = span.stop is None or span.stop >= len(canned.token_ids)
    return CompletionOutput(
        index=index,
        text="".join(pieces),
        token_ids=list(ids),
        cumulative_logprob=0.0 if wants_logprobs else None,
        logprobs=certain(ids, pieces) if wants_logprobs else None,
        finish_reason=canned.finish_reason if finished else None,
        stop_reason=canned.stop_reason if finished else None,
    )


def output(
    request: GuardedRequest,
    completions: list[CompletionOutput],
    told: PromptLogprobs | None,
    *,
    finished: bool,
) -> RequestOutput:
    """Wrap completions as the engine would, with the prompt's log-probabilities ``told``."""
    return RequestOutput(
        request_id=request.request_id,
        prompt=request.prompt.get("prompt"),
        prompt_token_ids=request.token_ids,
        prompt_logprobs=told,
        outputs=completions,
        finished=finished,
        num_cached_tokens=0,
    )


def told_of_prompt(request: GuardedRequest) -> Iterator[PromptLogprobs | None]:
    """What each output in turn tells of the prompt under a model that knows nothing. As the engine does, a stream tells
    it once, with its first.
    """
    told = know_nothing(request)
    yield told
    yield from repeat(told and [] if request.params.output_kind is RequestOutputKind.DELTA else told)


def know_nothing(request: GuardedRequest) -> PromptLogprobs | None:
    """The prompt's log-probabilities under a model that knows nothing: every token is equally likely."""
    if request.params.prompt_logprobs is None:
        return None
    uniform = -math.log(request.vocab_size)
    ids = request.token_ids
    return [None, *({token: Logprob(uniform, 1, request.tokenizer.decode([token]))} for token in ids[1:])]


async def as_asked(
    request: GuardedRequest, results: AsyncGenerator[RequestOutput, None]
) -> AsyncGenerator[RequestOutput, None]:
    """Answers to another prompt than the client's, with the prompt that he sent: he must not see ours."""
    async with contextlib.aclosing(results):
        async for result in results:
            result.prompt, result.prompt_token_ids = request.prompt.get("prompt"), request.token_ids
            yield result


async def reply(request: GuardedRequest, text: str) -> AsyncIterator[RequestOutput]:
    """Answer a request with ``text``, token by token when it streams."""
    canned = can(request, request.lead_in + text)
    choices, length = range(request.params.n), len(canned.token_ids)
    kind = request.params.output_kind
    steps = [slice(0, None)]
    if kind is not RequestOutputKind.FINAL_ONLY and length:
        first = (lambda _: 0) if kind is RequestOutputKind.CUMULATIVE else (lambda step: step)
        steps = [slice(first(step), step + 1) for step in range(length)]
    told = told_of_prompt(request)
    for number, span in enumerate(steps, 1):
        completions = [completion(request, choice, canned, span) for choice in choices]
        yield output(request, completions, next(told), finished=number == len(steps))


async def settled(
    request: GuardedRequest, results: AsyncIterator[RequestOutput], fallback: str
) -> AsyncIterator[RequestOutput]:
    """``results``, where a choice that the engine broke off ends with the fallback.

    That happens when the client's grammar leaves nothing to say but what a constraint forbids.
    """
    whole = request.params.output_kind is not RequestOutputKind.DELTA
    sent: dict[int, int] = {}
    async for result in results:
        for position, one in enumerate(result.outputs):
            if one.finish_reason == "error":
                used = 0 if whole else sent.get(one.index, 0)
                canned = can(request, ("… " if used else "") + fallback, used=used)
                result.outputs[position] = completion(request, one.index, canned, slice(0, None))
            sent[one.index] = sent.get(one.index, 0) + len(one.token_ids)
        yield result
