"""A protected phrase by itself: how it must end to count, and in which forms it is looked for."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

from classifiers.folding import fold, is_separator, squeeze
from classifiers.words import longer_words, split_words

#: Phrases with fewer folded letters than this match only with their own word breaks: "IT" is not found in "I t".
MIN_LOOSE_LETTERS = 5
#: So many letters in a row are no part of another word.
MIN_DISTINCT_LETTERS = 8
#: Letters of a word whose plural is found too, and ends of words whose plural is that in "es".
_MIN_PLURAL_LETTERS = 4
_SIBILANTS = ("s", "x", "z", "ch", "sh")
#: Digits of a number that is as good as a name, such as a year.
_MIN_DIGITS = 4


@lru_cache(maxsize=65536)
def is_open_ended(phrase: str) -> bool:
    """Whether a phrase is found whatever letters follow it: who may not say "saddler" says "saddlers" or "saddlerx"."""
    if needs_end(phrase):
        return phrase.isdigit() and len(phrase) >= _MIN_DIGITS
    return not longer_words(phrase).words


@lru_cache(maxsize=65536)
def needs_end(phrase: str) -> bool:
    """Whether no letters may follow a phrase, since short ones begin too many other words: "art", "in art".

    With others, letters may follow that make it another word (:func:`classifiers.words.longer_words`).
    """
    letters = len(squeeze(phrase))
    return letters < MIN_LOOSE_LETTERS or (letters < MIN_DISTINCT_LETTERS and len(split_words(phrase)) > 1)


@lru_cache(maxsize=65536)
def forms(phrase: str) -> tuple[str, ...]:
    """A phrase and its plural, if that would not be found anyway: who may not say "horn" says "horns".

    The plural is that of most English nouns. Words of three letters have none: "it" would forbid "its".
    """
    if not needs_end(phrase) or len(phrase) < _MIN_PLURAL_LETTERS or not phrase.isalpha():
        return (phrase,)
    return phrase, phrase + ("es" if phrase.lower().endswith(_SIBILANTS) else "s")


def folded_words(text: str) -> list[str]:
    """The words of a text as they are compared: its folded letters between separators."""
    spaced = "".join(" " if is_separator(char) else fold(char) for char in text)
    return spaced.split()


def breaks(phrase: str, left: int) -> bool:
    """Whether a word of ``phrase`` ends before its last ``left`` letters."""
    return left in accumulate(map(len, reversed(folded_words(phrase))))
