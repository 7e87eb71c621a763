"""Where in some texts do three words stand next to each other? Hashed and sorted, 12 bytes a word."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Words in a gram. Fewer would be met everywhere, more would miss copies in which every few words are changed.
GRAM = 3

_MASK = (1 << 64) - 1
#: Odd, so that multiplying loses nothing modulo 2^64: 2^64 over the golden ratio, and a constant of splitmix64.
_FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9


def gram_of(words: Iterable[str]) -> int:
    """The hash of :data:`GRAM` words, 64 bits. Keyed anew in every process, as Python's own hashes are."""
    first, second, third = map(hash, words)
    return (first * _FIRST + second * _SECOND + third) & _MASK


def _grams_of(words: Sequence[str]) -> np.ndarray:
    """:func:`gram_of` of every three neighbours in ``words``; uint64 ``(max(0, len(words) - 2),)``."""
    hashes = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    return hashes[:-2] * np.uint64(_FIRST) + hashes[1:-1] * np.uint64(_SECOND) + hashes[2:]


@dataclass(frozen=True)
class Grams:
    """The grams of the texts of some owners. A place is the number of a gram's first word, counted through all texts.

    Attributes:
        hashes: uint64 ``(n,)``, ascending.
        places: uint32 ``(n,)``, ascending among equal hashes. Those of neighbouring texts do not follow each other.
        owners: in the order of their places.
        starts: int64 ``(len(owners),)``, the first place of each.
        size: the first place after all.
    """

    hashes: np.ndarray
    places: np.ndarray
    owners: tuple[str, ...]
    starts: np.ndarray
    size: int

    @classmethod
    def of(cls, owner: str, texts: Iterable[Sequence[str]]) -> Grams:
        """The grams of one owner's texts, each given by its folded words."""
        hashes, places, size = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)], 0
        for words in texts:
            found = _grams_of(words)
            hashes.append(found)
            places.append(np.arange(size, size + len(found), dtype=np.uint32))
            size += len(words)
        return _sorted(np.concatenate(hashes), np.concatenate(places), (owner,), np.zeros(1, np.int64), size)

    def __add__(self, other: Grams) -> Grams:
        """Both, the places of ``other`` after ours."""
        return _sorted(
            np.concatenate([self.hashes, other.hashes]),
            np.concatenate([self.places, other.places + np.uint32(self.size)]),
            self.owners + other.owners,
            np.concatenate([self.starts, other.starts + self.size]),
            self.size + other.size,
        )

    def without(self, owner: str) -> Grams:
        """All but one owner's; the places after its own move up."""
        index = self.owners.index(owner)
        start, end = int(self.starts[index]), int([*self.starts, self.size][index + 1])
        kept = (self.places < start) | (self.places >= end)
        places = self.places[kept]
        places[places >= end] -= np.uint32(end - start)
        starts = np.delete(self.starts, index)
        starts[index:] -= end - start
        owners = self.owners[:index] + self.owners[index + 1 :]
        return Grams(self.hashes[kept], places, owners, starts, self.size - (end - start))

    def find(self, gram: int) -> np.ndarray | None:
        """The places of a gram, int64 and ascending; None where it does not occur."""
        ordered = self._ordered
        low = bisect_left(ordered, gram)
        if low == len(ordered) or ordered[low] != gram:
            return None
        return self.places[low : bisect_right(ordered, gram, low)].astype(np.int64)

    def owned(self, places: np.ndarray) -> np.ndarray:
        """The number in ``owners`` of each place's owner; int64 as ``places``."""
        return np.searchsorted(self.starts, places, side="right") - 1

    @cached_property
    def _ordered(self) -> memoryview:
        """``hashes``, in the form in which Python's own bisection is quickest."""
        return self.hashes.data


def _sorted(hashes: np.ndarray, places: np.ndarray, owners: tuple[str, ...], starts: np.ndarray, size: int) -> Grams:
    order = np.argsort(hashes, kind="stable")
    return Grams(hashes[order], places[order], owners, starts, size)
