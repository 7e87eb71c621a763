"""What is missing of each phrase from each place at which it may stand, and the tokens that spell just that.

Worked out once for each phrase set, so that a step of a request looks nothing up but array slices, however many phrases
there are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from guard.decoding.reading import STUCK, TIGHT
from guard.decoding.spared import Ids, Others
from guard.decoding.tables import NO_IDS, Left, Span, TokenTable

#: Rests that so many tokens spell or fewer are written out.
_FEW = 32
#: Ranges of fewer tokens are given token by token: where there are many phrases there are many short ranges, and each
#: would cost more than its tokens.
_SHORT = 512

#: Columns: number of the pattern; how many of its characters have been read; half-open range of the table's order; when
#: these tokens are forbidden (:class:`Left`).
Rests = npt.NDArray[np.int32]


def rests(closed: Sequence[str], open_ended: Sequence[str], held: Mapping[str, Others], table: TokenTable) -> Rests:
    """The rests of some patterns, numbered as they come.

    Args:
        closed: of phrases that no letters may follow.
        open_ended: of those that count whatever letters follow.
        held: of those that letters may follow to make them other words.
        table: where to look for tokens.
    """
    rows: list[tuple[int, int, int, int, int]] = []
    for number, read, text in _missing(closed):
        for when, spans in ((Left.MUCH, table.closing), (Left.LAST, table.ending)):
            if text in spans:
                rows.append((number, read, *spans[text], when))
    missing = _missing(open_ended)
    for which, span in table.beginning_any([text for _, _, text in missing]):
        number, read, _ = missing[which]
        rows.append((number + len(closed), read, *span, Left.MUCH))
    missing, others = _missing(list(held)), list(held.values())
    for which, _ in table.beginning_any([text for _, _, text in missing]):
        number, read, text = missing[which]
        for when, part in table.carved(text, others[number]):
            rows.append((number + len(closed) + len(open_ended), read, *part, when))
    return np.asarray(rows, dtype=np.int32).reshape(-1, 5)


def renumbered(rows: Rests, patterns: Sequence[str], stuck: Sequence[str]) -> Rests:
    """The rests of the stuck patterns of some of ``patterns``, numbered on from those; ``rows`` are theirs."""
    places = {one: number for number, one in enumerate(patterns)}
    numbers = np.full(len(patterns), -1, dtype=np.int32)
    numbers[[places[one] for one in stuck]] = len(patterns) + np.arange(len(stuck), dtype=np.int32)
    copies = rows[numbers[rows[:, 0]] >= 0]
    copies[:, 0] = numbers[copies[:, 0]]
    copies[:, 1] += len(STUCK)
    return copies


def _missing(patterns: Sequence[str]) -> list[tuple[int, int, str]]:
    """Each pattern's number, how much of it has been read, and what a token must spell to complete it."""
    return [
        (number, read, lead + whole[read:])
        for number, whole in enumerate(patterns)
        for read in range(1 + whole.startswith(TIGHT), len(whole))
        for lead in leads(whole[:read])
    ]


def leads(prefix: str) -> tuple[str, ...]:
    """What the spelling of a token begins with that goes on after ``prefix``."""
    if not prefix.startswith(TIGHT):
        return ("",)
    # Where the separators have come already, more of them change nothing.
    return (TIGHT, TIGHT + " ") if prefix.endswith(" ") else (TIGHT,)


class Tokens(NamedTuple):
    """Tokens of a vocabulary: ranges of its order, and (n,) int32 ids."""

    ranges: tuple[Span, ...] = ()
    ids: Ids = NO_IDS


class RestTable:
    """The rests of many patterns, for looking up those that begin alike.

    What is asked for together stands together: the patterns in order, for each number of characters read. Most rests
    are spelt by few tokens; those are written out, so that they are one slice.
    """

    def __init__(self, parts: Sequence[Rests], ranks: Sequence[npt.NDArray[np.int64]], count: int, order: Ids) -> None:
        """Put the rests of some sets together.

        Args:
            parts: of each set.
            ranks: the place of each set's patterns among all, which are sorted.
            count: how many patterns there are in all.
            order: that of the token table.
        """
        patterns = [rank[part[:, 0]] for part, rank in zip(parts, ranks, strict=True)]
        rows = np.concatenate([np.empty((0, 5), dtype=np.int32), *parts])
        keys = (len(Left) * rows[:, 1] + rows[:, 4]) * np.int64(count) + np.concatenate([NO_IDS, *patterns])
        sort = np.argsort(keys)
        keys, spans = keys[sort], rows[sort, 2:4]
        lengths = spans[:, 1] - spans[:, 0]
        few = lengths <= _FEW
        self._count, self._order, self._keys = count, order, keys
        self._ids, self._spans = ids_of(spans[few], order), spans[~few]
        before = np.cumsum(np.stack([np.where(few, lengths, 0), ~few], 1), 0, dtype=np.int32)
        self._before = np.concatenate([np.zeros((1, 2), dtype=np.int32), before])

    def tokens(self, first: int, end: int, read: int, when: Left) -> Tokens:
        """The tokens that complete one of the patterns ``[first, end)`` after ``read`` characters, forbidden so."""
        key = (len(Left) * read + when) * self._count
        bounds = self._before[self._keys.searchsorted((key + first, key + end))].tolist()
        (low, first), (high, end) = bounds
        ids = self._ids[low:high]
        if first == end:
            return Tokens((), ids)
        spans = self._spans[first:end].tolist()
        short = [self._order[low:high] for low, high in spans if high - low < _SHORT]
        return Tokens(
            tuple(merged([(low, high) for low, high in spans if high - low >= _SHORT])), joined([ids, *short])
        )


def joined(parts: Collection[Ids]) -> Ids:
    """Some arrays of token ids as one."""
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else np.concatenate([NO_IDS, *filled])


def merged(spans: Collection[Span]) -> list[Span]:
    """Ranges that meet or overlap made one; empty ones dropped."""
    found: list[Span] = []
    for low, high in sorted(spans):
        if found and found[-1][1] >= low:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        elif low < high:
            found.append((low, high))
    return found


def ids_of(spans: npt.NDArray[np.int32], order: Ids) -> Ids:
    """The token ids in some ranges (n, 2) of ``order``."""
    if not len(spans):
        return NO_IDS
    lengths = spans[:, 1] - spans[:, 0]
    ends = np.cumsum(lengths)
    return order[np.arange(ends[-1]) + np.repeat(spans[:, 1] - ends, lengths)]
