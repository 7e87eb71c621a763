"""Whatever the documents, the text and the chunks: what is released holds no run that is too long.

Words are of few kinds, so that texts have much in common, and are written in many ways.
"""

import random

from hypothesis import given
from hypothesis import strategies as st

from classifiers.grams import GRAM
from classifiers.verbatim import VerbatimIndex
from classifiers.word_stream import WordStream, folded_words
from tests.examples import examples

RELAXED = examples(300)

vocabulary = st.sampled_from(["a", "B", "cat", "CAT", "cats", "dog", "d\u00f6g", "at", "毛", "c\u200bat"])
separators = st.sampled_from([" ", " ", " ", ", ", "-", "\n", "\\n", " \\u0020", "’"])
runs = st.integers(3, 6)


@st.composite
def documents(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(vocabulary, max_size=30))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], str, int]:
    """A document's words, a text that has pieces of it, and a run length."""
    document = draw(documents())
    words: list[str] = []
    for _ in range(draw(st.integers(0, 5))):
        start, length = draw(st.integers(0, 30)), draw(st.integers(0, 8))
        words += document[start : start + length] + draw(st.lists(vocabulary, max_size=6))
    text = "".join(word + draw(separators) for word in words)
    return document, text[: len(text) - draw(st.integers(0, 3))], draw(runs)


def _runs(document: list[str], words: list[str]) -> list[int]:
    """For each word of a text, the length of the longest run of the document that it ends. O(n m) and obvious."""
    before = [0] * (len(document) + 1)
    longest = []
    for word in words:
        now = [0] * (len(document) + 1)
        for place, other in enumerate(document):
            now[place + 1] = before[place] + 1 if word == other else 0
        longest.append(max(now))
        before = now
    return longest


def _index(document: list[str], run: int) -> VerbatimIndex:
    index = VerbatimIndex()
    index.add("book", [" ".join(document)], run=run)
    return index


@RELAXED
@given(cases(), st.data())
def test_what_is_released_holds_no_run_that_is_too_long(case: tuple[list[str], str, int], data: st.DataObject) -> None:
    document, text, run = case
    folded = folded_words(" ".join(document))
    matcher = _index(document, run).matcher({"book"})
    found, position = None, 0
    while found is None and position < len(text):
        size = data.draw(st.integers(1, 12))
        found = matcher.feed(text[position : position + size])
        position = min(len(text), position + size)
        if found is None:
            assert max(_runs(folded, folded_words(text[: matcher.safe])), default=0) <= run
    found = found or matcher.finish()
    whole = _index(document, run).find(text, {"book"})
    assert found == whole
    released = text if found is None else text[: found.start]
    assert max(_runs(folded, folded_words(released)), default=0) <= run


@RELAXED
@given(cases())
def test_what_has_little_in_common_passes(case: tuple[list[str], str, int]) -> None:
    """No run too long, and in no window as many words in common as a copy needs: nothing is found."""
    document, text, run = case
    longest = _runs(folded_words(" ".join(document)), folded_words(text))
    covered = [any(length >= GRAM for length in longest[i : i + GRAM]) for i in range(len(longest))]
    most = max((sum(covered[i : i + 4 * run]) for i in range(len(covered))), default=0)
    if max(longest, default=0) <= run and most < 2 * run:
        assert _index(document, run).find(text, {"book"}) is None


@RELAXED
@given(st.lists(st.tuples(st.lists(documents(), max_size=3), st.booleans(), runs), max_size=8), cases())
def test_an_index_is_as_if_what_was_discarded_had_never_been_there(
    owners: list[tuple[list[list[str]], bool, int]], case: tuple[list[str], str, int]
) -> None:
    index, fresh = VerbatimIndex(), VerbatimIndex()
    added = {f"key {number}": owner for number, owner in enumerate(owners)}
    for key, (texts, _, run) in added.items():
        index.add(key, map(" ".join, texts), run=run)
    order = [key for key, (_, kept, _) in added.items() if not kept]
    random.Random(len(owners)).shuffle(order)
    for key in order:
        index.discard(key)
    for key, (texts, kept, run) in added.items():
        if kept:
            fresh.add(key, map(" ".join, texts), run=run)
    document, text, run = case
    for one in (index, fresh):
        one.add("book", [" ".join(document)], run=run)
    everything = " ".join([text, *(" ".join(words) for texts, _, _ in owners for words in texts)])
    keys = {*added, "book"}
    for key in keys:
        assert index.find(everything, {key}) == fresh.find(everything, {key})
    found, expected = index.find(everything, keys), fresh.find(everything, keys)
    assert (found and found[:2]) == (expected and expected[:2])


@given(
    st.text(alphabet=st.sampled_from([*"ab 毛é-\u0301\u200b\\nu00e9dC", "\ud835"]) | st.characters(), max_size=60),
    st.lists(st.integers(1, 7), max_size=60),
)
def test_words_do_not_depend_on_chunks(text: str, sizes: list[int]) -> None:
    stream, words, position = WordStream(), [], 0
    for size in sizes:
        words += stream.feed(text[position : position + size])
        position = min(len(text), position + size)
        assert 0 <= stream.settled <= stream.position == position
    words += stream.feed(text[position:]) + stream.finish()
    assert [word.text for word in words] == folded_words(text)
    for word in words:
        assert folded_words(text[word.start : word.end]) == [word.text]
