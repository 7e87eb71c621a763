"""The joint score of text and features."""

from __future__ import annotations

import numpy as np
import pytest

from sae_features.joint import Joint

_RNG = np.random.default_rng(0)


def _benign(count: int) -> tuple[np.ndarray, np.ndarray]:
    return _RNG.beta(1, 200, count), _RNG.normal(-1.0, 0.3, count)


@pytest.fixture(scope="module")
def joint() -> Joint:
    fitted = Joint.fit(_benign(600), _benign(600), 0.0025)
    assert fitted is not None
    return fitted


def test_more_of_either_is_more_of_both(joint: Joint) -> None:
    text, margins = np.linspace(0, 1, 20), np.linspace(-2, 2, 20)
    assert (np.diff(joint.scores(text, np.zeros(20))) >= 0).all()
    assert (np.diff(joint.scores(np.full(20, 0.1), margins)) >= 0).all()


def test_benign_prompts_are_hardly_ever_flagged(joint: Joint) -> None:
    assert np.mean(joint.beyond(*_benign(4000), 0.0) > 0) < 0.01


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.9])
def test_features_decide_where_the_text_is_in_doubt(joint: Joint, threshold: float) -> None:
    def flagged(margin: float) -> np.ndarray:
        return joint.beyond(np.linspace(0, 1, 400), np.full(400, margin), threshold) > 0

    assert (flagged(2.0) & ~flagged(joint.features.middle)).any()
    assert not (flagged(joint.features.middle) & ~flagged(2.0)).any()
    assert flagged(-3.0)[-1] and not flagged(0.0)[0]


def test_features_far_beyond_all_benign_prompts_decide_alone(joint: Joint) -> None:
    assert joint.beyond([0.0], [joint.alone + 0.1], 0.3)[0] > 0 > joint.beyond([0.0], [joint.alone - 0.1], 0.3)[0]
    assert joint.alone > _benign(4000)[1].max()


def test_features_that_say_nothing_leave_the_decision_to_the_text(joint: Joint) -> None:
    scores = np.linspace(0.01, 0.99, 99)
    flagged = joint.beyond(scores, np.full(99, joint.features.middle), 0.755) > 0
    assert (flagged == (scores > 0.755)).all()


def test_too_few_prompts_give_no_limit() -> None:
    assert Joint.fit(_benign(600), _benign(300), 0.0025) is None


def test_it_is_read_as_it_was_written(joint: Joint) -> None:
    assert Joint.of(joint.numbers()) == joint
