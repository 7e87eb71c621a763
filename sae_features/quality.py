"""How well an autoencoder explains activations, and with how many features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from sae_features.autoencoder import SparseAutoencoder
from sae_features.encoding import decode, encode


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured over some tokens.

    Attributes:
        explained_variance: ``1 - sum |x - x_hat|^2 / sum |x - mean|^2``; 1 is perfect, 0 is no better than the mean.
        l0: how many features are active on a token, on average.
        dead: how many features fired on none of the tokens.
        tokens: how many there were.
    """

    explained_variance: float
    l0: float
    dead: int
    tokens: int


def measure(autoencoder: SparseAutoencoder, batches: Iterable[torch.Tensor]) -> Quality:
    """Measure over batches (tokens, hidden) that the autoencoder was not trained on, at least one token in all."""
    tokens, active, unexplained, squares = 0, 0, 0.0, 0.0
    total = torch.zeros(autoencoder.hidden_size, dtype=torch.float64)
    fired = torch.zeros(autoencoder.features, dtype=torch.bool)
    for batch in batches:
        x = batch.to(autoencoder.encoder.dtype)
        activations = encode(autoencoder, x)
        unexplained += float((x - decode(autoencoder, activations)).double().square().sum())
        squares += float(x.double().square().sum())
        total += x.double().sum(dim=0).cpu()
        active += int((activations > 0).sum())
        fired |= (activations > 0).any(dim=0).cpu()
        tokens += len(x)
    variance = squares - float(total.square().sum()) / tokens
    return Quality(1 - unexplained / variance, active / tokens, int((~fired).sum()), tokens)
