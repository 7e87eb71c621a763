"""What must hold for any text whatever."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from classifiers.ciphers import deciphered
from classifiers.detector import TextDetector, View
from classifiers.escapes import OPEN_ESCAPE, open_at, paired
from classifiers.normalise import hidden, plain
from classifiers.phrase_index import PhraseIndex
from classifiers.profile import Profile
from classifiers.windows import MAX_CHARS, MAX_WORDS, split
from tests.examples import examples

ANY_TEXT = st.text(max_size=400)
SEPARATORS = st.sampled_from(["", " ", "-", ".", "_", "\u200b", "\u00ad", "*"])
RELAXED = examples(60, suppress=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def detector() -> Iterator[TextDetector]:
    detector = TextDetector()
    detector.add(detector.compile(Profile("vesper@1", "Orla Vesperton", description="Orla Vesperton is a novelist.")))
    yield detector
    detector.close()


@pytest.fixture(scope="module")
def view(detector: TextDetector) -> View:
    return detector.view(["vesper@1"])


@RELAXED
@given(segments=st.lists(ANY_TEXT, max_size=3))
def test_a_scan_never_raises(detector: TextDetector, view: View, segments: list[str]) -> None:
    found = asyncio.run(detector.scan(segments, view, semantic=False))
    assert found.unavailable == () and found.unscanned == 0
    assert all(0 <= hit.score <= 1 and 0 <= hit.threshold <= 1 for hit in found.hits)


@RELAXED
@given(separator=SEPARATORS, before=ANY_TEXT, upper=st.booleans())
def test_separators_inside_a_name_do_not_hide_it(
    detector: TextDetector, view: View, separator: str, before: str, upper: bool
) -> None:
    name = separator.join("Orla Vesperton" if separator.strip("\u200b\u00ad") == "" else "OrlaVesperton")
    text = f"{before}\n {name.upper() if upper else name} \n{before}"
    hits = asyncio.run(detector.scan([text], view, semantic=False)).hits
    assert [hit.key for hit in hits if hit.flagged] == ["vesper@1"]


@given(segments=st.lists(ANY_TEXT, max_size=4))
def test_windows_cover_every_word(segments: list[str]) -> None:
    windows = split(segments)
    seen = " ".join(window.text for window in windows)
    assert all(word in seen for segment in segments for word in segment.split() if len(word) < MAX_CHARS // 2)
    assert all(len(window.text) <= MAX_CHARS and window.text.count(" ") < MAX_WORDS for window in windows)


@given(text=ANY_TEXT)
def test_normalising_never_raises_and_settles(text: str) -> None:
    assert isinstance(plain(text), str)
    assert all(isinstance(found, str) for found in hidden(text))


@given(units=st.lists(st.integers(0, 0xFFFF), max_size=12))
def test_whatever_escapes_stand_for_has_a_utf_8(units: list[int]) -> None:
    assert all(found.encode() for found in hidden("so " + "".join(f"\\u{unit:04x}" for unit in units)))


@given(text=st.text(st.characters() | st.characters(categories=["Cs"])))
def test_pairing_surrogates_leaves_characters_and_nothing_else(text: str) -> None:
    assert paired(text).encode().decode("utf-8") == paired(text)
    assert [c for c in paired(text) if c.isascii()] == [c for c in text if c.isascii()]


@given(text=ANY_TEXT)
def test_pairing_makes_the_text_of_its_pairs(text: str) -> None:
    units = text.encode("utf-16-be")
    assert paired(text) == text
    assert paired("".join(chr(int.from_bytes(units[at : at + 2])) for at in range(0, len(units), 2))) == text


@given(text=st.text("\\uuud8Dc0n ", max_size=30), start=st.integers(0, 30))
def test_the_end_alone_tells_where_an_open_escape_begins(text: str, start: int) -> None:
    found = OPEN_ESCAPE.search(text, start)
    assert open_at(text, start) == (found.start() if found else len(text))


#: Words of ordinary text and of ciphers of it, and what stands between them.
_WORDS = st.sampled_from(["who", "jub", "ohw", "is", "vf", "si", "be", "rook", "ebbx", "1994", "é", ".", "\n"])


@given(words=st.lists(_WORDS, max_size=80))
def test_what_is_deciphered_does_not_pile_up(words: list[str]) -> None:
    text = " ".join(words)
    assert sum(map(len, deciphered(text))) <= 6 * len(text)


#: Signs that read as letters, separate or decorate, escapes, and letters that phrases are made of.
_PIECES = st.sampled_from(
    ["a", "b", "A", "B", "é", "ß", "4", "1", " ", "-", ".", "!", "@", "\u200b", "\u0301", "\\u0061", "山"]
)
_PHRASES = st.lists(st.text("abAB 1山", min_size=1, max_size=6), min_size=1, max_size=4)


@given(phrases=_PHRASES, text=st.lists(_PIECES, max_size=14).map("".join))
def test_no_phrase_is_found_in_a_text_that_may_hold_none(phrases: list[str], text: str) -> None:
    index = PhraseIndex()
    index.add("target@1", phrases)
    matcher = index.matcher(["target@1"])
    found = matcher.feed(text) or matcher.finish()
    assert found is None or index.may_hold(text)


@given(phrases=_PHRASES, text=st.lists(_PIECES, max_size=14).map("".join))
def test_a_text_says_what_would_be_found_in_it_alone(phrases: list[str], text: str) -> None:
    index = PhraseIndex()
    index.add("target@1", phrases)
    alone = {phrase: PhraseIndex() for phrase in index.phrases("target@1")}
    for phrase, one in alone.items():
        one.add("target@1", [phrase])
    assert index.said(text, ["target@1"]) == {phrase for phrase, one in alone.items() if one.find(text, ["target@1"])}


@given(phrases=_PHRASES, data=st.data())
def test_what_would_match_is_what_is_found_when_it_comes(phrases: list[str], data: st.DataObject) -> None:
    index = PhraseIndex()
    index.add("target@1", phrases)
    ways = (
        str,
        lambda char: f"\\u{ord(char):04x}",
        lambda char: f"{char}\u0301",
        lambda char: {"1": "!", "a": "@"}.get(char, char),
    )
    letters = [data.draw(st.sampled_from(ways))(char) for char in data.draw(st.sampled_from(phrases))]
    written = "".join(data.draw(st.permutations(["a", " ", "".join(letters), data.draw(_PIECES)])))
    cut = data.draw(st.integers(0, len(written)))
    start = data.draw(st.integers(0, cut))
    matcher = index.matcher(["target@1"], prompt_tail=written[:start])
    before, text = written[start:cut], written[cut:]
    while matcher.feed(before):
        before = ""
    position = matcher._position
    assert matcher.would_match(text) == any(found.end > position for found in matcher.fork().every(text))
