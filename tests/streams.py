"""Requests and output streams without an engine, for tests of what reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.leakguard import LeakGuard
from guard.outputs import GuardedRequest
from guard.prompt import PromptReader


class Counting:
    """A tokenizer that counts the tokens it is given to decode, which is work on the event loop."""

    def __init__(self, tokenizer: Any) -> None:
        self.decoded = 0
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def decode(self, ids: list[int], **options: Any) -> str:
        self.decoded += len(ids)
        return str(self._tokenizer.decode(ids, **options))


def request_of(tokenizer: Any, ids: list[int], more: Mapping[str, Any] | None = None, **params: Any) -> GuardedRequest:
    """A request of these token ids, with ``more`` beside them in its prompt, and with these sampling parameters."""
    return GuardedRequest(
        prompt={"type": "token", "prompt_token_ids": ids, **(more or {})},
        params=SamplingParams(**params),
        request_id="r",
        view=PromptReader(tokenizer).read(ids),
        tokenizer=tokenizer,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
    )


def make_request(tokenizer: Any, prompt: str = "Who wrote It?", **params: Any) -> GuardedRequest:
    """A request with these sampling parameters; it streams unless they say otherwise."""
    params = {"output_kind": RequestOutputKind.DELTA, "max_tokens": 64, **params}
    return request_of(tokenizer, tokenizer.encode(prompt), {"prompt": prompt}, **params)


def chat(tokenizer: Any, *contents: str, **options: Any) -> list[int]:
    """The token ids of a rendered conversation, whose messages are the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    ids: list[int] = tokenizer.apply_chat_template(messages, return_dict=False, **options)
    return ids


async def stream(request: GuardedRequest, texts: dict[int, str], *, lag: int = 0) -> AsyncIterator[RequestOutput]:
    """What the engine would produce: one token a step and choice, text lagging ``lag`` characters behind."""
    tokenizer = request.tokenizer
    ids = {choice: tokenizer.encode(text) for choice, text in texts.items()}
    whole = request.params.output_kind is not RequestOutputKind.DELTA
    sent = dict.fromkeys(texts, 0)
    steps = max(map(len, ids.values()))
    for step in range(steps):
        outputs = []
        for choice, tokens in ids.items():
            if step >= len(tokens):
                continue
            finished = step == len(tokens) - 1
            text = tokenizer.decode(tokens[: step + 1])
            visible = text if finished else text[: max(len(text) - lag, 0)]
            delta, sent[choice] = visible[sent[choice] :], max(len(visible), sent[choice])
            new = tokens if whole else [tokens[step]]
            logprobs = [{t: Logprob(-0.1, 1, tokenizer.decode([t]))} for t in new] if request.params.logprobs else None
            reason = "stop" if finished else None
            outputs.append(
                CompletionOutput(choice, text if whole else delta, new, None, logprobs, finish_reason=reason)
            )
        if whole and step < steps - 1:
            continue
        yield RequestOutput("r", None, request.token_ids, None, outputs, step == steps - 1)


async def collect(
    guard: LeakGuard, source: AsyncIterator[RequestOutput]
) -> tuple[dict[int, str], dict[int, list[int]], dict[int, str]]:
    """What leaves, by choice: the text, the token ids, why it ended (once)."""
    texts: dict[int, str] = {}
    ids: dict[int, list[int]] = {}
    reasons: dict[int, str] = {}
    last = None
    async for last in guard.watch(source):
        for output in last.outputs:
            texts[output.index] = texts.get(output.index, "") + output.text
            ids.setdefault(output.index, []).extend(output.token_ids)
            if output.finish_reason:
                assert output.index not in reasons
                reasons[output.index] = output.finish_reason
    assert last is not None and last.finished
    return texts, ids, reasons
