"""The features of several targets in one table, for a batch in which requests are watched for different targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from sae_features.autoencoder import AutoencoderError, SparseAutoencoder
from sae_features.target import TargetFeatures

#: What is of each feature.
_ROWS = ("encoder", "decoder", "gate", "gain", "bias")


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

    A feature of several targets is in it once if they really have the same one. Artifacts of former versions name their
    autoencoder by its path alone, where another may have been since: each of their targets keeps the rows that it has.

    Raises:
        AutoencoderError: they are of different autoencoders.
    """
    first = targets[0].features
    if any((one.features.source, one.features.layer) != (first.source, first.layer) for one in targets):
        raise AutoencoderError("features of different autoencoders cannot be in one table")
    parts = [_shifted(one.features, first.shift) for one in targets]
    all_ids = torch.cat([one.ids for one in parts])
    rows = {name: torch.cat([getattr(one, name) for one in parts]) for name in _ROWS}
    place, example = _distinct(all_ids, rows)
    ids, rows = all_ids[example], {name: row[example] for name, row in rows.items()}
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


def _shifted(features: SparseAutoencoder, shift: torch.Tensor) -> SparseAutoencoder:
    """The same features, of a residual stream that another ``shift`` (hidden,) is subtracted from."""
    if torch.equal(features.shift, shift):
        return features
    # y is smaller by this; a = gain * y + bias where y > gate is to stay what it is.
    less = (features.encoder.double() @ (shift - features.shift).double()).to(features.bias.dtype)
    return replace(features, shift=shift, gate=features.gate - less, bias=features.bias + features.gain * less)


def _distinct(ids: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Among n features, some of them several times, those that differ.

    Args:
        ids: int64 (n,); features of different ids differ.
        rows: what else they may differ in, (n, ...) each.

    Returns:
        Which of those that differ each feature is, int64 (n,), and an example of each, int64 (distinct,): one of every
        id in their order, and then what else goes by the same ids.
    """
    place, examples = torch.empty_like(ids), ids.new_empty(0)
    left = torch.arange(len(ids), device=ids.device)
    while len(left):
        own, at = ids[left].unique(return_inverse=True)
        example = left.new_empty(len(own)).scatter_(0, at, left)
        same = torch.stack([(row[left] == row[example[at]]).reshape(len(left), -1).all(1) for row in rows.values()])
        settled = same.all(0) | (left == example[at])  # a NaN is not even equal to itself
        place[left[settled]] = at[settled] + len(examples)
        examples, left = torch.cat([examples, example]), left[~settled]
    return place, examples
