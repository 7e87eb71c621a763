"""Following one stream of words through documents: does it copy any of them, or could its next word make it a copy?

See :mod:`classifiers.verbatim` for the two rules.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

import numpy as np

from classifiers.grams import GRAM, Grams

#: The rule for copies that are not exact: of so many run lengths of words, so many may be the document's.
WINDOW, COPIED = 4, 2
#: Texts of one pattern ("X was born in the year Y") share many short pieces. A copy that has nowhere more than a run
#: length over ``FIRM`` words in a row must have this many fifths of a run length more.
FIRM, MORE = 2, 4
#: A gram that stands in more places than this does not tell by itself where a copy is from.
_COMMON = 64
#: Words between two clearances of what is too old to matter.
_CLEARANCE = 512

_NOWHERE = np.zeros(0, np.int64)


class _Band:
    """How many words of one stretch of one document the last words of a text have.

    Attributes:
        run: the document's run length.
        last: the number of the last word that the document has.
    """

    __slots__ = ("_firm", "_places", "_words", "last", "run")

    def __init__(self, run: int) -> None:
        self.run = run
        self.last = 0
        self._firm = -WINDOW * run  # the number of the last word that ended a run which is long enough
        self._words: deque[tuple[int, int]] = deque()  # (number of a word, its place), ascending
        self._places: Counter[int] = Counter()  # what is said over and over again is no copy of more

    def cover(self, count: int, place: int, length: int) -> bool:
        """The gram that ends with word ``count`` begins at ``place``, and ends a run of so many words; whether that
        makes a copy.
        """
        if length > self.run // FIRM:
            self._firm = count
        for number in range(max(count - GRAM, self.last) + 1, count + 1):
            at = place + GRAM - 1 - (count - number)
            self._words.append((number, at))
            self._places[at] += 1
        self.last = count
        self._forget(count)
        firm = self._firm > count - WINDOW * self.run
        return len(self._places) >= COPIED * self.run + (0 if firm else MORE * self.run // 5)

    def expects(self, count: int) -> bool:
        """Whether a gram that ends with the word after ``count`` could make a copy."""
        self._forget(count + 1)
        return len(self._places) + min(GRAM, count + 1 - self.last) >= COPIED * self.run

    def is_near(self, count: int) -> bool:
        """Whether no more than one gram is missing for a copy."""
        self._forget(count)
        return len(self._places) + GRAM >= COPIED * self.run

    def _forget(self, count: int) -> None:
        while self._words and self._words[0][0] <= count - WINDOW * self.run:
            _, place = self._words.popleft()
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]


class CopyTracker:
    """What one stream has in common with the texts of some owners.

    Args:
        grams: the texts.
        runs: int64 ``(owners,)``, the run length of each; 0 for those that do not count.

    Attributes:
        tense: whether the next word could make a copy.
    """

    def __init__(self, grams: Grams, runs: np.ndarray) -> None:
        self._grams, self._runs = grams, runs
        self._places = self._lengths = _NOWHERE  # where the last gram stands, and words of the run that it ends
        self._bands: dict[tuple[int, int], _Band] = {}  # by owner and number of the band
        self._near: dict[tuple[int, int], _Band] = {}
        self.tense = False

    def step(self, gram: int, count: int) -> str | None:
        """Read the gram that word ``count`` ends; the owner of what it makes a copy of, if there is one."""
        places = self._grams.find(gram)
        if places is None:
            owners = runs = lengths = places = _NOWHERE
        else:
            owners = self._grams.owned(places)
            counts = self._runs[owners] > 0
            places, owners = places[counts], owners[counts]
            runs, lengths = self._runs[owners], self._extended(places)
        self._places, self._lengths = places, lengths
        copied = owners[lengths > runs][:1].tolist() + list(self._nearly(count))
        if count % _CLEARANCE == 0:
            self._bands = {name: band for name, band in self._bands.items() if band.last > count - WINDOW * band.run}
        self._near = {name: band for name, band in self._near.items() if band.is_near(count)}
        self.tense = bool((lengths >= runs).any()) or any(band.expects(count) for band in self._near.values())
        return self._grams.owners[copied[0]] if copied else None

    def _extended(self, places: np.ndarray) -> np.ndarray:
        """The lengths, in words, of the runs that end with a gram at ``places``."""
        lengths = np.full(len(places), GRAM)
        if len(self._places):
            before = np.minimum(np.searchsorted(self._places, places - 1), len(self._places) - 1)
            follows = self._places[before] == places - 1
            lengths[follows] = self._lengths[before[follows]] + 1
        return lengths

    def _nearly(self, count: int) -> Iterator[int]:
        """The owners of which word ``count`` makes a copy that is not exact.

        What a copy leaves out or puts in moves all that follows against the document. Bands are as wide as the window
        and overlap by half, so that pieces moved by up to half a window meet in one.
        """
        places, lengths = self._places, self._lengths
        if len(places) > _COMMON:
            places, lengths = places[lengths > GRAM], lengths[lengths > GRAM]
        owners = self._grams.owned(places).tolist()
        for place, owner, length in zip(places.tolist(), owners, lengths.tolist(), strict=True):
            run = int(self._runs[owner])
            number = (place - count) // (WINDOW * run // 2)
            for name in ((owner, number - 1), (owner, number)):
                band = self._bands.setdefault(name, _Band(run))
                if band.cover(count, place, length):
                    yield owner
                if band.is_near(count):
                    self._near[name] = band
