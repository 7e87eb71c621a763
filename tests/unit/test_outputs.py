"""Answers that the engine breaks off end with the fallback."""

from __future__ import annotations

import pytest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from guard.outputs import know_nothing, reply, settled
from tests.streams import Counting, make_request

FALLBACK = "I'm sorry."


async def _broken_off(request, said):
    """The engine says some words, and then its grammar is at odds with what it may say."""
    whole = request.params.output_kind is not RequestOutputKind.DELTA
    tokens = request.tokenizer.encode(said)
    for count in range(1, len(tokens) + 1):
        text = request.tokenizer.decode(tokens[:count] if whole else tokens[count - 1 : count])
        part = tokens[:count] if whole else tokens[count - 1 : count]
        yield RequestOutput("r", None, request.token_ids, None, [CompletionOutput(0, text, part, None, None)], False)
    last = CompletionOutput(0, "", [request.eos_token_id], None, None, finish_reason="error")
    yield RequestOutput("r", None, request.token_ids, None, [last], True)


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
async def test_a_choice_that_ends_in_an_error_ends_with_the_fallback(tokenizer, kind):
    request = make_request(tokenizer, output_kind=kind)
    results = [result async for result in settled(request, _broken_off(request, "the old"), FALLBACK)]
    assert results[-1].finished and results[-1].outputs[0].finish_reason == "stop"
    deltas = "".join(result.outputs[0].text for result in results)
    text = deltas if kind is RequestOutputKind.DELTA else results[-1].outputs[0].text
    assert text.endswith(FALLBACK)
    assert text.startswith("the old") == (kind is RequestOutputKind.DELTA)


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_what_a_reply_tells_of_the_prompt_is_made_once_and_a_stream_tells_it_once(tokenizer, kind):
    counting = Counting(tokenizer)
    request = make_request(counting, "Who wrote It? " * 100, prompt_logprobs=1, output_kind=kind)
    expected, decoded = know_nothing(request), counting.decoded
    counting.decoded = 0
    results = [result async for result in reply(request, FALLBACK)]
    told = [result.prompt_logprobs for result in results]
    assert counting.decoded < 2 * decoded
    if kind is RequestOutputKind.DELTA:
        assert len(told) > 1 and told == [expected, *([] for _ in told[1:])]
    else:
        assert told[0] == expected and all(one is told[0] for one in told)


async def test_a_reply_tells_nothing_of_a_prompt_that_nobody_asked_about(tokenizer):
    results = [result async for result in reply(make_request(tokenizer), FALLBACK)]
    assert {result.prompt_logprobs for result in results} == {None}
