"""The folded words of a text, at once or as it comes, for comparing texts word by word.

Two texts that a reader takes for the same have the same words here, whatever their case, Unicode form, look-alikes,
quotation marks, punctuation, line breaks, invisible characters or JSON escapes. What separates words is white space
and punctuation, hyphens and apostrophes included ("daisy-chain" is two words, as is "don't"). In scripts that are
written without spaces each character is a word.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from classifiers.escapes import ESCAPE, open_at, unescape, unescaped
from classifiers.folding import fold, is_separator

_SPACELESS = ("CJK ", "HIRAGANA ", "KATAKANA", "BOPOMOFO ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")


class FoldedWord(NamedTuple):
    """A word that stands at ``text[start:end]``."""

    text: str
    start: int
    end: int


class _Folds(dict[int, str]):
    """Code point -> its folded letters, ``" "`` for a separator, ``""`` for decoration; spaces around a character that
    is a word of its own. Fit for :meth:`str.translate`."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        letters = fold(char)
        if not letters:
            folded = " " if is_separator(char) else ""
        elif unicodedata.name(char, "").startswith(_SPACELESS):
            folded = f" {letters} "
        else:
            folded = letters
        self[code] = folded
        return folded


_FOLDS = _Folds()


def folded_words(text: str) -> list[str]:
    """The words of a complete text."""
    return unescaped(text).translate(_FOLDS).split()


class WordStream:
    """Reads the words of a text that comes in pieces.

    Args:
        origin: the position of the first character that will be read.

    Attributes:
        position: of the first character that was not fed yet.
    """

    def __init__(self, origin: int = 0) -> None:
        self.position = origin
        self._rest = ""  # an escape of which more must be seen
        self._word = ""
        self._start = self._end = origin

    @property
    def settled(self) -> int:
        """Up to where the text was read into whole words and what stands between them."""
        return self._start if self._word else self.position - len(self._rest)

    def feed(self, text: str) -> list[FoldedWord]:
        """The words that the next piece completes."""
        whole = self._rest + text
        return self._read(whole, open_at(whole), len(text))

    def finish(self) -> list[FoldedWord]:
        """The words that the end of the text completes."""
        words = self._read(self._rest, len(self._rest), 0)
        self._complete(words)
        return words

    def _read(self, text: str, stop: int, fresh: int) -> list[FoldedWord]:
        """Read ``text[:stop]``, of which all but the last ``fresh`` characters were fed before; keep the rest."""
        words: list[FoldedWord] = []
        origin = self.position + fresh - len(text)
        index = 0
        while index < stop:
            char, end = text[index], index + 1
            if char == "\\" and (escape := ESCAPE.match(text, index, stop)):
                char, end = unescape(escape.group()), escape.end()
            letters = _FOLDS[ord(char)]
            if letters:
                alone = letters[0] == " "
                if alone:
                    self._complete(words)
                if letters := letters.strip():
                    if not self._word:
                        self._start = origin + index
                    self._word += letters
                    self._end = origin + end
                    if alone:
                        self._complete(words)
            index = end
        self._rest, self.position = text[stop:], self.position + fresh
        return words

    def _complete(self, words: list[FoldedWord]) -> None:
        if self._word:
            words.append(FoldedWord(self._word, self._start, self._end))
            self._word = ""
