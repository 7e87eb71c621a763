"""The running mean of a request, and thresholds that hold their false-alarm rate at every length."""

from __future__ import annotations

import numpy as np
import pytest

from sae_features.rule import BenignRun, Tally, Thresholds, calibrate


def test_the_first_token_does_not_count() -> None:
    tally = Tally().add([True, True, False, False], 0)
    assert (tally.total, tally.tokens, tally.position) == (1, 3, 4)
    assert tally.mean == pytest.approx(1 / 3)
    assert Tally().add([True], 0).mean == 0


def test_a_request_that_is_computed_anew_is_counted_once() -> None:
    says = [False, True, True, False, True]
    once = Tally().add(says, 0)
    again = once.add(says[:3], 0).add(says[3:], 3)
    assert again == once
    assert once.add([True, True, True], 3).tokens == once.tokens + 1


def test_tokens_out_of_the_prefix_cache_are_known_to_be_missing() -> None:
    tally = Tally().add([True, False], 16)
    assert (tally.total, tally.tokens, tally.position, tally.unseen) == (1, 2, 18, 15)
    assert Tally().add([True] * 18, 0).unseen == 0


def test_thresholds_are_those_of_the_length() -> None:
    thresholds = Thresholds(edges=(8, 16), means=(0.5, 0.3, 0.1), rate=0.05)
    assert [thresholds.at(tokens) for tokens in (1, 7, 8, 15, 16, 10_000)] == [0.5, 0.5, 0.3, 0.3, 0.1, 0.1]
    assert thresholds.exceeded(Tally(total=6, tokens=10))
    assert not thresholds.exceeded(Tally(total=3, tokens=10))
    assert not thresholds.exceeded(Tally())


def _prompts(rng: np.random.Generator, count: int, rate: float = 0.1) -> list[BenignRun]:
    lengths = np.exp(rng.uniform(np.log(6), np.log(400), count)).astype(int)
    return [BenignRun(rng.random(length) < rate, length) for length in lengths]


def test_the_rate_holds_for_short_prompts_and_for_long_ones() -> None:
    rng = np.random.default_rng(0)
    alarms: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(20):
        thresholds = calibrate(_prompts(rng, 600), 0.05)
        for run in _prompts(rng, 400):
            alarms[run.prompt < 32].append(thresholds.exceeded(Tally().add(run.says, 0)))
    for found in alarms.values():
        assert 0.01 < np.mean(found) < 0.06
    assert thresholds.means[0] > 2 * thresholds.means[-1]


def test_one_threshold_for_all_lengths_would_not_hold_it() -> None:
    """Why there are buckets: the threshold of long texts, asked of short prompts."""
    rng = np.random.default_rng(1)
    long = calibrate([BenignRun(rng.random(1_024) < 0.1, 1_024) for _ in range(400)], 0.05)
    short = [Tally().add(rng.random(13) < 0.1, 0) for _ in range(2_000)]
    assert np.mean([long.exceeded(tally) for tally in short]) > 0.3


def test_asking_after_every_token_is_paid_for() -> None:
    rng = np.random.default_rng(2)

    def runs(count: int) -> list[BenignRun]:
        return [BenignRun(rng.random(60) < 0.1, 33) for _ in range(count)]

    def ever(thresholds: Thresholds, run: BenignRun) -> bool:
        tally, asked = Tally().add(run.says[:33], 0), []
        asked.append(thresholds.exceeded(tally))
        for position in range(33, 60):
            tally = tally.add(run.says[position : position + 1], position)
            asked.append(thresholds.exceeded(tally))
        return any(asked)

    rates = []
    for _ in range(10):
        thresholds = calibrate(runs(400), 0.05)
        rates.append(np.mean([ever(thresholds, run) for run in runs(300)]))
    assert np.mean(rates) < 0.06


def test_sparse_lengths_share_a_bucket() -> None:
    rng = np.random.default_rng(3)
    runs = [BenignRun(rng.random(20) < 0.2, 20) for _ in range(100)] + [BenignRun(rng.random(300) < 0.2, 300)]
    assert calibrate(runs, 0.05).edges == ()


def test_too_few_prompts_for_the_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="99"):
        calibrate([BenignRun(np.zeros(20), 20)] * 50, 0.01)


def test_a_target_that_never_fires_on_benign_text_needs_one_hit() -> None:
    thresholds = calibrate([BenignRun(np.zeros(20), 20)] * 50, 0.05)
    assert thresholds.exceeded(Tally().add([0, 0, 1, 0], 0))
    assert not thresholds.exceeded(Tally().add([0, 0, 0, 0], 0))
