"""No copy of a protected document leaves: streamed or whole, in any choice, begun in the prompt, or nearly exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vllm.sampling_params import RequestOutputKind

from classifiers.phrase_index import PhraseIndex
from classifiers.verbatim import VerbatimIndex
from classifiers.word_stream import folded_words
from guard.leakguard import LeakGuard, LeakRule
from tests.streams import collect, make_request, stream

FALLBACK = "I'm sorry."
DOCUMENT = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part of the "
    "world. It is a way I have of driving off the spleen, and regulating the circulation."
)
WORDS = DOCUMENT.split()
RUN = 5


@pytest.fixture
def rule():
    verbatim = VerbatimIndex()
    verbatim.add("novel", [DOCUMENT], run=RUN)
    return LeakRule(PhraseIndex(), frozenset({"novel"}), frozenset(), FALLBACK, lambda *_: None, verbatim=verbatim)


def _begins(text: str) -> int:
    """How many words of the document ``text`` has from its beginning on."""
    said, document = folded_words(text), folded_words(DOCUMENT)
    return next((n for n, (a, b) in enumerate(zip(said, document, strict=False)) if a != b), len(said))


@pytest.mark.parametrize("params", [{}, {"logprobs": 1}, {"stop": ["STOPPED"]}])
async def test_a_recital_ends_with_the_last_word_that_is_allowed(tokenizer, rule, params):
    request = make_request(tokenizer, max_tokens=200, **params)
    texts, ids, reasons = await collect(LeakGuard(request, rule), stream(request, {0: DOCUMENT}))
    assert _begins(texts[0]) == RUN and texts[0].endswith("… " + FALLBACK) and reasons == {0: "stop"}
    assert _begins(tokenizer.decode(ids[0])) == RUN


@pytest.mark.parametrize("kind", [RequestOutputKind.CUMULATIVE, RequestOutputKind.FINAL_ONLY])
async def test_a_whole_answer_is_replaced(tokenizer, rule, kind):
    request = make_request(tokenizer, max_tokens=200, output_kind=kind)
    texts, _, _ = await collect(LeakGuard(request, rule), stream(request, {0: f"Gladly: {DOCUMENT}"}))
    assert texts == {0: FALLBACK}


async def test_a_quotation_of_the_allowed_length_passes_unchanged(tokenizer, rule):
    text = f"The book begins with: {' '.join(WORDS[:RUN])} (and then goes on)."
    request = make_request(tokenizer, max_tokens=200)
    texts, ids, _ = await collect(LeakGuard(request, rule), stream(request, {0: text}))
    assert texts == {0: text} and ids == {0: tokenizer.encode(text)}


async def test_only_the_word_that_could_be_too_many_waits(tokenizer, rule):
    """Whatever was produced has left, but for the word after a run of the allowed length."""
    request, text = make_request(tokenizer, max_tokens=200), f"{' '.join(WORDS[:RUN])} yesterday it was."
    produced, waiting = [], []

    async def source():
        async for result in stream(request, {0: text}):
            produced.append(result.outputs[0].text)
            yield result

    left = ""
    async for result in LeakGuard(request, rule).watch(source()):
        left += "".join(one.text for one in result.outputs)
        waiting.append("".join(produced)[len(left) :])
    assert left == text and waiting == [""] * len(waiting)
    assert len(waiting) < len(produced), "the word after the run came in several pieces and left in one"


async def test_other_choices_go_on(tokenizer, rule):
    request = make_request(tokenizer, n=2, seed=1, max_tokens=200)
    texts, _, reasons = await collect(LeakGuard(request, rule), stream(request, {0: DOCUMENT, 1: "I don't know it."}))
    assert _begins(texts[0]) == RUN and texts[1] == "I don't know it."
    assert reasons == {0: "stop", 1: "stop"}


async def test_a_run_begun_in_the_prompt_counts(tokenizer, rule):
    request = make_request(tokenizer, "I read: " + " ".join(WORDS[:4]), max_tokens=200)
    rest = " " + " ".join(WORDS[4:])
    texts, _, _ = await collect(LeakGuard(request, rule), stream(request, {0: rest}))
    assert folded_words(texts[0])[: RUN - 4] == folded_words(rest)[: RUN - 4]
    assert WORDS[RUN] not in texts[0]


async def test_a_copy_with_some_words_changed_is_cut_off(tokenizer, rule):
    text = " ".join("well" if number % RUN == 3 else word for number, word in enumerate(WORDS))
    request = make_request(tokenizer, max_tokens=200)
    texts, _, _ = await collect(LeakGuard(request, rule), stream(request, {0: text}))
    assert texts[0].endswith(FALLBACK)
    assert len(texts[0]) < len(text) / 2


async def test_monitored_documents_are_reported_and_pass(tokenizer, rule):
    seen = []
    rule = replace(
        rule, enforced=frozenset(), monitored=frozenset({"novel"}), report=lambda match, cut: seen.append((match, cut))
    )
    request = make_request(tokenizer, max_tokens=200)
    texts, _, _ = await collect(LeakGuard(request, rule), stream(request, {0: DOCUMENT}))
    assert texts == {0: DOCUMENT}
    [(match, cut)] = seen
    assert match.key == "novel" and match.phrase == "Call me Ishmael. Some years ago" and not cut


async def test_a_phrase_and_a_copy_in_one_answer(tokenizer, rule):
    """Whichever comes first ends it."""
    rule.index.add("name", ["Herman Melville"])
    rule = replace(rule, enforced=frozenset({"novel", "name"}))
    for text in (f"Herman Melville: {DOCUMENT}", f"{' '.join(WORDS[:8])} Herman Melville"):
        request = make_request(tokenizer, max_tokens=200)
        texts, _, _ = await collect(LeakGuard(request, rule), stream(request, {0: text}))
        assert "Herman" not in texts[0] and _begins(texts[0]) <= RUN


async def test_what_is_said_instead_does_not_go_on_with_the_copy(tokenizer, rule):
    request = make_request(tokenizer, max_tokens=200)
    guard = LeakGuard(request, replace(rule, fallback=f"{WORDS[RUN]} I cannot say."))
    texts, _, reasons = await collect(guard, stream(request, {0: DOCUMENT}))
    assert _begins(texts[0]) == RUN and texts[0].endswith("…") and reasons == {0: "stop"}


def test_a_fork_of_what_reads_for_copies_reads_on_by_itself_in_the_same_documents():
    index, words = VerbatimIndex(), [f"word{chr(97 + i)}" for i in range(26)]
    index.add("book", [" ".join(words)], run=6)
    matcher = index.matcher({"book"}, prompt_tail=" ".join(words[:6]) + " ")
    fork = matcher.fork()
    assert matcher.feed("and so on ") is None
    assert fork.fork().feed(words[6] + " ") is not None and fork.feed("and so on ") is None
    assert all(one is other for one, other in zip(fork._sources, matcher._sources, strict=True))
