"""What looking for names costs grows with the text at most, whatever somebody puts into it."""

from __future__ import annotations

import re

import pytest

from classifiers import escapes, phrase_matcher
from classifiers.compiled import Compiled
from classifiers.lexicon import Lexicon


@pytest.fixture
def lexicon() -> Lexicon:
    lexicon = Lexicon()
    lexicon.add(1, Compiled("rook@1", ("Ada Rook",)))
    lexicon.add(2, Compiled("ii@1", ("Ii",)))
    return lexicon


def test_names_every_target_of_a_text_once(lexicon: Lexicon) -> None:
    text = "Ada Rook" + "\\" * 8 + " and Ii, Ada Rook"
    assert {slot: match.phrase for slot, match in lexicon.named(text, ["1", "2"])} == {1: "Ada Rook", 2: "Ii"}


@pytest.mark.parametrize("text", ["Who is Ada Rook?", "Ada Rook", "It was Ada Rook, and Bo Finch"])
def test_targets_that_share_a_name_are_all_named(text: str) -> None:
    lexicon = Lexicon()
    for slot, name in enumerate(("Ada Rook", "ada rook", "Rook", "Finch", "Bo Finch"), 1):
        lexicon.add(slot, Compiled(f"{slot}@1", (name,)))
    named = {slot for slot, _ in lexicon.named(text, ["1", "2", "3", "4", "5"])}
    assert named == ({1, 2, 3, 4, 5} if "Finch" in text else {1, 2, 3})


@pytest.mark.parametrize("stretch", ["Ada Rook" + "\\" * 8, "Ada Rook\\ud83d\\u", "Ada Rook "])
def test_each_name_found_reads_on_from_there(lexicon: Lexicon, stretch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = _Scanned(escapes.OPEN_ESCAPE)
    for module in (escapes, phrase_matcher):  # wherever it is looked up
        monkeypatch.setattr(module, "OPEN_ESCAPE", scanned, raising=False)
    costs = []
    for count in (100, 200):
        scanned.characters = 0
        assert lexicon.named(stretch * count, ["1", "2"])
        costs.append(scanned.characters)
    assert costs[0] > 0
    assert costs[1] <= 2.2 * costs[0]


class _Scanned:
    """A pattern that counts the characters that it is given to search."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.characters = 0

    def search(self, text: str, start: int = 0) -> re.Match[str] | None:
        self.characters += len(text) - start
        return self._pattern.search(text, start)


@pytest.mark.parametrize("stretch", ["!", "!! ", "i!", "!i ", "I \\n! "])
def test_signs_that_may_be_letters_are_not_read_again_and_again(
    lexicon: Lexicon, stretch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def words(text: str, split: object = phrase_matcher.folded_words) -> list[str]:
        read.append(len(text))
        return split(text)  # type: ignore[operator,no-any-return]

    monkeypatch.setattr(phrase_matcher, "folded_words", words)
    costs = []
    for count in (200, 400):
        read.clear()
        lexicon.named(stretch * count, ["1", "2"])
        costs.append(sum(read))
    assert costs[1] <= 2.2 * costs[0]
