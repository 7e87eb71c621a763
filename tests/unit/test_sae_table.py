"""The features of several targets in one table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from autoencoders import plain, residual, target

from sae_features.autoencoder import AutoencoderError
from sae_features.encoding import encode
from sae_features.table import union

FIRST, SECOND = torch.tensor([40, 2, 7]), torch.tensor([7, 90])


def test_a_shared_feature_is_in_the_table_once() -> None:
    whole, x = plain(), residual(30)
    table = union([target(whole.only(FIRST)), target(whole.only(SECOND))])
    assert table.features.ids.tolist() == [2, 7, 40, 90]
    assert table.member.tolist() == [[True, True, True, False], [False, True, False, True]]
    torch.testing.assert_close(encode(table.features, x), encode(whole, x, table.features.ids))
    assert torch.equal(table.features.decoder, whole.decoder[table.features.ids])


def test_weights_go_with_their_target() -> None:
    whole = plain()
    weights = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-4.0, 5.0])]
    table = union([target(whole.only(ids), w) for ids, w in zip((FIRST, SECOND), weights, strict=True)])
    assert table.weights is not None
    assert table.weights.tolist() == [[2.0, 3.0, 1.0, 0.0], [0.0, -4.0, 0.0, 5.0]]
    assert table.counts.tolist() == [0, 0]


def test_counted_and_weighed_targets_stand_side_by_side() -> None:
    whole = plain()
    table = union([target(whole.only(FIRST)), target(whole.only(SECOND), torch.tensor([-4.0, 5.0]))])
    assert table.counts.tolist() == [1, 0]
    assert table.weights is not None
    assert table.weights.tolist() == [[0.0] * 4, [0.0, -4.0, 0.0, 5.0]]


def test_only_members_are_clamped_and_a_shared_one_by_the_larger_strength() -> None:
    whole = plain()
    table = union([target(whole.only(FIRST), members=2, strength=1.0), target(whole.only(SECOND), strength=9.0)])
    assert table.member.tolist() == [[True, False, True, False], [False, True, False, True]]
    assert table.strength.tolist() == [1.0, 9.0, 1.0, 9.0]


def test_features_of_different_autoencoders_do_not_mix() -> None:
    whole = plain()
    with pytest.raises(AutoencoderError):
        union([target(whole.only(FIRST)), target(replace(whole, source="another").only(SECOND))])


def test_what_is_not_the_same_is_not_shared_whatever_its_source_is_called() -> None:
    """Two trainings into one folder, as artifacts of former versions name them: each target is read with its own."""
    whole, retrained, x = plain(), plain(seed=5), residual(30)
    gated = replace(whole, gate=whole.gate + 0.5)  # a threshold that was fitted anew
    several = [whole.only(FIRST), retrained.only(SECOND), gated.only(SECOND), whole.only(SECOND)]
    weights = [torch.linspace(1, 2, one.features) for one in several]
    table = union([target(one, own) for one, own in zip(several, weights, strict=True)])
    assert sorted(table.features.ids.tolist()) == [2, 7, 7, 7, 40, 90, 90, 90]
    assert table.weights is not None
    said = encode(table.features, x) @ table.weights.T
    for number, (one, own) in enumerate(zip(several, weights, strict=True)):
        torch.testing.assert_close(said[:, number], encode(one, x) @ own, atol=1e-3, rtol=1e-3)
        clamped = table.features.decoder[table.member[number]]
        assert sorted(clamped.tolist()) == sorted(one.decoder.tolist())
