"""A few features alone have exactly the activations that the whole autoencoder gives them."""

from __future__ import annotations

import pytest
import torch
from autoencoders import FEATURES, KINDS, of_sae_lens, plain, residual

from sae_features.autoencoder import AutoencoderError
from sae_features.encoding import encode, thresholded
from sae_features.loading import from_sae_lens

IDS = torch.tensor([90, 3, 41, 42, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_features_equal_those_of_sae_lens(kind: str) -> None:
    theirs, x = of_sae_lens(kind), residual(300)
    expected = theirs.encode(x)[:, IDS]
    found = encode(from_sae_lens(theirs), x, IDS)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found > 0, expected > 0)
    assert (expected > 0).any(dim=0).all()


def test_taken_alone_they_are_the_same_and_know_their_ids() -> None:
    whole, x = plain(), residual(100)
    alone = whole.only(IDS)
    torch.testing.assert_close(encode(alone, x), encode(whole, x, IDS))
    assert torch.equal(alone.only(torch.tensor([2, 0])).ids, torch.tensor([41, 90]))


def test_a_narrow_residual_is_widened() -> None:
    whole, x = plain(), residual(40).bfloat16()
    torch.testing.assert_close(encode(whole, x), encode(whole, x.float()))


@pytest.mark.parametrize("kind", ["topk", "topk-rescaled"])
def test_a_fixed_threshold_keeps_k_on_average_and_topks_values(kind: str) -> None:
    topk, x = from_sae_lens(of_sae_lens(kind, k=5)), residual(2_000)
    with pytest.raises(AutoencoderError):
        topk.only(IDS)
    fixed = thresholded(topk, x)
    kept, exact = encode(fixed, x), encode(topk, x)
    assert float((kept > 0).float().sum(dim=1).mean()) == pytest.approx(5, abs=0.01)
    both = (kept > 0) & (exact > 0)
    torch.testing.assert_close(kept[both], exact[both])
    assert float(both.sum()) > 0.7 * float((exact > 0).sum())
    torch.testing.assert_close(encode(fixed.only(IDS), x), kept[:, IDS])


def test_others_have_their_thresholds_already() -> None:
    whole = plain()
    assert thresholded(whole, residual(10)) is whole
    assert encode(whole, residual(3)).shape == (3, FEATURES)
