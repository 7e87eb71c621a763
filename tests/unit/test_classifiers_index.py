"""The evidence index finds the nearest rows among those selected, and forgets what is removed."""

import faiss
import numpy as np
import pytest

from classifiers.index import EvidenceIndex


@pytest.fixture
def vectors() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((60, 384)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def index(vectors: np.ndarray) -> EvidenceIndex:
    index = EvidenceIndex(384)
    for slot in range(20):
        index.add(slot, vectors[3 * slot : 3 * slot + 3])
    return index


def test_finds_the_owner_of_the_nearest_row(index: EvidenceIndex, vectors: np.ndarray) -> None:
    selection = index.select(range(20))
    found = index.search(vectors, selection, 1)
    assert [slots[0] for slots in found] == [row // 3 for row in range(60)]


def test_never_leaves_the_selection(index: EvidenceIndex, vectors: np.ndarray) -> None:
    found = index.search(vectors, index.select([4, 7]), 5)
    assert set().union(*found) == {4, 7}
    assert index.search(vectors, index.select([]), 5) == [[] for _ in vectors]


def test_removing_leaves_the_others_in_place(index: EvidenceIndex, vectors: np.ndarray) -> None:
    before = index.select(range(20))
    index.remove(3)
    index.remove(3)
    index.add(20, vectors[9:12])
    found = index.search(vectors, before, 1)
    assert all(slots[0] == row // 3 for row, slots in enumerate(found) if row // 3 != 3)
    assert not {3, 20} & set().union(*found)
    assert index.search(vectors[9:10], index.select([20]), 1) == [[20]]


def test_a_search_leaves_no_other_thread_spinning(index: EvidenceIndex, vectors: np.ndarray) -> None:
    faiss.omp_set_num_threads(2)
    index.search(vectors, index.select(range(20)), 1)
    assert faiss.omp_get_max_threads() == 1
