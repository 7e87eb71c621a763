"""The tokens of a vocabulary, sorted so that what a state forbids is a few contiguous ranges of one order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np

from classifiers.glyphs import Glyph, starts
from guard.decoding.reading import (
    MIN_DISTINCT_LETTERS,
    MIN_LOOSE_LETTERS,
    STUCK,
    TIGHT,
    Edge,
    ends,
    glyphs,
    spellings,
)
from guard.decoding.spared import Ids, Others, Spared, candidates, spare

#: Greater than every character of a spelling.
LAST = "\U0010ffff"

#: A half-open range of positions in :attr:`TokenTable.order`.
Span = tuple[int, int]

NO_IDS: Ids = np.empty(0, dtype=np.int32)
NOWHERE: Span = (0, 0)

_Pairs = list[tuple[str, int]]


class Left(IntEnum):
    """How much of an output is left; what is forbidden where there is more, is where there is less."""

    MUCH = 0
    LITTLE = 1  # too little to be sure that a word that is begun can be ended
    LAST = 2  # the next token is the last


class TokenTable:
    """Some tokens of a vocabulary, each with the text that it adds.

    A token stands in ``order`` once for what it begins with, and once for every way of reading a part of it that a
    phrase could be: a phrase of which ``q`` has been read and ``r`` is missing is completed by the tokens at
    ``closing[r]`` (and seen to be over within them) and at ``ending[r]`` (and the token ends there too); it is
    contained in those at ``inside[q + r]`` and ``inside_ending[q + r]``. An open-ended phrase, which letters may
    follow, is completed by those of ``beginning(r)`` and contained in those of ``inside_beginning(q + r)``. Spellings
    that are tight begin with :data:`~guard.decoding.reading.TIGHT`.

    Attributes:
        order: (entries,) int32 token ids.
        breaks: by edge, the range of the tokens by whose first character a word ends after it.
        silent: those of which nothing counts, such as zero-width characters.
        everything: each token once.
        may_start: by edge, (vocabulary,) bool: whether the first letter of a token starts a word after it.
        capital: (vocabulary,) bool: whether a token begins with a capital letter.
        broken: (vocabulary,) bool: whether a token breaks off inside a character.
        longest: characters of the longest spelling in ``closing`` and ``ending``.
    """

    def __init__(
        self, texts: Iterable[tuple[int, tuple[str, bytes]]], size: int, text_of: Callable[[int], str]
    ) -> None:
        """Sort tokens.

        Args:
            texts: token ids below ``size``, the text of each, and the bytes of a character that its end breaks off.
            size: of the whole vocabulary.
            text_of: gives the text of a token again; keeping those of all would take much room.
        """
        self._row_of = lru_cache(maxsize=65536)(lambda token: glyphs(text_of(token)))
        self.broken = np.zeros(size, dtype=np.bool_)
        classes: list[list[int]] = [[] for _ in range(6)]
        closing: _Pairs = []
        ending: _Pairs = []
        inside: _Pairs = []
        inside_ending: _Pairs = []
        whole: _Pairs = []
        inside_whole: _Pairs = []
        for token, (text, partial) in texts:
            self.broken[token] = bool(partial)
            row = glyphs(text)
            classes[_class_of(row)].append(token)
            for start in range(len(row)):
                if start == 0:
                    _spell(row, token, 1, closing, ending, whole)
                elif starts(row[start - 1], row[start]):
                    _spell(row[start:], token, MIN_LOOSE_LETTERS, inside, inside_ending, inside_whole)
                elif row[start].upper:
                    _spell(row[start:], token, MIN_DISTINCT_LETTERS, inside, inside_ending, inside_whole, stuck=True)
        parts = [np.asarray(tokens, dtype=np.int32) for tokens in classes]
        bounds = [0, *np.cumsum([len(part) for part in parts]).tolist()]
        separators, digits, capitals, _, spaceless, self.silent = pairwise(bounds)
        self.everything: Span = (0, bounds[-1])
        self._filled = bounds[-1]
        self.closing = self._append(closing, parts)
        self.ending = self._append(ending, parts)
        self.inside = self._append(inside, parts)
        self.inside_ending = self._append(inside_ending, parts)
        self.beginning = self._append_sorted(whole, parts)
        self.inside_beginning = self._append_sorted(inside_whole, parts)
        self.order: Ids = np.concatenate(parts)
        self.may_start = {edge: np.zeros(size, dtype=np.bool_) for edge in Edge}
        letters = (capitals[0], spaceless[1])
        self.breaks = {
            Edge.OPEN: [separators],
            Edge.LOWER: [(separators[0], capitals[1])],
            Edge.LETTER: [(separators[0], digits[1])],
            Edge.DIGIT: [separators, letters],
        }
        self.capital = np.zeros(size, dtype=np.bool_)
        self.capital[self.ids(capitals)] = True
        for edge, spans in {
            Edge.OPEN: [self.everything],
            Edge.LOWER: [digits, capitals, spaceless],
            Edge.LETTER: [digits, spaceless],
            Edge.DIGIT: [letters],
        }.items():
            for span in spans:
                self.may_start[edge][self.ids(span)] = True
        self.longest = max(map(len, (*self.closing, *self.ending)), default=0)
        # Every beginning of a spelling, as a hash: a set of the texts themselves would be many times as large.
        beginnings = (hash(spelling[:stop]) for spelling, _ in whole for stop in range(1, len(spelling) + 1))
        self.spared = lru_cache(maxsize=65536)(self._spare)
        self.carved = lru_cache(maxsize=65536)(self._carve)
        self._hashes = np.append(np.unique(np.fromiter(beginnings, dtype=np.int64)), 0)
        self._spellings = [spelling for spelling, _ in whole], [spelling for spelling, _ in inside_whole]

    def ids(self, span: Span) -> Ids:
        """The token ids of a range."""
        return self.order[span[0] : span[1]]

    def _spare(self, rest: str, others: Others, inside: bool = False) -> Spared:
        """The tokens that complete a phrase in other words only; see :func:`guard.decoding.spared.spare`."""
        over, ending = (self.inside, self.inside_ending) if inside else (self.closing, self.ending)
        likely = candidates(over, ending, self.order, rest, others)
        return spare(likely, self._row_of, self.broken, rest, others, inside=inside)

    def _carve(self, rest: str, others: Others, inside: bool = False) -> tuple[tuple[Left, Span], ...]:
        """The ranges of tokens that complete a phrase and are forbidden, and from when on; see :meth:`spared`."""
        low, high = self.inside_beginning(rest) if inside else self.beginning(rest)
        spared = self.spared(rest, others, inside)
        if low == high or not len(spared.begun):
            return ((Left.MUCH, (low, high)),) if low < high else ()
        ids = self.ids((low, high))
        when = np.where(np.isin(ids, spared.words), -1, np.where(np.isin(ids, spared.begun), Left.LITTLE, Left.MUCH))
        borders = [0, *(np.flatnonzero(np.diff(when)) + 1).tolist(), len(when)]
        return tuple((Left(int(when[i])), (low + i, low + j)) for i, j in pairwise(borders) if when[i] >= 0)

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """Everything with which a loose spelling of a token begins. For small tables."""
        return _beginnings(spelling for spelling in self._spellings[0] if not spelling.startswith(TIGHT))

    @cached_property
    def tight_beginnings(self) -> frozenset[str]:
        """The same for tight spellings."""
        return _beginnings(spelling for spelling in self._spellings[0] if spelling.startswith(TIGHT))

    @cached_property
    def inside_beginnings(self) -> frozenset[str]:
        """The same for all spellings from where a word starts inside a token."""
        return _beginnings(self._spellings[1])

    def beginning_any(self, texts: list[str]) -> list[tuple[int, Span]]:
        """:meth:`beginning` of those of ``texts`` with which any token begins, beside their numbers."""
        hashes = np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts))
        places = np.searchsorted(self._hashes[:-1], hashes)
        likely = np.flatnonzero(self._hashes[places] == hashes).tolist()
        found = ((number, self.beginning(texts[number])) for number in likely)
        return [(number, span) for number, span in found if span[0] < span[1]]

    def _append(self, pairs: _Pairs, parts: list[Ids]) -> dict[str, Span]:
        pairs.sort()
        spans: dict[str, Span] = {}
        for spelling, group in groupby(pairs, itemgetter(0)):
            count = len(list(group))
            spans[spelling] = (self._filled, self._filled + count)
            self._filled += count
        parts.append(np.fromiter((token for _, token in pairs), dtype=np.int32, count=len(pairs)))
        return spans

    def _append_sorted(self, pairs: _Pairs, parts: list[Ids]) -> Callable[[str], Span]:
        """Append tokens in the order of their spellings; the range of those whose spelling begins with a text."""
        pairs.sort()
        spellings, first = [spelling for spelling, _ in pairs], self._filled
        self._filled += len(pairs)
        parts.append(np.fromiter((token for _, token in pairs), dtype=np.int32, count=len(pairs)))

        @lru_cache(maxsize=65536)
        def beginning(text: str) -> Span:
            low = bisect_left(spellings, text)
            return first + low, first + bisect_left(spellings, text + LAST, lo=low)

        return beginning


def _class_of(row: list[Glyph]) -> int:
    if not row:
        return 5
    first = row[0]
    return 0 if first.separates else 1 if first.digit else 2 if first.upper else 4 if first.spaceless else 3


def _spell(
    row: list[Glyph],
    token: int,
    at_least: int,
    over: _Pairs,
    open_ended: _Pairs,
    whole: _Pairs,
    *,
    stuck: bool = False,
) -> None:
    """Add every spelling of a beginning of ``row`` that a phrase, or the rest of one, could be.

    Args:
        row: what counts of a token, or of the part of it from where a word starts.
        token: its id.
        at_least: letters of a loose spelling that is worth adding.
        over: receives the spellings after which a phrase would be seen to be over.
        open_ended: receives those that end with the token.
        whole: receives those of all of ``row``, tight ones as far as a tight phrase can be long.
        stuck: whether they are to be stuck ones.
    """
    last, mark = len(row) - 1, STUCK if stuck else ""
    for index, (taken, passed, tight) in enumerate(spellings(row)):
        after = row[index + 1] if index < last else None
        short = not stuck and row[index].letters and len(tight) - tight.count(" ") < MIN_LOOSE_LETTERS
        if ends(row[index], after):
            over += [(mark + way, token) for way in taken if len(way) >= at_least]
            if short:
                over.append((TIGHT + tight, token))
        if index == last:
            open_ended += [(mark + way, token) for way in dict.fromkeys(taken + passed) if len(way) >= at_least]
            if short:
                open_ended.append((TIGHT + tight, token))
            whole += [(mark + way, token) for way in dict.fromkeys(taken + passed) if len(way) >= at_least]
            if not stuck:
                whole.append((TIGHT + _cut(tight), token))


def _beginnings(spellings: Iterable[str]) -> frozenset[str]:
    return frozenset(spelling[:stop] for spelling in spellings for stop in range(1, len(spelling) + 1))


def _cut(tight: str) -> str:
    """A tight spelling up to the last letter that a tight phrase can have."""
    letters = [index for index, char in enumerate(tight) if char != " "]
    return tight[: letters[MIN_LOOSE_LETTERS - 1]] if len(letters) >= MIN_LOOSE_LETTERS else tight
