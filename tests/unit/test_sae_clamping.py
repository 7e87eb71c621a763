"""The thin clamp equals the paper's: decode what was clamped, add what the autoencoder had not explained."""

from __future__ import annotations

import pytest
import torch
from autoencoders import KINDS, of_sae_lens, plain, residual

from sae_features.clamping import clamp
from sae_features.encoding import encode, thresholded
from sae_features.loading import from_sae_lens

IDS = torch.tensor([5, 60, 61, 17])


@pytest.mark.parametrize("strength", [0.0, 3.0, 500.0])
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_decoding_with_clamped_features_and_the_error_term(kind: str, strength: float) -> None:
    theirs, x = of_sae_lens(kind), residual(200)
    ours = from_sae_lens(theirs)
    activations = theirs.encode(x)
    fires = (activations[:, IDS] > 0).any(dim=1)
    clamped = activations.clone()
    clamped[fires.nonzero(), IDS] = -strength
    expected = theirs.decode(clamped) + (x - theirs.decode(activations))

    alone = thresholded(ours, x).only(IDS)  # the decoder is linear, so a threshold changes nothing in it
    found = clamp(alone, x, activations[:, IDS], strength=strength)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, strength))
    assert fires.any() and not fires.all()
    assert torch.equal(found[~fires], x[~fires])


def test_afterwards_the_features_are_clamped() -> None:
    """With an orthonormal dictionary, what is read again is what was set: nothing is active."""
    ours, x = plain(24, 24), residual(100)
    directions = torch.linalg.qr(ours.encoder).Q
    ours = type(ours)(
        encoder=directions,
        decoder=directions,
        gate=torch.full((24,), 0.5),
        gain=torch.ones(24),
        bias=torch.zeros(24),
        shift=torch.zeros(24),
        b_dec=torch.zeros(24),
        ids=torch.arange(24),
        layer=0,
    )
    alone = ours.only(torch.tensor([3, 9]))
    before = encode(alone, x)
    after = encode(alone, clamp(alone, x, before, strength=2.0))
    assert (before > 0).any() and not (after > 0).any()


def test_a_narrow_residual_stays_narrow() -> None:
    alone, x = plain().only(IDS), residual(50).bfloat16()
    found = clamp(alone, x, encode(alone, x), strength=1.0)
    assert found.dtype == torch.bfloat16
    wide = clamp(alone, x.float(), encode(alone, x), strength=1.0)
    torch.testing.assert_close(found.float(), wide, rtol=1e-2, atol=1e-2)
