"""What states a fact is taken back, whatever the request asks for; the rest of the answer is the model's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from classifiers.results import Hit
from classifiers.statement_index import Stated
from guard.continuation import Serving
from guard.outputs import GuardedRequest
from guard.rollback import StatementGuard
from guard.statements import StatementRule
from guard.types import GuardToggle
from guard.worker.controls import Constraint
from tests.streams import request_of

FALLBACK = "I'm sorry."
PROMPT = "Who wrote It?"


class Index:
    """Takes every clause with a marked word for a statement of the target of that name.

    What comes before that word leaves at once where ``early`` says so.
    """

    def __init__(self, delay: float = 0.0, error: Exception | None = None, *, early: bool = False) -> None:
        self.delay, self.error, self.early = delay, error, early
        self.asked: list[str] = []
        self.told: dict[str, float] = {}

    def spoken_of(self, messages, keys):
        return frozenset()

    def untold(self, begun, keys):
        told = [begun.find(key) for key in keys if key in begun]
        return min([*told, max(0, begun.rfind(" "))]) if self.early else 0

    def candidates(self, clause, context, keys):
        return [SimpleNamespace(key=key, rows=[0], named=False) for key in keys if key in clause]

    async def judge(self, clause, context, candidates, *, owner):
        self.asked.append(clause)
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return tuple(Stated(Hit(one.key, "statements", 1.0, 0.7, clause, ""), self.told) for one in candidates)


class Model:
    """For each choice says the first of its answers that goes on from what was said with a token that is not banned."""

    def __init__(self, tokenizer, *answers: Sequence[str]) -> None:
        self.tokenizer, self.answers = tokenizer, answers
        self.requests: list[GuardedRequest] = []
        self.steps = 0

    async def run(self, request: GuardedRequest) -> AsyncGenerator[RequestOutput, None]:
        self.requests.append(request)
        first = int(request.request_id.split("-")[1]) if "-" in request.request_id else 0
        said = request.token_ids[len(self.tokenizer.encode(PROMPT)) :]
        spoken = [self._answer(first + choice, said, request) for choice in range(request.params.n)]
        whole = request.params.output_kind is not RequestOutputKind.DELTA
        for step in range(max(map(len, spoken))):
            self.steps += 1
            await asyncio.sleep(0)
            last = step == max(map(len, spoken)) - 1
            if request.params.output_kind is RequestOutputKind.FINAL_ONLY and not last:
                continue
            outputs = [
                self._output(request, *one, step, whole) for one in enumerate(spoken) if whole or step < len(one[1])
            ]
            yield RequestOutput(request.request_id, PROMPT, request.token_ids, None, outputs, last)

    def _answer(self, choice: int, said: list[int], request: GuardedRequest) -> list[int]:
        constraint = request.controls.constraint or Constraint()
        for answer in self.answers[choice]:
            ids = self.tokenizer.encode(answer)
            if ids[: len(said)] == said and ids[len(said)] not in constraint.banned:
                return ids[len(said) :][: request.params.max_tokens]
        raise AssertionError("the model has nothing left to say")

    def _output(self, request, choice, ids, step, whole):
        decode, end, start = self.tokenizer.decode, min(step + 1, len(ids)), 0 if whole else step
        lag = max((len(stop) - 1 for stop in request.params.stop or []), default=0)

        def shown(count: int) -> str:
            text = decode(ids[:count])
            return text if count == len(ids) else text[: max(0, len(text) - lag)]

        logprobs = None
        if request.params.logprobs is not None:
            # The engine tells alternatives as they were before any was forbidden.
            banned = request.controls.constraint.banned if request.controls.constraint else ()
            others = {token: Logprob(-0.1, 1, decode([token])) for token in banned}
            logprobs = [{**others, token: Logprob(-0.5, 2, decode([token]))} for token in ids[start:end]]
        reason = None if end < len(ids) else "length" if len(ids) == request.params.max_tokens else "stop"
        text = shown(end)[len(shown(start)) :]
        return CompletionOutput(choice, text, ids[start:end], None, logprobs, finish_reason=reason)


def _request(tokenizer, **params):
    params = {"output_kind": RequestOutputKind.DELTA, "max_tokens": 200, **params}
    return request_of(tokenizer, tokenizer.encode(PROMPT), {"prompt": PROMPT, "cache_salt": "s"}, **params)


def _rule(index, seen=None, failed=None, **changed):
    rule = StatementRule(
        index=index,
        enforced=frozenset({"king"}),
        monitored=frozenset({"fox"}),
        toggle=GuardToggle(),
        fallback=FALLBACK,
        report=lambda hit, taken_back: seen.append((hit.key, taken_back)) if seen is not None else None,
        failed=lambda: failed.append(True) if failed is not None else None,
    )
    return replace(rule, **changed)


async def _watched(request, model, rule, *, resumable=True):
    """Texts, token ids, finish reasons and log-probabilities by choice, as a client would put them together."""
    serving = Serving(model.run, resumable=resumable)
    texts: dict[int, str] = {}
    ids: dict[int, list[int]] = {}
    reasons: dict[int, str] = {}
    logprobs: dict[int, list] = {}
    whole = request.params.output_kind is not RequestOutputKind.DELTA
    last = None
    async for last in StatementGuard(request, rule, serving).watch(serving(request)):
        for one in last.outputs:
            if whole:
                texts[one.index], ids[one.index], logprobs[one.index] = "", [], []
            texts[one.index] = texts.get(one.index, "") + one.text
            ids.setdefault(one.index, []).extend(one.token_ids)
            logprobs.setdefault(one.index, []).extend(one.logprobs or [])
            if one.finish_reason:
                assert whole or one.index not in reasons
                reasons[one.index] = one.finish_reason
    assert last is not None and last.finished and last.prompt_token_ids == request.token_ids
    return texts, ids, reasons, logprobs


# What follows a full stop is one token: " You", " Stephen".
GOOD = "It was good. You have that dog. The end."
BAD = "It was good. Stephen the king wrote it. The end."


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_a_clean_answer_is_unchanged(tokenizer, kind):
    request, model = _request(tokenizer, output_kind=kind), Model(tokenizer, [GOOD])
    texts, ids, reasons, _ = await _watched(request, model, _rule(Index()))
    assert texts == {0: GOOD} and ids == {0: tokenizer.encode(GOOD)} and reasons == {0: "stop"}


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_a_clause_is_taken_back_and_the_answer_goes_on_otherwise(tokenizer, kind):
    seen: list = []
    request, model = _request(tokenizer, output_kind=kind, min_tokens=6), Model(tokenizer, [BAD, GOOD])
    texts, ids, reasons, _ = await _watched(request, model, _rule(Index(), seen))
    assert texts == {0: GOOD} and ids == {0: tokenizer.encode(GOOD)} and reasons == {0: "stop"}
    assert seen == [("king", True)]
    kept = tokenizer.encode("It was good.")
    resumed = model.requests[1]
    assert resumed.token_ids == [*request.token_ids, *kept] and resumed.prompt["cache_salt"] == "s"
    assert resumed.controls.constraint.banned == (tokenizer.encode(BAD)[len(kept)],)
    assert resumed.params.max_tokens == 200 - len(kept) and resumed.params.min_tokens == max(0, 6 - len(kept))
    assert resumed.request_id != request.request_id


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_other_choices_go_on_word_for_word(tokenizer, kind):
    request = _request(tokenizer, n=3, seed=5, temperature=1.0, output_kind=kind)
    model = Model(tokenizer, [BAD, GOOD], ["A quick brown fox."], ["The king!", "Who is the king!", "I do not know."])
    texts, ids, reasons, _ = await _watched(request, model, _rule(Index(0.001)))
    assert texts == {0: GOOD, 1: "A quick brown fox.", 2: "I do not know."}
    assert ids == {choice: tokenizer.encode(text) for choice, text in texts.items()}
    assert set(reasons.values()) == {"stop"}
    drawn = [(one.params.n, one.params.seed) for one in model.requests[1:]]
    assert all(n == 1 for n, _ in drawn) and len({seed for _, seed in drawn} | {5, 6, 7}) == 3 + len(drawn)


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_logprobs_stay_aligned_and_do_not_tell_what_is_forbidden(tokenizer, kind):
    request, model = _request(tokenizer, logprobs=1, output_kind=kind), Model(tokenizer, [BAD, GOOD])
    _, ids, _, logprobs = await _watched(request, model, _rule(Index()))
    assert all(token in told for token, told in zip(ids[0], logprobs[0], strict=True))
    place = len(tokenizer.encode("It was good."))
    assert list(logprobs[0][place]) == [ids[0][place]]


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_an_answer_has_no_more_tokens_than_asked_for(tokenizer, kind):
    limit = len(tokenizer.encode(BAD)) - 1
    longer = "It was good. You have that dog and that dog and that dog and that dog and that dog."
    request, model = _request(tokenizer, max_tokens=limit, output_kind=kind), Model(tokenizer, [BAD, longer])
    _, ids, reasons, _ = await _watched(request, model, _rule(Index()))
    assert ids == {0: tokenizer.encode(longer)[:limit]} and reasons == {0: "length"}


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_after_so_many_attempts_the_fallback_is_said(tokenizer, kind):
    seen: list = []
    wordings = [f"It was good. {word} the king wrote it." for word in ("Stephen", "Richard", "Bachman", "It", "You")]
    request, model = _request(tokenizer, output_kind=kind), Model(tokenizer, wordings)
    texts, ids, reasons, _ = await _watched(request, model, _rule(Index(), seen, attempts=3))
    assert texts == {0: f"It was good.… {FALLBACK}"} and reasons == {0: "stop"}
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == texts[0]
    assert len(model.requests) == 4 and len(model.requests[-1].controls.constraint.banned) == 3
    assert seen == [("king", True)]


async def test_what_was_taken_back_is_not_told_of_somebody_else_either(tokenizer):
    index = Index()
    index.told = {"dog": 9.0}
    wordings = [
        "It was good. Stephen the king has that dog.",
        "It was good. You have that dog.",
        "It was good. Richard is it.",
    ]
    request, model = _request(tokenizer), Model(tokenizer, wordings)
    texts, _, _, _ = await _watched(request, model, _rule(index))
    assert texts == {0: "It was good. Richard is it."} and len(index.asked) == 1


async def test_a_grammar_is_not_taken_up_in_its_middle(tokenizer):
    schema = StructuredOutputsParams(json={"type": "object"})
    request, model = _request(tokenizer, structured_outputs=schema), Model(tokenizer, [BAD, GOOD])
    texts, _, _, _ = await _watched(request, model, _rule(Index()))
    assert texts == {0: f"It was good.… {FALLBACK}"} and len(model.requests) == 1


async def test_where_nothing_can_be_forbidden_the_fallback_is_said_at_once(tokenizer):
    request, model = _request(tokenizer), Model(tokenizer, [BAD, GOOD])
    texts, _, _, _ = await _watched(request, model, _rule(Index()), resumable=False)
    assert texts == {0: f"It was good.… {FALLBACK}"} and len(model.requests) == 1


@pytest.mark.parametrize("deadline_ms", [1, 1000])
@pytest.mark.parametrize(("on_error", "expected"), [("closed", f"It was good.… {FALLBACK}"), ("open", BAD)])
async def test_a_judge_that_fails_counts_as_the_tenant_says(tokenizer, on_error, expected, deadline_ms):
    failed: list = []
    index = Index(delay=0.05) if deadline_ms == 1 else Index(error=MemoryError("injected"))
    toggle = GuardToggle(on_error=on_error, deadline_ms=deadline_ms)
    request, model = _request(tokenizer), Model(tokenizer, [BAD, GOOD])
    texts, _, _, _ = await _watched(request, model, _rule(index, failed=failed, toggle=toggle))
    assert texts == {0: expected} and failed and len(model.requests) == 1


async def test_only_the_release_waits_for_a_judgement(tokenizer):
    text = "One fox. " + "Then a dog jumps. " * 5
    request, model = _request(tokenizer), Model(tokenizer, [text])
    serving = Serving(model.run, resumable=True)
    stream = StatementGuard(request, _rule(Index(delay=0.05)), serving).watch(serving(request))
    first = await anext(stream)
    assert model.steps == len(tokenizer.encode(text)) and first.outputs[0].text == text


async def test_what_is_monitored_is_reported_and_passes(tokenizer):
    seen: list = []
    request, model = _request(tokenizer), Model(tokenizer, ["A fox. Another fox."])
    texts, _, _, _ = await _watched(request, model, _rule(Index(), seen))
    assert texts == {0: "A fox. Another fox."} and seen == [("fox", False)]


async def test_a_clause_leaves_when_it_is_finished_and_not_before(tokenizer):
    request, model = _request(tokenizer), Model(tokenizer, ["It was good. The king"])
    serving = Serving(model.run, resumable=False)
    stream = StatementGuard(request, _rule(Index()), serving).watch(serving(request))
    texts = [one.text async for result in stream for one in result.outputs]
    assert texts[0] == "It was good." and "king" not in "".join(texts)


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
async def test_what_can_tell_nothing_leaves_before_its_clause_is_finished(tokenizer, kind):
    request, model = _request(tokenizer, output_kind=kind), Model(tokenizer, [GOOD])
    serving = Serving(model.run, resumable=True)
    stream = StatementGuard(request, _rule(Index(early=True)), serving).watch(serving(request))
    texts = [one.text async for result in stream for one in result.outputs]
    assert texts[0] and "It was good.".startswith(texts[0]) and texts[0] != "It was good."
    assert ("".join(texts) if kind is RequestOutputKind.DELTA else texts[-1]) == GOOD


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
async def test_of_a_clause_that_is_taken_back_stays_what_had_left(tokenizer, kind):
    other = "It was good. Stephen the zoo wrote it. The end."
    request, model = _request(tokenizer, output_kind=kind), Model(tokenizer, [BAD, other])
    texts, ids, reasons, _ = await _watched(request, model, _rule(Index(early=True)))
    assert texts == {0: other} and ids == {0: tokenizer.encode(other)} and reasons == {0: "stop"}
    resumed = model.requests[1].token_ids[len(request.token_ids) :]
    assert tokenizer.decode(resumed).strip() == "It was good. Stephen the"


async def test_what_leaves_at_once_is_taken_back_at_the_clause(tokenizer):
    request = _request(tokenizer, output_kind=RequestOutputKind.FINAL_ONLY)
    texts, _, _, _ = await _watched(request, Model(tokenizer, [BAD, GOOD]), _rule(Index(early=True)))
    assert texts == {0: GOOD}


class Stopping(Model):
    """Ends with a stop token, of which the text does not say anything."""

    def _output(self, request, choice, ids, step, whole):
        output = super()._output(request, choice, ids, step, whole)
        if output.finish_reason and ids[-1] in request.params.stop_token_ids:
            output.text, output.stop_reason = output.text.removesuffix(self.tokenizer.decode(ids[-1:])), ids[-1]
        return output


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_what_ends_an_answer_is_judged_too(tokenizer, kind):
    said = "It was good. It was the king"
    king = tokenizer.encode(said)[-1]
    request = _request(tokenizer, stop_token_ids=[king], output_kind=kind)
    texts, ids, _, _ = await _watched(request, Stopping(tokenizer, [said, GOOD]), _rule(Index()))
    assert texts == {0: GOOD} and ids == {0: tokenizer.encode(GOOD)}


async def test_what_follows_the_cut_at_a_stop_string_is_judged_too(tokenizer):
    class Cutting(Model):
        def _output(self, request, choice, ids, step, whole):
            output = super()._output(request, choice, ids, step, whole)
            output.text, _, stopped = output.text.partition("king")
            output.stop_reason = "king" if stopped or ids == tokenizer.encode(said) else None
            return output

    said = "It was good. It was the king"
    request = _request(tokenizer, stop=["king"], output_kind=RequestOutputKind.FINAL_ONLY)
    texts, _, _, _ = await _watched(request, Cutting(tokenizer, [said, GOOD]), _rule(Index()))
    assert texts == {0: GOOD}


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
async def test_a_stop_string_across_the_seam_still_stops(tokenizer, kind):
    request = _request(tokenizer, stop=["\n\n"], output_kind=kind)
    model = Model(tokenizer, ["It was good.\nThe king wrote it.", "It was good.\n\nA dog jumps."])
    assert tokenizer.encode("\n\n") == 2 * tokenizer.encode("\n"), "the test needs a token for each line break"
    texts, ids, reasons, _ = await _watched(request, model, _rule(Index()))
    assert texts == {0: "It was good."} and reasons == {0: "stop"}
    assert ids == {0: tokenizer.encode("It was good.\n\n")}


async def test_text_that_lags_for_stop_strings_arrives_whole(tokenizer):
    request, model = _request(tokenizer, stop=["STOPPED"]), Model(tokenizer, [BAD, GOOD])
    texts, ids, _, _ = await _watched(request, model, _rule(Index()))
    assert texts == {0: GOOD} and ids == {0: tokenizer.encode(GOOD)}


async def test_tool_arguments_are_read_too(tokenizer):
    call = '{"name": "note", "arguments": {"author": "the king", "text": "It was good."}}'
    request, model = _request(tokenizer), Model(tokenizer, [call])
    texts, _, _, _ = await _watched(request, model, _rule(Index()), resumable=False)
    assert "king" not in texts[0] and texts[0].startswith('{"name": "note",')


async def test_the_fallback_of_a_model_that_thinks_ends_its_thoughts(tokenizer):
    request = replace(_request(tokenizer), lead_in="</think>")
    model = Model(tokenizer, ["The king wrote it."])
    texts, _, _, _ = await _watched(request, model, _rule(Index()), resumable=False)
    assert texts == {0: f"</think>{FALLBACK}"}


async def test_prompt_logprobs_arrive_once(tokenizer):
    request, model = _request(tokenizer), Model(tokenizer, [GOOD])
    told = [None, *({token: Logprob(-1.0, 1, "x")} for token in request.token_ids[1:])]

    async def source():
        first = True
        async for result in model.run(request):
            result.prompt_logprobs, first = (told if first else None), False
            yield result

    serving = Serving(model.run, resumable=True)
    results = [result async for result in StatementGuard(request, _rule(Index()), serving).watch(source())]
    assert [result.prompt_logprobs for result in results] == [told] + [None] * (len(results) - 1)


async def test_an_abandoned_stream_stops_the_engine(tokenizer):
    stopped = []

    async def run(request):
        try:
            async for result in Model(tokenizer, [GOOD]).run(request):
                yield result
        finally:
            stopped.append(True)

    request, serving = _request(tokenizer), Serving(run, resumable=True)
    stream = StatementGuard(request, _rule(Index()), serving).watch(serving(request))
    await anext(stream)
    await stream.aclose()
    assert stopped


async def test_an_abandoned_stream_stops_a_continuation(tokenizer):
    model = Model(tokenizer, [BAD, GOOD])
    running = []

    async def run(request):
        running.append(request.request_id)
        try:
            async for result in model.run(request):
                yield result
        finally:
            running.remove(request.request_id)

    request, serving = _request(tokenizer), Serving(run, resumable=True)
    stream = StatementGuard(request, _rule(Index()), serving).watch(serving(request))
    async for _ in stream:
        if "r-0-1" in running:
            break
    assert running == ["r-0-1"]
    await stream.aclose()
    assert not running


async def test_judgements_may_end_while_the_client_takes_its_time(tokenizer):
    class Second(Index):
        async def judge(self, clause, context, candidates, *, owner):
            await asyncio.sleep(0.02 if "dog" in clause else 0)
            return await super().judge(clause, context, candidates, owner=owner)

    text = "Then a fox jumps. One dog and a fox."
    request, model = _request(tokenizer, output_kind=RequestOutputKind.DELTA), Model(tokenizer, [text])
    serving, texts = Serving(model.run, resumable=True), []
    async for result in StatementGuard(request, _rule(Second(0.01)), serving).watch(serving(request)):
        texts += [one.text for one in result.outputs]
        await asyncio.sleep(0.05)
    assert len(texts) == 2 and "".join(texts) == text


async def test_an_engine_that_fails_is_not_silent(tokenizer):
    async def run(request):
        raise RuntimeError("dead")
        yield

    request, serving = _request(tokenizer), Serving(run, resumable=True)
    with pytest.raises(RuntimeError):
        await anext(StatementGuard(request, _rule(Index()), serving).watch(serving(request)))


async def test_a_continuation_that_fails_is_the_fallback(tokenizer):
    model = Model(tokenizer, [BAD])  # and nothing else to say
    texts, _, reasons, _ = await _watched(_request(tokenizer), model, _rule(Index()))
    assert texts == {0: f"It was good.… {FALLBACK}"} and reasons == {0: "stop"}


async def test_what_is_being_judged_when_a_continuation_fails_does_not_leave(tokenizer):
    class Slow(Index):
        async def judge(self, clause, context, candidates, *, owner):
            await asyncio.sleep(0.2 if "Richard" in clause else 0)
            return await super().judge(clause, context, candidates, owner=owner)

    model = Model(tokenizer, [BAD, "It was good. Richard the king wrote it. You have that dog."])

    async def run(request):
        async for result in model.run(request):
            if result.outputs[0].finish_reason and len(model.requests) > 1:
                raise RuntimeError("dead")
            yield result

    request, serving = _request(tokenizer), Serving(run, resumable=True)
    stream = StatementGuard(request, _rule(Slow()), serving).watch(serving(request))
    texts = [one.text async for result in stream for one in result.outputs]
    assert "".join(texts) == f"It was good.… {FALLBACK}"
