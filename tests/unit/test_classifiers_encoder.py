"""Many callers share the encoder, and none can spoil it for another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NoReturn

import numpy as np
import pytest

from classifiers.encoder import SentenceEncoder, _Job


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

    def cancelled(self) -> bool:
        told, self.looked = super().cancelled(), self.looked + 1
        if self.looked > 1:
            self.cancel()
        return told

    def set_result(self, result: Any) -> None:
        self.cancel()
        super().set_result(result)


def test_who_leaves_at_the_last_moment_leaves_alone(encoder: SentenceEncoder) -> None:
    leaving = _Leaving()
    with encoder._wake:  # so that both are in one batch
        encoder._jobs.append(_Job(["one who leaves"], leaving))
        staying = encoder._submit(["one who stays"])
    assert staying.future.result(timeout=60).shape == (1, encoder.dimension)
    assert encoder.encode(["and the next"]).shape == (1, encoder.dimension)
    assert leaving.done()
