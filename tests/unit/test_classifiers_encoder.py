"""Many callers share the encoder, and none can spoil it for another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.encoder import _BATCH, _TURN, SentenceEncoder, _Job, _Waiting


@pytest.fixture(scope="module")
def encoder() -> Iterator[SentenceEncoder]:
    made = SentenceEncoder(cache_size=4)
    yield made
    made.close()


def test_more_texts_than_are_remembered(encoder: SentenceEncoder) -> None:
    texts = [f"Text number {number}." for number in range(9)]
    first = encoder.encode([*texts, texts[0]])
    assert np.array_equal(first[0], first[-1])
    assert np.allclose(encoder.encode(texts), first[:-1], atol=0.02)  # bfloat16, in other batches


def test_what_is_no_character_is_read_as_an_unknown_one(encoder: SentenceEncoder) -> None:
    lone, unknown = encoder.encode(["Who is \ud800 King?"]), encoder.encode(["Who is \ufffd King?"])
    assert np.array_equal(lone, unknown)
    assert np.array_equal(encoder.encode(["so \ud83d\ude00"]), encoder.encode(["so \U0001f600"]))


def test_a_text_that_cannot_be_read_fails_its_own_job_alone(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preprocess(texts: list[str], read: Any = encoder._model.preprocess) -> Any:
        return _refuse() if "one that is bad" in texts else read(texts)

    monkeypatch.setattr(encoder._model, "preprocess", preprocess)
    with encoder._wake:  # so that all are in one batch
        jobs = [encoder._submit([f"one that is {word}"]) for word in ("first", "bad", "last")]
    for job in (jobs[0], jobs[2]):
        assert job.future.result(timeout=60).shape == (1, encoder.dimension)
    assert isinstance(jobs[1].future.exception(timeout=60), TypeError)


def _refuse() -> NoReturn:
    raise TypeError


class _Leaving(Future):  # type: ignore[type-arg]
    """Cancelled between a look at whether it is and what follows."""

    looked = 0

    def done(self) -> bool:
        told, self.looked = super().done(), self.looked + 1
        if self.looked > 1:
            self.cancel()
        return told

    def set_result(self, result: Any) -> None:
        self.cancel()
        super().set_result(result)


def test_who_leaves_at_the_last_moment_leaves_alone(encoder: SentenceEncoder) -> None:
    leaving = _Leaving()
    with encoder._wake:  # so that both are in one batch
        encoder._jobs.add(_Job(["one who leaves"], future=leaving))
        staying = encoder._submit(["one who stays"])
    assert staying.future.result(timeout=60).shape == (1, encoder.dimension)
    assert encoder.encode(["and the next"]).shape == (1, encoder.dimension)
    assert leaving.done()


#: How many texts each job of one owner has.
_SIZES = st.lists(st.integers(1, 3 * _BATCH), min_size=1, max_size=60)


def _waiting(sizes: list[int], owner: str = "first") -> _Waiting:
    waiting = _Waiting()
    for number, size in enumerate(sizes):
        waiting.add(_Job([f"{number}.{text}" for text in range(size)], owner))
    return waiting


@given(sizes=_SIZES, before=st.integers(0, 5))
def test_a_newcomer_is_in_the_next_batch_whatever_another_owner_has_waiting(sizes: list[int], before: int) -> None:
    waiting = _waiting(sizes)
    for _ in range(before):
        waiting.take()
    newcomer = _Job(["new"], "newcomer")
    waiting.add(newcomer)
    assert newcomer in (job for job, _ in waiting.take())


@given(sizes=_SIZES)
def test_one_owner_alone_fills_every_batch_and_each_text_is_taken_once_in_its_order(sizes: list[int]) -> None:
    waiting, batches = _waiting(sizes), []
    jobs = list(waiting)
    while waiting:
        batches.append(waiting.take())
    counts = [sum(len(texts) for _, texts in batch) for batch in batches]
    assert all(count == _BATCH for count in counts[:-1]) and 0 < counts[-1] <= _BATCH
    for job in jobs:
        assert [text for batch in batches for one, texts in batch if one is job for text in texts] == job.texts


def test_the_jobs_of_one_owner_take_turns() -> None:
    first = _waiting([3 * _TURN, 1, 1]).take()
    assert [texts[0] for _, texts in first] == ["0.0", "1.0", "2.0", "0.8", "0.16"]


def test_who_has_left_takes_no_turn() -> None:
    waiting = _waiting([_BATCH] * 3)
    left, *_ = waiting
    left.future.cancel()
    assert left not in (job for job, _ in waiting.take())
    for job in waiting:
        job.future.cancel()
    assert waiting.take() == [] and not waiting
