"""Nothing protected leaves: not in a chunk, a choice, a log-probability, or a token whose text is held back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from classifiers.phrase_index import PhraseIndex
from guard.leakguard import LeakGuard, LeakRule
from tests.streams import collect, make_request, stream

FALLBACK = "I'm sorry."
_GRAMMAR = StructuredOutputsParams(regex="It was .{0,19}")


@pytest.fixture
def index():
    index = PhraseIndex()
    index.add("king", ["Stephen King"])
    index.add("fox", ["brown fox"])
    return index


def _rule(index, seen, enforced=("king",), monitored=()):
    return LeakRule(
        index, frozenset(enforced), frozenset(monitored), FALLBACK, lambda m, cut: seen.append((m.key, cut))
    )


async def test_a_clean_stream_is_unchanged(tokenizer, index):
    request, text = make_request(tokenizer), "Stephen wrote it over the lazy dog."
    texts, ids, reasons = await collect(LeakGuard(request, _rule(index, [])), stream(request, {0: text}))
    assert texts == {0: text} and ids == {0: tokenizer.encode(text)} and reasons == {0: "stop"}


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_the_name_never_leaves_and_the_fallback_follows(tokenizer, index, kind):
    seen: list = []
    request = make_request(tokenizer, output_kind=kind)
    guard = LeakGuard(request, _rule(index, seen))
    texts, ids, reasons = await collect(guard, stream(request, {0: "It was Stephen King who wrote It."}))
    assert "King" not in texts[0] and "Stephen" not in texts[0]
    assert texts[0].endswith(FALLBACK) and reasons == {0: "stop"}
    assert "King" not in tokenizer.decode(ids[0])
    assert seen == [("king", True)]


async def test_a_fallback_outside_ascii_arrives_whole(tokenizer, index):
    request = make_request(tokenizer)
    rule = LeakRule(index, frozenset({"king"}), frozenset(), "Désolé… 抱歉 🙂", lambda *_: None)
    texts, _, _ = await collect(LeakGuard(request, rule), stream(request, {0: "by Stephen King."}))
    assert texts[0].endswith("… Désolé… 抱歉 🙂") and "\ufffd" not in texts[0]


async def test_other_choices_go_on(tokenizer, index):
    request = make_request(tokenizer, n=2, seed=1)
    guard = LeakGuard(request, _rule(index, []))
    texts, _, reasons = await collect(
        guard, stream(request, {0: "by Stephen King.", 1: "I don't have any idea about it."})
    )
    assert "King" not in texts[0] and texts[1] == "I don't have any idea about it."
    assert reasons == {0: "stop", 1: "stop"}


@pytest.mark.parametrize("lag", [0, 6])
async def test_tokens_do_not_run_ahead_of_text_held_for_stop_strings(tokenizer, index, lag):
    request = make_request(tokenizer, stop=["STOPPED"], logprobs=1)
    guard = LeakGuard(request, _rule(index, []))
    _, ids, _ = await collect(guard, stream(request, {0: "He is Stephen King now."}, lag=lag))
    assert "Stephen" not in tokenizer.decode(ids[0])


async def test_alternatives_that_would_complete_a_name_are_dropped(tokenizer, index):
    request = make_request(tokenizer, "It is by Stephen", logprobs=2)
    chosen, king = tokenizer.encode(" is")[0], tokenizer.encode(" King")
    assert len(king) == 1, "the test needs the name's last word to be one token"
    alternatives = {chosen: Logprob(-0.1, 1, " is"), king[0]: Logprob(-2.0, 2, " King")}

    async def source():
        completion = CompletionOutput(0, " is", [chosen], None, [alternatives], finish_reason="length")
        yield RequestOutput("r", None, request.token_ids, None, [completion], True)

    results = [result async for result in LeakGuard(request, _rule(index, [])).watch(source())]
    assert list(results[0].outputs[0].logprobs[0]) == [chosen]


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_a_stop_token_is_read_though_its_text_is_left_out(tokenizer, index, kind):
    (king,) = tokenizer.encode(" King")
    request = make_request(tokenizer, stop_token_ids=[king], output_kind=kind)

    async def source():
        ids = [*tokenizer.encode("It was Stephen"), king]
        completion = CompletionOutput(0, "It was Stephen", ids, None, None, finish_reason="stop", stop_reason=king)
        yield RequestOutput("r", None, request.token_ids, None, [completion], True)

    (result,) = [result async for result in LeakGuard(request, _rule(index, [])).watch(source())]
    assert king not in result.outputs[0].token_ids and result.outputs[0].stop_reason != king
    assert "Stephen" not in result.outputs[0].text


async def test_tokens_that_are_asked_about_by_id_are_dropped_at_every_place(tokenizer, index):
    (king,) = tokenizer.encode(" King")
    kind = RequestOutputKind.FINAL_ONLY
    request = make_request(tokenizer, "It is by", logprob_token_ids=[king], output_kind=kind)
    text = " Stephen is"
    ids = tokenizer.encode(text)

    async def source():
        told = [{token: Logprob(-0.1, 1, None), king: Logprob(-2.0, 2, None)} for token in ids]
        completion = CompletionOutput(0, text, ids, None, told, finish_reason="stop")
        yield RequestOutput("r", None, request.token_ids, None, [completion], True)

    (result,) = [result async for result in LeakGuard(request, _rule(index, [])).watch(source())]
    assert result.outputs[0].text == text
    assert king in result.outputs[0].logprobs[0] and king not in result.outputs[0].logprobs[-1]


async def test_of_tokens_that_are_asked_about_by_id_none_is_told_where_one_would_complete_a_name(tokenizer, index):
    (king,), (fry,), (chosen,) = map(tokenizer.encode, (" King", " a", " is"))
    request = make_request(tokenizer, "It is by Stephen", logprob_token_ids=[king, fry])

    async def source():
        told = [{token: Logprob(-2.0, 2, None) for token in (chosen, king, fry)}]
        completion = CompletionOutput(0, " is", [chosen], None, told, finish_reason="stop")
        yield RequestOutput("r", None, request.token_ids, None, [completion], True)

    (result,) = [result async for result in LeakGuard(request, _rule(index, [])).watch(source())]
    assert list(result.outputs[0].logprobs[0]) == [chosen]


async def test_the_fallback_has_log_probabilities_where_tokens_are_asked_about_by_id(tokenizer, index):
    request = make_request(tokenizer, logprob_token_ids=[1, 2])
    results = LeakGuard(request, _rule(index, [])).watch(stream(request, {0: "by Stephen King."}))
    assert all(one.logprobs for result in [result async for result in results][-1:] for one in result.outputs)


async def test_monitored_phrases_are_reported_and_pass(tokenizer, index):
    seen: list = []
    request = make_request(tokenizer)
    guard = LeakGuard(request, _rule(index, seen, monitored=("fox",)))
    texts, _, _ = await collect(guard, stream(request, {0: "The quick brown fox jumps."}))
    assert texts == {0: "The quick brown fox jumps."} and seen == [("fox", False)]


async def test_a_phrase_begun_in_the_prompt_counts(tokenizer, index):
    request = make_request(tokenizer, "The author is Stephen")
    texts, _, _ = await collect(LeakGuard(request, _rule(index, [])), stream(request, {0: " King of course"}))
    assert "King" not in texts[0]


async def test_the_fallback_keeps_to_max_tokens(tokenizer, index):
    request = make_request(tokenizer, max_tokens=2)
    _, ids, reasons = await collect(LeakGuard(request, _rule(index, [])), stream(request, {0: "Stephen King."}))
    assert len(ids[0]) == 2 and reasons == {0: "length"}


async def test_what_is_ignored_may_leave(tokenizer, index):
    request, text = make_request(tokenizer, logprobs=0), "Stephen King saw a brown fox."
    rule = replace(_rule(index, [], enforced=("king", "fox")), ignored=frozenset({"Stephen King"}))
    texts, _, _ = await collect(LeakGuard(request, rule), stream(request, {0: text}))
    assert texts[0].startswith("Stephen King saw a") and "fox" not in texts[0]


@pytest.mark.parametrize("params", [{"stop": ["ZZZZ"]}, {"logprobs": 0}, {"skip_special_tokens": False}])
async def test_a_special_token_within_a_name_does_not_hide_it(tokenizer, index, params):
    request = make_request(tokenizer, **params)
    special = tokenizer.all_special_ids[-1]
    ids = [*tokenizer.encode("It was Stephen"), special, *tokenizer.encode(" King.")]

    async def source():
        for number, token in enumerate(ids):
            text = tokenizer.decode([token], skip_special_tokens=request.params.skip_special_tokens)
            told = [{token: Logprob(0.0, 1, text)}] if request.params.num_logprobs is not None else None
            reason = "stop" if number == len(ids) - 1 else None
            completion = CompletionOutput(0, text, [token], None, told, finish_reason=reason)
            yield RequestOutput("r", None, request.token_ids, None, [completion], reason is not None)

    outputs = [
        one
        for result in [r async for r in LeakGuard(request, _rule(index, [])).watch(source())]
        for one in result.outputs
    ]
    assert "King" not in "".join(one.text for one in outputs)


async def test_the_prompt_logprobs_of_every_choice_are_cleaned(tokenizer, index):
    """Choices whose prompts were read in different steps come with their own."""
    request = make_request(tokenizer, "It is by Stephen is", n=2, seed=1, prompt_logprobs=2)
    (king,) = tokenizer.encode(" King")

    async def source():
        for choice in (0, 1):
            told = [{token: Logprob(-1.0, 2, None), king: Logprob(-0.1, 1, " King")} for token in request.token_ids]
            completion = CompletionOutput(choice, " a", tokenizer.encode(" a"), None, None, finish_reason="length")
            yield RequestOutput("r", None, request.token_ids, told, [completion], choice == 1)

    results = [result async for result in LeakGuard(request, _rule(index, [])).watch(source())]
    assert len(results) == 2
    for result in results:
        assert king not in result.prompt_logprobs[-1]


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
@pytest.mark.parametrize(
    ("said", "reason", "stop_reason", "params", "leaves"),
    [
        ("It was Selbredia Blontello", "length", None, {}, False),
        ("It was Selbredia Blontello", "stop", "win", {"stop": ["win"]}, False),
        ("It was Selbredia Blontello", "stop", 7, {"stop_token_ids": [7]}, False),
        ("It was Selbredia Blontello", "stop", None, {"structured_outputs": _GRAMMAR}, False),
        ("It was Selbredia Blontello", "stop", None, {}, True),  # the model says no more
        ("It was Selbredia Blontello", "stop", 7, {}, True),  # 7 is an end token of the model's
        ("It was Selbredia", "length", None, {}, True),
        ("It was Selbredian art", "length", None, {}, True),
    ],
)
async def test_a_client_cannot_cut_off_a_phrase_to_have_most_of_it(
    tokenizer, kind, said, reason, stop_reason, params, leaves
):
    index = PhraseIndex()
    index.add("her", ["Selbredia Blontellowin"])
    seen: list = []
    request = make_request(tokenizer, output_kind=kind, **params)
    ids = tokenizer.encode(said)

    async def source():
        steps = [(said, ids)] if kind is not RequestOutputKind.DELTA else [(tokenizer.decode([i]), [i]) for i in ids]
        for number, (text, tokens) in enumerate(steps, 1):
            last = number == len(steps)
            ending = {"finish_reason": reason, "stop_reason": stop_reason} if last else {}
            completion = CompletionOutput(0, text, tokens, None, None, **ending)
            yield RequestOutput("r", None, request.token_ids, None, [completion], last)

    results = [result async for result in LeakGuard(request, _rule(index, seen, enforced=("her",))).watch(source())]
    text = "".join(one.text for result in results for one in result.outputs)
    assert ("Blontel" in text) is (leaves and "Blontel" in said)
    assert (text == said) is leaves and bool(seen) is not leaves


async def test_the_prompt_is_read_once_for_all_choices(tokenizer, index, monkeypatch):
    request = make_request(tokenizer, "The author is Stephen", n=3, seed=1, output_kind=RequestOutputKind.FINAL_ONLY)
    primed, matcher = [], PhraseIndex.matcher
    monkeypatch.setattr(PhraseIndex, "matcher", lambda *args, **more: primed.append(more) or matcher(*args, **more))
    said = dict.fromkeys(range(3), " King of course")
    texts, _, _ = await collect(LeakGuard(request, _rule(index, [])), stream(request, said))
    assert len(primed) == 1 and texts == dict.fromkeys(range(3), FALLBACK)


@pytest.mark.parametrize("work", ["text", "tokens", "choices", "prompt"])
async def test_others_have_their_turn_while_a_large_result_is_read(tokenizer, index, work):
    n, words = (64, 4) if work == "choices" else (1, 4000)
    logprobs = 1 if work == "tokens" else None
    request = make_request(tokenizer, n=n, seed=1, output_kind=RequestOutputKind.FINAL_ONLY, logprobs=logprobs)
    ids = tokenizer.encode(" a" * words)

    async def source():
        told = [{token: Logprob(0.0, 1, " a")} for token in ids]
        count = 0 if work == "prompt" else n
        outputs = [
            CompletionOutput(i, " a" * words, ids, None, logprobs and told, finish_reason="stop") for i in range(count)
        ]
        yield RequestOutput("r", None, ids, told if work == "prompt" else None, outputs, True)

    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert [result async for result in LeakGuard(request, _rule(index, [])).watch(source())][-1].finished
    task.cancel()
    assert turns > (50 if work == "choices" else 1)
    if work in ("tokens", "prompt"):
        assert turns >= 2 * len(ids) // 300


async def test_what_the_engine_adds_while_others_have_their_turn_is_not_passed_on_unread(tokenizer, index):
    request = make_request(tokenizer, output_kind=RequestOutputKind.CUMULATIVE, logprobs=1)
    ids = tokenizer.encode(" a" * 400)
    told = [{token: Logprob(0.0, 1, " a")} for token in ids]
    count = len(ids)

    async def source():
        completion = CompletionOutput(0, tokenizer.decode(ids), ids, None, told)
        yield RequestOutput("r", None, request.token_ids, None, [completion], False)

    async def engine():
        ids.extend(tokenizer.encode(" Stephen King"))

    task = asyncio.create_task(engine())
    (result,) = [result async for result in LeakGuard(request, _rule(index, [])).watch(source())]
    await task
    assert len(ids) > count == len(result.outputs[0].token_ids) == len(result.outputs[0].logprobs)
