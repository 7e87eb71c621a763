"""Recognising a skill by the keys of an MLP: the paper's box, and a discriminant that weighs coordinates together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sae_features.skills import calibrate, centre, fit_box, fit_linear

D = 400


def _keys(count: int, *, skill: bool, seed: int) -> torch.Tensor:
    """Correlated keys of very different scales; the skill moves a few directions a little."""
    shape = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=shape) / D**0.5
    scales = torch.exp(2 * torch.randn(D, generator=shape))
    move = torch.randn(D, generator=shape) * (torch.rand(D, generator=shape) < 0.1)
    noise = torch.randn(count, D, generator=torch.Generator().manual_seed(seed))
    return (noise @ mix + skill * move) * scales


def test_the_box_is_the_papers() -> None:
    """mean +- k h std with k the largest deviation among the probe keys; its std is one, and no variance."""
    keys = _keys(100, skill=True, seed=1)
    mean, std = keys.mean(dim=0), keys.std(dim=0, correction=0)
    k = float(((keys - mean) / std).abs().max())
    box = fit_box(keys, spread=1.5)
    inside = mean + 1.5 * k * std * 0.99
    outside = mean.clone()
    outside[17] -= 1.5 * k * std[17] * 1.01
    assert (box.scores(torch.stack([mean, inside, outside])) > box.threshold).tolist() == [True, True, False]


def test_the_box_at_spread_one_holds_its_probe() -> None:
    keys = _keys(50, skill=True, seed=2)
    keys[:, 5] = 1.0  # a coordinate that never varies
    box = fit_box(keys, spread=1.0)
    assert (box.scores(keys) > box.threshold).all()
    assert torch.isfinite(box.scores(_keys(10, skill=False, seed=3))).all()


def test_the_discriminant_tells_apart_what_the_box_does_not() -> None:
    skill, other = _keys(150, skill=True, seed=4), _keys(150, skill=False, seed=5)
    tests = _keys(300, skill=True, seed=6), _keys(300, skill=False, seed=7)

    def right(detector: object) -> float:
        fair = calibrate(detector, [key[None] for key in _keys(300, skill=False, seed=8)], 0.05)  # type: ignore[type-var]
        hits, alarms = (float((fair.scores(keys) > fair.threshold).float().mean()) for keys in tests)
        assert alarms < 0.1
        return hits

    box, linear = right(fit_box(skill)), right(fit_linear(skill, other))
    assert linear > 0.9
    assert linear > box + 0.3


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_rate_is_one_of_sequences_and_not_of_tokens(rate: float) -> None:
    linear = fit_linear(_keys(100, skill=True, seed=10), _keys(100, skill=False, seed=11))
    calibrated = calibrate(linear, _keys(400 * 8, skill=False, seed=12).split(8), rate)
    sequences = _keys(400 * 8, skill=False, seed=13).split(8)
    alarms = [bool((calibrated.scores(keys) > calibrated.threshold).any()) for keys in sequences]
    assert sum(alarms) / len(alarms) == pytest.approx(rate, abs=0.04)


def test_a_threshold_is_moved_into_the_gap_and_never_down() -> None:
    linear = fit_linear(_keys(200, skill=True, seed=20), _keys(200, skill=False, seed=21))
    own = _keys(100, skill=True, seed=22)
    low = float(torch.quantile(linear.scores(own), 0.1))
    strict, lax = (centre(replace(linear, threshold=low + above), own) for above in (1.0, -3.0))
    assert strict.threshold == pytest.approx(low + 1.0)
    assert lax.threshold == pytest.approx(low - 1.5)
    assert float((lax.scores(own) > lax.threshold).float().mean()) >= 0.9


def test_too_few_sequences_for_the_rate_are_refused() -> None:
    box = fit_box(_keys(20, skill=True, seed=14))
    with pytest.raises(ValueError, match="19"):
        calibrate(box, [_keys(1, skill=False, seed=15)] * 18, 0.05)
