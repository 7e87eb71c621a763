"""What is missing of each phrase from each place at which it may stand, and the tokens that spell just that.

Worked out once for each phrase set, so that a step of a request looks nothing up but array slices, however many phrases
there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from guard.decoding.reading import TIGHT
from guard.decoding.tables import NO_IDS, Ids, Span, TokenTable

#: Columns: number of the pattern; how many of its characters have been read; half-open range of the table's order;
#: whether the phrase only ends with these tokens (1), or is also seen to be over (0).
Rests = npt.NDArray[np.int32]


def rests(closed: Sequence[str], open_ended: Sequence[str], table: TokenTable) -> Rests:
    """The rests of some patterns, numbered as they come: first those of whole words, then the open-ended ones."""
    rows: list[tuple[int, int, int, int, int]] = []
    for number, read, text in _missing(closed):
        for ending, spans in enumerate((table.closing, table.ending)):
            if text in spans:
                rows.append((number, read, *spans[text], ending))
    missing = _missing(open_ended)
    for which, span in table.beginning_any([text for _, _, text in missing]):
        number, read, _ = missing[which]
        rows.append((number + len(closed), read, *span, 0))
    return np.asarray(rows, dtype=np.int32).reshape(-1, 5)


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


class RestTable:
    """The rests of many patterns, for looking up those that begin alike."""

    def __init__(self, parts: Sequence[Rests], ranks: Sequence[npt.NDArray[np.int64]], count: int) -> None:
        """Put the rests of some sets together.

        Args:
            parts: of each set.
            ranks: the place of each set's patterns among all, which are sorted.
            count: how many patterns there are in all.
        """
        own = [rank[part[:, 0]] for part, rank in zip(parts, ranks, strict=True)]
        patterns = np.concatenate([np.empty(0, dtype=np.int64), *own])
        order = np.argsort(patterns, kind="stable")
        self._rows = np.concatenate([np.empty((0, 5), dtype=np.int32), *parts])[order, 1:]
        self._starts = np.searchsorted(patterns[order], np.arange(count + 1))

    def spans(self, first: int, end: int, read: int, ending: bool) -> npt.NDArray[np.int32]:
        """(n, 2): the ranges of tokens that complete one of the patterns ``[first, end)`` after ``read`` characters."""
        rows = self._rows[self._starts[first] : self._starts[end]]
        return rows[(rows[:, 0] == read) & (rows[:, 3] == ending), 1:3]


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
