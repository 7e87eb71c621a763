"""Tokens that are not forbidden although they complete a phrase, since they make it a part of another word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from classifiers.glyphs import Glyph, is_hump, starts
from classifiers.words import Longer
from guard.decoding.reading import STUCK

Ids = npt.NDArray[np.int32]

#: How words go on that begin with a phrase and are none; of several phrases with the same letters, of each.
Others = tuple[Longer, ...]


class Spared(NamedTuple):
    """Tokens (n,) int32 that make a phrase a part of another word, or go on with one.

    Attributes:
        words: after which the output may end, or in which such a word ends.
        begun: those, and the tokens after which such a word is not finished.
    """

    words: Ids
    begun: Ids


def spare(
    candidates: Iterable[int],
    row_of: Callable[[int], Sequence[Glyph]],
    broken: npt.NDArray[np.bool_],
    rest: str,
    others: Others,
    *,
    inside: bool,
) -> Spared:
    """Which of some tokens complete a phrase in nothing but other words.

    One that breaks off inside a character must end the word before that: the character could be one that no such word
    has, and then it would be too late.

    Args:
        candidates: token ids.
        row_of: how a token reads.
        broken: (vocabulary,) whether a token breaks off inside a character.
        rest: what is missing of the pattern of the phrase, which is not tight; empty where nothing is.
        others: how the words go on in which it is no phrase.
        inside: whether the phrase begins inside the token; else with its first letter, or before.
    """
    words: list[int] = []
    begun: list[int] = []
    stuck, letters = rest.startswith(STUCK), rest.removeprefix(STUCK)
    for token in candidates:
        row = row_of(token)
        places = [p for p in range(1, len(row)) if starts(row[p - 1], row[p]) or (stuck and row[p].upper)]
        ends = [end for place in (places if inside else [0]) for end in _ends(row, place, letters)]
        cut = bool(broken[token])
        outcomes = [_follow(row, place, more, longer, cut=cut) for place, more in ends for longer in others]
        if outcomes and None not in outcomes:
            begun.append(token)
            if all(outcomes):
                words.append(token)
    return Spared(np.asarray(sorted(words), dtype=np.int32), np.asarray(sorted(begun), dtype=np.int32))


def _ends(row: Sequence[Glyph], place: int, rest: str) -> Iterator[tuple[int | None, str]]:
    """Where ``rest`` ends if it begins at ``place``: the next place, None for the end of a word, and the letters of the
    same character that follow it.
    """
    if not rest:
        yield place, ""
    elif place < len(row):
        found = row[place]
        if found.separates:
            yield from _ends(row, place + 1, rest)
        for letters in filter(None, (found.letters, found.maybe)):
            if letters.startswith(rest):
                yield (None if found.separates or found.spaceless else place + 1), letters[len(rest) :]
            elif rest.startswith(letters):
                yield from _ends(row, place + 1, rest[len(letters) :])


def _follow(row: Sequence[Glyph], place: int | None, more: str, longer: Longer, *, cut: bool) -> bool | None:
    """What the letters after a phrase make it: another word (True), the beginning of one (False), or neither; ``cut``
    says that the row breaks off inside a character.
    """
    if place is None or more not in longer.beginnings:
        return None
    for number in range(place, len(row)):
        found = row[number]
        if found.separates or (number and is_hump(row[number - 1], found)):
            return True if more in longer.words else None
        more += found.letters
        if more not in longer.beginnings:
            return None
    return None if cut else more in longer.words


def candidates(
    over: Mapping[str, tuple[int, int]], ending: Mapping[str, tuple[int, int]], order: Ids, rest: str, others: Others
) -> set[int]:
    """The tokens that could be spared: those that spell ``rest`` and go on as other words do.

    Args:
        over: ranges of ``order`` of the tokens in which a spelling is over.
        ending: of those that end with it.
        order: token ids.
        rest: what is missing of the phrase.
        others: how words go on.
    """
    found: set[int] = set()
    for end in others[0].beginnings:
        for spans in (ending, over) if end in others[0].words else (ending,):
            if (span := spans.get(rest + end)) is not None:
                found.update(order[span[0] : span[1]].tolist())
    return found
