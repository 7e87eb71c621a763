"""The features of a target are those that matter on its text and little elsewhere."""

from __future__ import annotations

import pytest
import torch

from sae_features.selection import Importance, select


def _importance(*columns: list[float]) -> Importance:
    activations = torch.tensor(columns).T
    found = Importance(activations.shape[1])
    found.add(activations)
    return found


def test_importance_is_the_mean_square_however_the_tokens_arrive() -> None:
    activations = torch.rand(100, 8)
    streamed = Importance(8)
    for part in activations.split([1, 40, 59]):
        streamed.add(part)
    torch.testing.assert_close(streamed.mean_square, activations.double().square().mean(dim=0))
    assert streamed.tokens == 100


def test_planted_features_are_found_in_the_order_of_their_importance() -> None:
    generator = torch.Generator().manual_seed(0)
    common = (torch.rand(4_000, 200, generator=generator) < 0.05) * torch.rand(4_000, 200, generator=generator)
    forget, retain = Importance(200), Importance(200)
    retain.add(common[:2_000])
    planted = common[2_000:].clone()
    planted[::10, 7] += 3
    planted[::20, 150] += 3
    forget.add(planted)
    assert select(forget, retain, n=2).tolist() == [7, 150]


def test_a_feature_that_is_common_everywhere_is_not_a_targets() -> None:
    quiet = [[0.1, 0.0]] * 18
    forget, retain = _importance([9.0, 9.0], [1.0, 1.0], *quiet), _importance([9.0, 9.0], [0.0, 0.0], *quiet)
    assert select(forget, retain, n=1).tolist() == [1]


def test_features_that_never_fire_do_not_void_the_ratio() -> None:
    """Of 1000 features three fire on the target's text; the 95th percentile of all ratios is 0."""
    silent = [[0.0, 0.0]] * 997
    forget = _importance([5.0, 5.0], [1.0, 0.0], [0.5, 0.5], *silent)
    retain = _importance([5.0, 5.0], [0.1, 0.0], [0.5, 0.5], *silent)
    assert select(forget, retain, n=20).tolist() == [1]


def test_rare_and_strong_beats_frequent_and_weak() -> None:
    """With the square of the mean, as in the published code, feature 1 would come first."""
    forget = _importance([4.0, 0.0, 0.0, 0.0], [1.2, 1.2, 1.2, 1.2])
    assert select(forget, _importance([0.0], [0.0]), n=1, ratio_percentile=0, forget_percentile=0).tolist() == [0]


@pytest.mark.parametrize("n", [1, 5, 50])
def test_no_more_than_n(n: int) -> None:
    forget, retain = Importance(100), Importance(100)
    forget.add(torch.rand(20, 100))
    retain.add(torch.rand(20, 100))
    assert len(select(forget, retain, n=n, ratio_percentile=50)) == min(
        n, len(select(forget, retain, n=100, ratio_percentile=50))
    )


def test_text_on_which_nothing_fires_has_no_features() -> None:
    silent = Importance(4)
    assert select(silent, silent).tolist() == []
