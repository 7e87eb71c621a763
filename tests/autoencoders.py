"""Autoencoders with random weights: sae-lens's own of every architecture, and plain ones."""

from __future__ import annotations

from typing import Any

import torch

from sae_features.autoencoder import SparseAutoencoder
from sae_features.rule import Thresholds
from sae_features.target import TargetFeatures

HIDDEN, FEATURES = 24, 96
KINDS = ("standard", "jumprelu", "gated", "topk", "topk-rescaled")


def of_sae_lens(kind: str, *, seed: int = 0, hook_name: str = "blocks.3.hook_resid_post", **config: Any) -> Any:
    """A sae-lens SAE in which every parameter matters."""
    from sae_lens.registry import get_sae_class  # takes seconds to import
    from sae_lens.saes.sae import SAEMetadata

    if kind.startswith("topk"):
        config = {"k": 7, "rescale_acts_by_decoder_norm": kind == "topk-rescaled", **config}
    sae_class, config_class = get_sae_class(kind.removesuffix("-rescaled"))
    sae: Any = sae_class(config_class(HIDDEN, FEATURES, metadata=SAEMetadata(hook_name=hook_name), **config))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise.abs() if name == "threshold" else noise * (0.3 if parameter.ndim == 1 else 0.4)
    return sae


def plain(
    features: int = FEATURES, hidden: int = HIDDEN, *, seed: int = 0, dtype: Any = torch.float32
) -> SparseAutoencoder:
    """An autoencoder with gates of its own."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return SparseAutoencoder(
        encoder=noise(features, hidden),
        decoder=noise(features, hidden),
        gate=noise(features),
        gain=noise(features).exp(),
        bias=noise(features),
        shift=noise(hidden),
        b_dec=noise(hidden),
        ids=torch.arange(features),
        layer=3,
        source="random",
    )


def target(
    features: SparseAutoencoder,
    weights: torch.Tensor | None = None,
    *,
    members: int | None = None,
    strength: float = 2.0,
    limit: float = 0.0,
) -> TargetFeatures:
    """Features as those of a target, of which the first ``members`` (all) are its members."""
    member = torch.arange(features.features) < (features.features if members is None else members)
    return TargetFeatures(features, member, weights, Thresholds((), (limit,), 0.01), strength)


def residual(tokens: int, hidden: int = HIDDEN, *, seed: int = 1) -> torch.Tensor:
    """Residual-stream vectors."""
    return 2 * torch.randn(tokens, hidden, generator=torch.Generator().manual_seed(seed))
