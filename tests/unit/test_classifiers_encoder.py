"""Many callers share the encoder, and none can spoil it for another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

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
