"""The tokens of a vocabulary, sorted so that what a state forbids is a few contiguous ranges of one order."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from guard.decoding.reading import MIN_LOOSE_LETTERS, TIGHT, Edge, Glyph, ends, glyphs, spellings, starts

Ids = npt.NDArray[np.int32]

#: A half-open range of positions in :attr:`TokenTable.order`.
Span = tuple[int, int]

NO_IDS: Ids = np.empty(0, dtype=np.int32)

_Pairs = list[tuple[str, int]]


class TokenTable:
    """Some tokens of a vocabulary, each with the text that it adds.

    A token stands in ``order`` once for what it begins with, and once for every way of reading a part of it that a
    phrase could be: a phrase of which ``q`` has been read and ``r`` is missing is completed by the tokens at
    ``closing[r]`` (and seen to be over within them) and at ``ending[r]`` (and the token ends there too); it is
    contained in those at ``inside[q + r]`` and ``inside_ending[q + r]``. Spellings that are tight begin with
    :data:`~guard.decoding.reading.TIGHT`.

    Attributes:
        order: (entries,) int32 token ids.
        breaks: the tokens that begin with a separator.
        capitals: those that begin with a capital letter.
        spaceless: those that begin with a letter of a script without spaces.
        silent: those of which nothing counts, such as zero-width characters.
        everything: each token once.
        may_start: by edge, (vocabulary,) bool: whether the first letter of a token starts a word after it.
        longest: characters of the longest spelling in ``closing`` and ``ending``.
    """

    def __init__(self, texts: Iterable[tuple[int, str]], size: int) -> None:
        """Sort tokens.

        Args:
            texts: token ids below ``size``, and the text of each.
            size: of the whole vocabulary.
        """
        classes: list[list[int]] = [[], [], [], [], []]
        closing: _Pairs = []
        ending: _Pairs = []
        inside: _Pairs = []
        inside_ending: _Pairs = []
        for token, text in texts:
            row = glyphs(text)
            classes[_class_of(row)].append(token)
            for start in range(len(row)):
                if start == 0:
                    _spell(row, token, 1, closing, ending)
                elif starts(row[start - 1], row[start]):
                    _spell(row[start:], token, MIN_LOOSE_LETTERS, inside, inside_ending)
        parts = [np.asarray(tokens, dtype=np.int32) for tokens in classes]
        bounds = [0, *np.cumsum([len(part) for part in parts]).tolist()]
        self.breaks, self.capitals, self.spaceless, _, self.silent = pairwise(bounds)
        self.everything: Span = (0, bounds[-1])
        self._filled = bounds[-1]
        self.closing = self._append(closing, parts)
        self.ending = self._append(ending, parts)
        self.inside = self._append(inside, parts)
        self.inside_ending = self._append(inside_ending, parts)
        self.order: Ids = np.concatenate(parts)
        self.may_start = {edge: np.zeros(size, dtype=np.bool_) for edge in Edge}
        for edge, spans in {
            Edge.OPEN: [self.everything],
            Edge.LOWER: [self.capitals, self.spaceless],
            Edge.LETTER: [self.spaceless],
        }.items():
            for span in spans:
                self.may_start[edge][self.ids(span)] = True
        self.longest = max(map(len, (*self.closing, *self.ending)), default=0)

    def ids(self, span: Span) -> Ids:
        """The token ids of a range."""
        return self.order[span[0] : span[1]]

    def _append(self, pairs: _Pairs, parts: list[Ids]) -> dict[str, Span]:
        pairs.sort()
        spans: dict[str, Span] = {}
        for spelling, group in groupby(pairs, itemgetter(0)):
            count = len(list(group))
            spans[spelling] = (self._filled, self._filled + count)
            self._filled += count
        parts.append(np.fromiter((token for _, token in pairs), dtype=np.int32, count=len(pairs)))
        return spans


def _class_of(row: list[Glyph]) -> int:
    if not row:
        return 4
    first = row[0]
    return 0 if first.separates else 1 if first.upper else 2 if first.spaceless else 3


def _spell(row: list[Glyph], token: int, at_least: int, over: _Pairs, open_ended: _Pairs) -> None:
    """Add every spelling of a beginning of ``row`` that a phrase, or the rest of one, could be.

    Args:
        row: what counts of a token, or of the part of it from where a word starts.
        token: its id.
        at_least: letters of a loose spelling that is worth adding.
        over: receives the spellings after which a phrase would be seen to be over.
        open_ended: receives those that end with the token.
    """
    last = len(row) - 1
    for index, (taken, passed, tight) in enumerate(spellings(row)):
        after = row[index + 1] if index < last else None
        short = row[index].letters and len(tight) - tight.count(" ") < MIN_LOOSE_LETTERS
        if ends(row[index], after):
            over += [(way, token) for way in taken if len(way) >= at_least]
            if short:
                over.append((TIGHT + tight, token))
        if index == last:
            open_ended += [(way, token) for way in dict.fromkeys(taken + passed) if len(way) >= at_least]
            if short:
                open_ended.append((TIGHT + tight, token))
