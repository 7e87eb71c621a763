"""What a reader takes for the same words are the same words."""

import json

import pytest

from classifiers.word_stream import FoldedWord, WordStream, folded_words

PLAIN = "She said: don't take the daisy-chain, Café Zoë!"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.upper(),
        "She said — “don’t take\nthe daisy‐chain” (Café Zoë)",
        "S\u200bhe said d\u00adon't take the daisy - chain, Cafe\u0301 Zoe",
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in PLAIN),
        "Ѕhе said d0n't t4ke the dаisy chain cafe zoe",
        json.dumps(PLAIN.replace(" ", "\n")),
        "\\u0053he said don't take the daisy\\tchain caf\\u00e9 zoe",
    ],
)
def test_words_are_the_same_however_they_are_written(text: str) -> None:
    assert folded_words(text) == folded_words(PLAIN)


def test_characters_of_scripts_without_spaces_are_words() -> None:
    assert len(folded_words("他是毛泽东的朋友")) == 8
    assert len(folded_words("Она купила книгу")) == 3


def test_words_come_when_they_are_whole_and_know_where_they_stand() -> None:
    stream = WordStream(-3)
    assert stream.feed("ab c") == [FoldedWord("ab", -3, -1)]
    assert stream.settled == 0 and stream.position == 1
    assert stream.feed("at, ") == [FoldedWord("cat", 0, 3)]
    assert stream.settled == stream.position == 5
    assert stream.feed("dog") == []
    assert stream.finish() == [FoldedWord("dog", 5, 8)]


def test_an_escape_that_is_not_whole_is_waited_for() -> None:
    stream = WordStream()
    assert stream.feed("one\\") == [] and stream.settled == 0
    assert stream.feed("ntwo\\u00") == [FoldedWord("one", 0, 3)]
    assert stream.feed("e9 ") == [FoldedWord("twoe", 5, 14)]
