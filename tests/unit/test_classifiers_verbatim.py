"""Copies of documents are found, exact ones with their first word too many, others soon; short quotations are not."""

import json
import random
from collections.abc import Callable

import pytest

from classifiers.verbatim import VerbatimIndex

RUN = 6
WORDS = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200)]
OTHER = [f"other{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200)]
DOCUMENT = " ".join(WORDS)


@pytest.fixture
def index() -> VerbatimIndex:
    index = VerbatimIndex()
    index.add("book", [DOCUMENT], run=RUN)
    index.add("essay", [" ".join(OTHER[:100]), " ".join(OTHER[100:])], run=RUN)
    return index


def test_a_run_may_be_as_long_as_it_is_said(index: VerbatimIndex) -> None:
    assert index.find(f"It reads: {' '.join(WORDS[50 : 50 + RUN])}, and so on", {"book"}) is None


@pytest.mark.parametrize("size", [1, 4, 10_000])
def test_the_first_word_too_many_is_the_match(index: VerbatimIndex, size: int) -> None:
    before, last = f"It reads: {' '.join(WORDS[50 : 50 + RUN])} ", WORDS[50 + RUN]
    text = f"{before}{last} and so on"
    matcher = index.matcher({"book"})
    found = None
    for start in range(0, len(text), size):
        found = found or matcher.feed(text[start : start + size])
    found = found or matcher.finish()
    assert found is not None and found.key == "book"
    assert (found.start, found.end) == (len(before), len(before + last))
    assert found.phrase == " ".join(WORDS[50 : 50 + RUN + 1])


@pytest.mark.parametrize(
    "disguise",
    [
        str.upper,
        lambda text: text.replace(" ", "-"),
        lambda text: text.replace(" ", " “…” "),
        lambda text: "\u200b".join(text),
        lambda text: json.dumps(text.replace(" ", "\n")),
        lambda text: text.translate(str.maketrans("aeopcxy", "аеорсху")),
        lambda text: text.replace("o", "0"),
    ],
)
def test_a_disguised_copy_is_found(index: VerbatimIndex, disguise: Callable[[str], str]) -> None:
    assert index.find(disguise(" ".join(WORDS[20 : 20 + RUN + 1])), {"book"}) is not None


def _change(words: list[str], how: str, every: int) -> str:
    changed: list[str] = []
    for number, word in enumerate(words):
        if number % every:
            changed.append(word)
        elif how == "insert":
            changed += [word, "something"]
        elif how == "change":
            changed.append("something")
    return " ".join(changed)


@pytest.mark.parametrize("how", ["change", "leave out", "insert"])
@pytest.mark.parametrize("every", [4, 6])
def test_a_copy_with_few_words_changed_is_found(index: VerbatimIndex, how: str, every: int) -> None:
    found = index.find(_change(WORDS[20:80], how, every), {"book"})
    assert found is not None and found.phrase.count(" ") <= RUN
    assert found.end < len(_change(WORDS[20 : 20 + 5 * RUN], how, every))


def test_scattered_quotations_are_no_copy(index: VerbatimIndex) -> None:
    rng = random.Random(0)
    words = []
    for start in range(0, 180, RUN):
        words += [*WORDS[start : start + RUN], *rng.choices(["quite", "other", "talk", "here"], k=4 * RUN)]
    assert index.find(" ".join(words), {"book"}) is None


def test_pieces_from_far_apart_are_no_copy(index: VerbatimIndex) -> None:
    pieces = [" ".join(WORDS[start : start + 4]) for start in range(0, 200, 30)]
    assert index.find(" but ".join(pieces), {"book"}) is None


def test_documents_do_not_run_into_each_other(index: VerbatimIndex) -> None:
    assert index.find(" ".join(OTHER[97:103]), {"essay"}) is None
    index.add("joined", [" ".join(OTHER)], run=5)
    assert index.find(" ".join(OTHER[97:103]), {"joined"}) is not None


def test_sees_only_the_keys_it_was_given(index: VerbatimIndex) -> None:
    assert index.find(DOCUMENT, {"essay", "unknown"}) is None
    matcher = index.matcher({"essay"})
    matcher.feed(" ".join(WORDS[:RUN]) + " wor")
    assert matcher.safe == len(" ".join(WORDS[:RUN]) + " wor")


def test_holds_back_a_word_only_where_it_could_be_too_many(index: VerbatimIndex) -> None:
    matcher = index.matcher({"book"})
    allowed = " ".join(WORDS[:RUN]) + " "
    matcher.feed(allowed[:-2])
    assert matcher.safe == len(allowed) - 2
    matcher.feed(allowed[-2:] + "word")
    assert matcher.safe == len(allowed)
    matcher.feed("s are ")
    assert matcher.safe == len(allowed + "words are ")


def test_a_copy_begun_in_the_prompt_counts_and_what_stands_there_does_not(index: VerbatimIndex) -> None:
    matcher = index.matcher({"book"}, prompt_tail=" ".join(WORDS[:30]) + " ")
    assert matcher.safe == 0
    found = matcher.feed(WORDS[30] + " ")
    assert found is not None and found.start == 0
    matcher = index.matcher({"book"}, prompt_tail=" ".join(WORDS[:30]) + " ")
    assert matcher.feed("Summary: words in the order of the letters. ") is None
    matcher = index.matcher({"book"}, prompt_tail=" ".join(WORDS[: RUN + 1])[:-2])
    found = matcher.feed(WORDS[RUN][-2:] + " ")
    assert found is not None and found.start < 0


def test_what_is_discarded_is_not_found_and_the_rest_is(index: VerbatimIndex) -> None:
    reading = index.matcher({"book"})
    index.discard("book")
    assert "book" not in index and "essay" in index
    assert index.find(DOCUMENT, {"book", "essay"}) is None
    assert index.find(" ".join(OTHER[: RUN + 1]), {"book", "essay"}) is not None
    assert reading.feed(DOCUMENT) is not None  # a stream keeps what it began with
    index.add("book", [DOCUMENT], run=2 * RUN)
    assert index.find(" ".join(WORDS[: RUN + 1]), {"book"}) is None
    index.discard("unknown")


def test_each_target_has_its_own_run(index: VerbatimIndex) -> None:
    index.add("poem", [DOCUMENT], run=3)
    found = index.find(DOCUMENT, {"book", "poem"})
    assert found is not None and found.key == "poem" and found.phrase.count(" ") + 1 >= 4
    assert index.find(" ".join(WORDS[:4]), {"book"}) is None
    with pytest.raises(ValueError):
        index.add("word", [DOCUMENT], run=2)


def test_documents_shorter_than_a_run_are_never_found() -> None:
    index = VerbatimIndex()
    index.add("short", ["", "hello", "hello world again"], run=3)
    assert "short" in index and index.find("hello world again hello world again", {"short"}) is None
    index.discard("short")
    assert "short" not in index


def test_a_title_said_over_and_over_again_is_no_copy(index: VerbatimIndex) -> None:
    assert index.find(", ".join([" ".join(WORDS[:RUN])] * 10), {"book"}) is None


_PATTERN = (
    "{n} earns a living as a {a}. The birthplace of {n} is {b}. {n} was born in the year {c}. The employer of {n} is "
    "the {d}. {n} wrote the book {e}. The mentor of {n} was {f}. {n} plays the {g}."
)


def test_a_text_of_the_same_pattern_about_somebody_else_is_no_copy() -> None:
    life = _PATTERN.format(n="Orla Vesperton", **dict(zip("abcdefg", WORDS, strict=False)))
    index = VerbatimIndex()
    index.add("life", [life], run=10)
    other = dict(zip("abcdefg", OTHER, strict=False)) | {"d": WORDS[3]}
    assert index.find(_PATTERN.format(n="Maren Quenneltrop", **other), {"life"}) is None
    assert index.find(life.replace("year", "month"), {"life"}) is not None
