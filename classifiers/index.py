"""The evidence of all targets in one faiss index, searched on behalf of one tenant at a time."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

import faiss
import numpy as np

#: Components of unit vectors are within about 0.25 of zero; scaled by this they fill a signed byte.
_SCALE = 500.0


class EvidenceIndex:
    """Rows of unit vectors, each owned by a slot; 8 bits per component, scanned exhaustively.

    Exhaustive, because it is fast enough (30,000 rows in 0.3 ms), exact enough (the caller recomputes the few best
    cosines from its own copy), and needs no training, so that a row costs the same however many there are.
    float16 measured 2x slower; IVF (needs training data) and HNSW (rows cannot be removed) were not measured.
    """

    def __init__(self, dimension: int) -> None:
        quantizer = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )
        quantizer.is_trained = True
        self._index = faiss.IndexIDMap(quantizer)
        self._owner = np.zeros(0, np.int64)  # row id -> slot
        self._rows: dict[int, tuple[int, int]] = {}  # slot -> first and last row id
        self._next = 0
        self._lock = Lock()

    def add(self, slot: int, vectors: np.ndarray) -> None:
        """Add the rows of ``slot``: float ``(n, dimension)``."""
        count = len(vectors)
        if not count:
            return
        with self._lock:
            first = self._next
            self._next += count
            if self._next > len(self._owner):
                self._owner = np.concatenate([self._owner, np.full(max(1024, self._next), -1, np.int64)])
            self._owner[first : self._next] = slot
            self._rows[slot] = (first, self._next)
            self._index.add_with_ids(_quantized(vectors), np.arange(first, self._next))

    def remove(self, slot: int) -> None:
        """Remove the rows of ``slot``; unknown slots are ignored."""
        with self._lock:
            if rows := self._rows.pop(slot, None):
                self._index.remove_ids(faiss.IDSelectorRange(*rows))

    def select(self, slots: Iterable[int]) -> np.ndarray:
        """A bitmap of the rows of ``slots``, to be kept and passed to :meth:`search`: uint8, one bit per row id."""
        with self._lock:
            marks = np.zeros((self._next + 7) // 8 * 8, bool)
            for first, last in (self._rows[slot] for slot in slots if slot in self._rows):
                marks[first:last] = True
        return np.packbits(marks, bitorder="little")

    def search(self, vectors: np.ndarray, selection: np.ndarray, count: int) -> list[list[int]]:
        """For each of ``vectors``, float ``(n, dimension)``, the slots of its ``count`` nearest rows, best first."""
        if not selection.any() or not len(vectors):
            return [[] for _ in vectors]
        # For the calling thread: a second one would spin on its core when it has worked, and for longer.
        faiss.omp_set_num_threads(1)
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(selection))
        with self._lock:
            _, rows = self._index.search(_quantized(vectors), count, params=parameters)
            owner = self._owner
        return [list(dict.fromkeys(owner[found[found >= 0]].tolist())) for found in rows]


def _quantized(vectors: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(np.asarray(vectors, np.float32) * _SCALE), -128, 127)
