"""The features of several targets in one table, for a batch in which requests are watched for different targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sae_features.autoencoder import AutoencoderError, SparseAutoencoder


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """Every feature once, and which target it belongs to: two targets may share a feature, and it is clamped once.

    Attributes:
        features: of all targets.
        member: bool (targets, features).
        weights: float32 (targets, features), what a unit of activation says for a target (:mod:`sae_features.probe`);
            None where a token says whether one of the target's features is active.
    """

    features: SparseAutoencoder
    member: torch.Tensor
    weights: torch.Tensor | None = None


def union(targets: Sequence[SparseAutoencoder], weights: Sequence[torch.Tensor] | None = None) -> FeatureTable:
    """The table of some targets' features (:meth:`SparseAutoencoder.only`), in the order of their ids.

    Args:
        targets: at least one.
        weights: of each target, float32 (its features,).

    Raises:
        AutoencoderError: they are of different autoencoders.
    """
    first = targets[0]
    if any((one.source, one.layer) != (first.source, first.layer) for one in targets):
        raise AutoencoderError("features of different autoencoders cannot be in one table")
    all_ids = torch.cat([one.ids for one in targets])
    ids, place = all_ids.unique(return_inverse=True)
    example = torch.empty_like(ids).scatter_(0, place, torch.arange(len(all_ids), device=ids.device))
    rows = {
        name: torch.cat([getattr(one, name) for one in targets])[example]
        for name in ("encoder", "decoder", "gate", "gain", "bias")
    }
    owner = torch.arange(len(targets), device=ids.device).repeat_interleave(
        torch.tensor([one.features for one in targets], device=ids.device)
    )
    member = torch.zeros(len(targets), len(ids), dtype=torch.bool, device=ids.device)
    member[owner, place] = True
    spread = None
    if weights is not None:
        spread = torch.zeros(member.shape, device=ids.device)
        spread[owner, place] = torch.cat(list(weights)).to(ids.device)
    return FeatureTable(replace(first, ids=ids, **rows), member, spread)
