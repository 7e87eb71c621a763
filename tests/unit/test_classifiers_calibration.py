"""Thresholds hold the false-alarm rate that they state."""

import math

import numpy as np
import pytest

from classifiers.calibration import CEILING, FLOOR, conformal_quantile, fit_tail, probability, threshold


@pytest.mark.parametrize("rate", [0.2, 0.05, 0.01])
def test_the_conformal_quantile_holds_its_rate_on_average(rate: float) -> None:
    rng = np.random.default_rng(0)
    exceeded = [
        (rng.exponential(size=500) > conformal_quantile(rng.exponential(size=300), rate)).mean() for _ in range(300)
    ]
    assert np.mean(exceeded) <= rate * 1.1


def test_too_few_scores_for_a_rate_give_no_threshold() -> None:
    assert conformal_quantile(np.arange(10.0), 0.01) == math.inf


def test_the_tail_reaches_rates_beyond_the_data() -> None:
    rng = np.random.default_rng(1)
    level, scale = fit_tail(rng.exponential(size=2_000) - 8)
    assert scale == pytest.approx(1.0, rel=0.4)
    beyond = level + scale * math.log(0.02 / 0.0005)
    assert (rng.exponential(size=400_000) - 8 > beyond).mean() < 0.002


def test_more_targets_ask_for_more_and_never_for_too_much() -> None:
    tail = (-3.0, 0.5)
    bars = [threshold(tail, 0.001, targets) for targets in (1, 10, 1_000, 10**9)]
    assert bars == sorted(bars)
    assert bars[0] >= FLOOR and bars[-1] == CEILING
    assert probability(-1_000) >= 0 and probability(1_000) <= 1
