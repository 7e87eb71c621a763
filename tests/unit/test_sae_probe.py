"""Weighed features find a target that the share of tokens with an active feature does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_features.probe import fit, fit_ridge
from sae_features.rule import Tally


def _means(count: int, *, target: bool, seed: int) -> torch.Tensor:
    """Mean activations of sequences: feature 4 is a little stronger with the target, feature 9 a little weaker."""
    activations = torch.rand(count, 60, generator=torch.Generator().manual_seed(seed))
    activations[:, 7] = 0.0
    activations[:, 4] += 0.8 * target
    activations[:, 9] -= 0.8 * target
    return activations.clamp(min=0)


either = pytest.mark.parametrize("fit", [fit, fit_ridge])


@either
def test_it_weighs_what_speaks_for_and_what_speaks_against(fit: Any) -> None:
    probe = fit(_means(40, target=True, seed=0), _means(400, target=False, seed=1), n=2)
    weights = dict(zip(probe.ids.tolist(), probe.weights.tolist(), strict=True))
    assert weights.keys() == {4, 9}
    assert weights[4] > 0 > weights[9]


@either
@pytest.mark.parametrize("n", [1, 5, 30])
def test_it_has_at_most_n_features_and_tells_texts_apart(fit: Any, n: int) -> None:
    probe = fit(_means(40, target=True, seed=0), _means(400, target=False, seed=1), n=n)
    assert 1 <= len(probe.ids) <= n
    forget, retain = (_means(300, target=target, seed=2)[:, probe.ids] @ probe.weights for target in (True, False))
    assert float((forget[:, None] > retain).float().mean()) > 0.9


@either
def test_a_running_mean_of_scores_is_the_score_of_the_means(fit: Any) -> None:
    probe = fit(_means(40, target=True, seed=0), _means(400, target=False, seed=1), n=5)
    activations = torch.rand(20, 60)
    tally = Tally().add((activations[:, probe.ids] @ probe.weights).numpy(), 0)
    assert tally.mean == pytest.approx(float(activations[1:].mean(dim=0)[probe.ids] @ probe.weights), rel=1e-5)


@either
def test_one_side_alone_is_refused(fit: Any) -> None:
    with pytest.raises(ValueError):
        fit(_means(10, target=True, seed=0), torch.empty(0, 60))
