"""The features of several targets in one table, for a batch in which requests are watched for different targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sae_features.autoencoder import AutoencoderError, SparseAutoencoder
from sae_features.target import TargetFeatures


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """Every feature once, and which target it belongs to: two targets may share a feature, and it is clamped once.

    A token says for target ``t``: ``counts[t]`` if one of its members is active, and ``activations @ weights[t]``.

    Attributes:
        features: of all targets.
        member: bool (targets, features), whose activity shows that a target is spoken of, and what is clamped then.
        counts: float32 (targets,), 1 for a target whose tokens are counted, 0 for one whose tokens are weighed.
        weights: float32 (targets, features), what a unit of activation says for a target; None if none is weighed.
        strength: float32 (features,), to minus which a feature is clamped; of its targets' the largest.
    """

    features: SparseAutoencoder
    member: torch.Tensor
    counts: torch.Tensor
    weights: torch.Tensor | None
    strength: torch.Tensor


def union(targets: Sequence[TargetFeatures]) -> FeatureTable:
    """The table of some targets, at least one, with features in the order of their ids.

    Raises:
        AutoencoderError: they are of different autoencoders.
    """
    parts = [one.features for one in targets]
    first = parts[0]
    if any((one.source, one.layer) != (first.source, first.layer) for one in parts):
        raise AutoencoderError("features of different autoencoders cannot be in one table")
    all_ids = torch.cat([one.ids for one in parts])
    ids, place = all_ids.unique(return_inverse=True)
    example = torch.empty_like(ids).scatter_(0, place, torch.arange(len(all_ids), device=ids.device))
    rows = {
        name: torch.cat([getattr(one, name) for one in parts])[example]
        for name in ("encoder", "decoder", "gate", "gain", "bias")
    }
    owner = torch.arange(len(parts), device=ids.device).repeat_interleave(
        torch.tensor([one.features for one in parts], device=ids.device)
    )
    member = torch.zeros(len(parts), len(ids), dtype=torch.bool, device=ids.device)
    member[owner, place] = torch.cat([one.member for one in targets])
    weights = torch.zeros(member.shape, device=ids.device)
    for target, one in enumerate(targets):
        if one.weights is not None:
            weights[target, place[owner == target]] = one.weights
    strengths = torch.tensor([one.strength for one in targets], device=ids.device)
    return FeatureTable(
        features=replace(first, ids=ids, **rows),
        member=member,
        counts=torch.tensor([float(one.weights is None) for one in targets], device=ids.device),
        weights=None if all(one.weights is None for one in targets) else weights,
        strength=(member * strengths[:, None]).amax(dim=0),
    )
