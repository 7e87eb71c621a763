"""How one character reads to whoever looks for phrases: the matcher of a stream and the automaton of tokens alike."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple

from classifiers.folding import LETTER_SIGNS, fold, is_separator


class Glyph(NamedTuple):
    """One character that counts: a letter, or a separator that may stand for the letter ``maybe``."""

    letters: str
    maybe: str
    separates: bool
    upper: bool
    lower: bool
    digit: bool
    spaceless: bool  # of a script that writes no spaces between words


@lru_cache(maxsize=65536)
def glyph(char: str) -> Glyph | None:
    """How one character reads; None for mere decoration."""
    letters, separates = fold(char), is_separator(char)
    if not letters and not separates:
        return None
    maybe = fold(LETTER_SIGNS[char]) if char in LETTER_SIGNS else ""
    spaceless = unicodedata.category(char) == "Lo"
    return Glyph(letters, maybe, separates, char.isupper(), char.islower(), char.isdigit(), spaceless)


def is_hump(before: Glyph, after: Glyph) -> bool:
    """Whether one word ends and another starts between two letters."""
    if before.separates or after.separates:
        return False
    return (before.lower and after.upper) or before.digit != after.digit


def starts(before: Glyph, after: Glyph) -> bool:
    """Whether a word may start between two characters."""
    return before.separates or after.spaceless or before.spaceless or is_hump(before, after)
