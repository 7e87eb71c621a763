"""How a stretch of text reads to somebody who looks for phrases in it.

This restates, for a token at a time, what :class:`classifiers.phrase_matcher.PhraseMatcher` does character by
character. A phrase has one *pattern*: its folded letters, or, where it is so short that it must keep its own word
breaks, ``TIGHT`` and its words. Where it is so long that it is found from a capital inside a word on, it has a second
one, ``STUCK`` and its letters. What has been read of a phrase is then simply a prefix of a pattern.

Left out are JSON escapes: a backslash is a separator, and what follows it is read as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from classifiers.folding import squeeze
from classifiers.glyphs import Glyph, glyph, is_hump, starts
from classifiers.phrases import MIN_DISTINCT_LETTERS, MIN_LOOSE_LETTERS

#: Begins the pattern of a phrase that matches only with its own word breaks; no folded letter is this character.
TIGHT = "\x01"
#: Begins the pattern of a phrase that was begun at a capital inside a word ("AStephen King").
STUCK = "\x02"

#: Ways of reading signs as letters that are followed in one token; "|@|@|@|@..." would have millions.
_MAX_SPELLINGS = 256


class Edge(IntEnum):
    """What the last character of a text was, as far as it decides whether a word may start after it."""

    OPEN = 0  # nothing, a separator, or a letter of a script without spaces: a word may start
    LOWER = 1  # a lower-case letter: a word may start with a capital, a digit, or a letter of a script without spaces
    LETTER = 2  # any other letter: a word may start with a digit or a letter of a script without spaces
    DIGIT = 3  # a digit: a word may start with any letter that is none


class Spelling(NamedTuple):
    """The letters read so far, in every way that they can be read.

    ``taken`` are the ways in which the last character is a letter, ``passed`` those in which it is a separator.
    ``tight`` has no sign for a letter, and one space wherever there are separators.
    """

    taken: tuple[str, ...]
    passed: tuple[str, ...]
    tight: str


class Reading(NamedTuple):
    """What a stretch of text does to the phrases that were begun before it, and which ones it begins.

    Attributes:
        first: its first character.
        spelling: all of it.
        begun_taken: prefixes of loose and stuck patterns begun inside it and read to its end, where that is a letter.
        begun_passed: the same, where the end is a separator.
        begun_tight: the same of tight patterns; they end in a space where the last character is a separator.
        edge: after its last character.
        tail: the letters of its last word, up to its end.
        unbroken: whether no word ends inside it.
    """

    first: Glyph
    spelling: Spelling
    begun_taken: tuple[str, ...]
    begun_passed: tuple[str, ...]
    begun_tight: tuple[str, ...]
    edge: Edge
    tail: int
    unbroken: bool


def glyphs(text: str) -> list[Glyph]:
    """The characters of ``text`` that count."""
    return [found for found in map(glyph, text) if found is not None]


def pattern(phrase: str) -> str:
    """The pattern of a phrase; empty for one without letters."""
    letters = squeeze(phrase)
    if len(letters) >= MIN_LOOSE_LETTERS or not letters:
        return letters
    spaced = "".join(" " if found.separates else found.letters for found in glyphs(phrase))
    return TIGHT + " ".join(spaced.split())


def has_stuck(whole: str) -> bool:
    """Whether the phrase of a pattern has a second pattern that is stuck."""
    return len(whole) >= MIN_DISTINCT_LETTERS and not whole.startswith(TIGHT)


def spellings(row: Sequence[Glyph]) -> Iterator[Spelling]:
    """The spelling up to and with each character of ``row``."""
    ways: tuple[str, ...] = ("",)
    tight = ""
    for found in row:
        letters = found.letters or found.maybe
        taken = tuple(way + letters for way in ways) if letters else ()
        passed = ways if found.separates else ()
        ways = taken if not passed else tuple(dict.fromkeys(passed + taken))[:_MAX_SPELLINGS]
        if found.letters:
            tight += found.letters
        elif not tight.endswith(" "):
            tight += " "
        yield Spelling(taken, passed, tight)


def ends(before: Glyph, after: Glyph | None) -> bool:
    """Whether a phrase whose last letter is ``before`` is seen to be over; ``after`` is None while nothing follows."""
    return before.spaceless or before.separates or (after is not None and (after.separates or is_hump(before, after)))


def goes_over(edge: Edge, first: Glyph) -> bool:
    """Whether a word that ends in this edge is over when ``first`` follows."""
    return first.separates or (edge is not Edge.OPEN and _humps(edge, first))


def may_start(edge: Edge, first: Glyph) -> bool:
    """Whether a word may start with ``first`` after a text with this edge."""
    if edge is Edge.OPEN or first.separates:
        return edge is Edge.OPEN
    return first.spaceless or _humps(edge, first)


def _humps(edge: Edge, first: Glyph) -> bool:
    """As :func:`classifiers.glyphs.is_hump`, of a letter and the edge before it."""
    return (edge is Edge.LOWER and first.upper) or first.digit != (edge is Edge.DIGIT)


def read(row: Sequence[Glyph]) -> Reading:
    """How one or more characters that count read."""
    *_, whole = spellings(row)
    taken: list[str] = []
    passed: list[str] = []
    tight: list[str] = []
    for start in range(1, len(row)):
        if starts(row[start - 1], row[start]):
            *_, tail = spellings(row[start:])
            taken += tail.taken
            passed += filter(None, tail.passed)
            if row[start].letters:
                tight.append(TIGHT + tail.tight)
        elif row[start].upper:
            *_, tail = spellings(row[start:])
            taken += [STUCK + way for way in tail.taken]
            passed += [STUCK + way for way in tail.passed if way]
    breaks = [
        place
        for place, (before, after) in enumerate(pairwise(row), 1)
        if before.separates or after.separates or is_hump(before, after)
    ]
    letters = sum(len(found.letters) for found in row[breaks[-1] if breaks else 0 :])
    edge = _edge_after(row[-1])
    return Reading(row[0], whole, tuple(taken), tuple(passed), tuple(tight), edge, letters, not breaks)


def _edge_after(last: Glyph) -> Edge:
    """The edge that a text has which ends in this character."""
    if last.separates or last.spaceless:
        return Edge.OPEN
    if last.digit:
        return Edge.DIGIT
    return Edge.LOWER if last.lower else Edge.LETTER
