"""The closed forms against the problems that they solve, written out densely."""

from __future__ import annotations

import pytest
import torch

from guard.methods import concept, lunar, rocr
from guard.methods.edit import Edit, RankOne


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [16, 90])
@pytest.mark.parametrize("told", [0, 20])
def test_lunar_is_the_ridge_optimum_of_its_published_loss(width: int, told: int) -> None:
    """Against the normal equations of ``|| dW X - T ||^2 + penalty |dW|^2`` with targets ``c r`` and 0.

    Both for layers that are wider than what is known of them and for others, whenever what stays is told.
    """
    forget, retain, towards = _random(10, width), _random(50, width, seed=1), _random(6, seed=2)
    rows = torch.cat([forget, retain])
    targets = torch.cat([towards.repeat(10, 1), torch.zeros(50, 6)])
    penalty = 0.01 * float(rows.square().sum()) / width
    dense = torch.linalg.solve(rows.T @ rows + penalty * torch.eye(width), rows.T @ targets).T
    key = lunar.Retained(retain[told:]).key(forget, retain[:told])
    torch.testing.assert_close(torch.outer(towards, key), dense, atol=1e-5, rtol=1e-3)


def test_lunar_separates_what_can_be_separated() -> None:
    forget, retain = _random(5, 32), _random(20, 32, seed=1)
    key = lunar.Retained(retain).key(forget / 5**0.5, ridge=1e-4)
    assert (forget @ key).mean() > 20 * (retain @ key).abs().mean()


@pytest.mark.parametrize("width", [32, 300])
def test_a_switch_is_on_at_new_inputs_of_its_target_and_off_at_others(width: int) -> None:
    subject = 3 * _random(width, seed=9) / width**0.5
    new = subject + 0.5 * _random(40, width, seed=1) / width**0.5
    others = _random(200, width, seed=2) / width**0.5
    found = lunar.Retained(_random(50, width, seed=3) / width**0.5).switch(
        subject + 0.5 * _random(20, width, seed=4) / width**0.5, others[:100]
    )
    assert (new @ found.key >= found.floor).float().mean() >= 0.9
    assert (others[100:] @ found.key >= found.floor).float().mean() <= 0.02
    assert found.margin > 0
    assert lunar.Retained(others[:50]).switch(others[50:100], others[100:]).margin < found.margin / 2


@pytest.mark.parametrize("count", [200, 12])
def test_common_directions_are_those_with_large_mean_squares(count: int) -> None:
    inputs = _random(count, 24) * torch.tensor([3.0] * 6 + [0.01] * 18)
    common = rocr.common_directions(inputs, 0.02)
    assert common.shape == (24, 6)
    torch.testing.assert_close(common.T @ common, torch.eye(6), atol=1e-4, rtol=1e-4)
    assert common[6:].abs().max() < 0.05


def test_rocr_equals_the_dense_formula_and_for_one_key_the_short_one() -> None:
    keys, missing, earlier = _random(3, 20), _random(3, 7, seed=1), _random(2, 20, seed=2)
    common = rocr.common_directions(_random(50, 20, seed=3) * torch.tensor([5.0] * 4 + [0.01] * 16), 0.02)
    projection = torch.eye(20) - common @ common.T
    system = projection @ (keys.T @ keys + earlier.T @ earlier) + 0.5 * torch.eye(20)
    dense = torch.linalg.solve(system, projection @ keys.T @ missing).T
    edit = Edit({0: rocr.fit(keys, missing, common, earlier, l2=0.5)})
    torch.testing.assert_close(edit.delta(0), dense, atol=1e-4, rtol=1e-4)

    (one,) = rocr.fit(keys[:1], missing[:1], common, earlier[:0], l2=0.5)
    short = projection @ keys[0]
    torch.testing.assert_close(one.key, short / (0.5 + keys[0] @ short), atol=1e-5, rtol=1e-4)


def test_rocr_leaves_common_inputs_and_earlier_keys_alone() -> None:
    keys, missing, earlier = _random(1, 40), _random(1, 5, seed=1), _random(2, 40, seed=2)
    common = rocr.common_directions(_random(80, 40, seed=3) * torch.tensor([5.0] * 8 + [0.0] * 32), 0.02)
    edit = Edit({0: rocr.fit(keys, missing, common, earlier, l2=1e-3)})
    change = edit.delta(0)
    torch.testing.assert_close(change @ keys[0], missing[0], atol=1e-2, rtol=1e-2)
    assert (change @ common).abs().max() < 1e-4
    assert (change @ earlier.T).abs().max() < 0.05 * missing.abs().max()


def test_ablated_value_vectors_are_gone_and_all_others_stay() -> None:
    weight, dims = _random(6, 10), torch.tensor([7, 2])
    edit = Edit({0: concept.ablate(dims, weight.T[dims], 10)})
    left = weight.clone()
    left[:, dims] = 0
    torch.testing.assert_close(weight + edit.delta(0), left)


def test_the_excess_is_of_dimensions_that_the_concept_uses_more() -> None:
    retain = _random(500, 6)
    forget = retain * torch.tensor([1.0, 3.0, 1.0, 0.5, 1.0, 2.0])
    found = concept.excess(forget, retain)
    assert found.topk(2).indices.tolist() == [1, 5]
    assert found[3] == 0


def test_an_edit_survives_its_tensors() -> None:
    parts = (RankOne(_random(8), _random(4)), RankOne(_random(8, seed=1), _random(4, seed=1)))
    edit = Edit({2: parts, 0: parts[:1]})
    again = Edit.of(edit.tensors())
    assert set(again.layers) == {0, 2}
    torch.testing.assert_close(again.delta(2), edit.delta(2))
    switched = Edit({2: (*parts, RankOne(_random(8), _random(4), 0.5))})
    assert [part.floor for part in Edit.of(switched.tensors()).layers[2]] == [None, None, 0.5]
    with pytest.raises(ValueError, match="floor"):
        switched.delta(2)


def test_edits_that_were_stored_before_there_were_floors_have_none() -> None:
    tensors = Edit({1: (RankOne(_random(8), _random(4), 0.5),)}).tensors()
    del tensors["1.floor"]
    assert Edit.of(tensors).layers[1][0].floor is None
