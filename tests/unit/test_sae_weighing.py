"""Weighed features find a target that the share of tokens with an active feature does not."""

from __future__ import annotations

import pytest
import torch

from sae_features.rule import Tally
from sae_features.weighing import fit


def _means(count: int, *, target: bool, seed: int) -> torch.Tensor:
    """Mean activations of sequences: feature 4 is a little stronger with the target, feature 9 a little weaker."""
    activations = torch.rand(count, 60, generator=torch.Generator().manual_seed(seed))
    activations[:, 7] = 0.0
    activations[:, 4] += 0.8 * target
    activations[:, 9] -= 0.8 * target
    return activations.clamp(min=0)


def test_it_weighs_what_speaks_for_and_what_speaks_against() -> None:
    weighing = fit(_means(40, target=True, seed=0), _means(400, target=False, seed=1), n=2)
    weights = dict(zip(weighing.ids.tolist(), weighing.weights.tolist(), strict=True))
    assert weights.keys() == {4, 9}
    assert weights[4] > 0 > weights[9]


@pytest.mark.parametrize("n", [1, 5, 30])
def test_it_has_at_most_n_features_and_tells_texts_apart(n: int) -> None:
    weighing = fit(_means(40, target=True, seed=0), _means(400, target=False, seed=1), n=n)
    assert 1 <= len(weighing.ids) <= n
    forget, retain = (
        _means(300, target=target, seed=2)[:, weighing.ids] @ weighing.weights for target in (True, False)
    )
    assert float((forget[:, None] > retain).float().mean()) > 0.9


def test_a_running_mean_of_scores_is_the_score_of_the_means() -> None:
    weighing = fit(_means(40, target=True, seed=0), _means(400, target=False, seed=1), n=5)
    activations = torch.rand(20, 60)
    tally = Tally().add((activations[:, weighing.ids] @ weighing.weights).numpy(), 0)
    assert tally.mean == pytest.approx(float(activations[1:].mean(dim=0)[weighing.ids] @ weighing.weights), rel=1e-5)


def test_one_side_alone_is_refused() -> None:
    with pytest.raises(ValueError):
        fit(_means(10, target=True, seed=0), torch.empty(0, 60))
