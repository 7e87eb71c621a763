"""A set of rank-one changes of ``mlp.down_proj`` weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class RankOne:
    """``dW = value key^T`` of one layer: ``key`` is (d_in,), ``value`` (d_out,), both float32."""

    key: torch.Tensor
    value: torch.Tensor


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes by layer, several of one layer adding up."""

    layers: Mapping[int, tuple[RankOne, ...]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """As the worker part loads it: ``{layer}.key`` (rank, d_in) and ``{layer}.value`` (rank, d_out)."""
        found = {}
        for layer, parts in self.layers.items():
            found[f"{layer}.key"] = torch.stack([part.key for part in parts])
            found[f"{layer}.value"] = torch.stack([part.value for part in parts])
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Edit:
        """What :meth:`tensors` gave."""
        layers = sorted({int(name.split(".")[0]) for name in tensors})
        return cls(
            {
                layer: tuple(
                    RankOne(key, value)
                    for key, value in zip(tensors[f"{layer}.key"], tensors[f"{layer}.value"], strict=True)
                )
                for layer in layers
            }
        )

    def delta(self, layer: int) -> torch.Tensor:
        """The change of a layer's weight: (d_out, d_in)."""
        parts = self.layers[layer]
        return torch.stack([part.value for part in parts]).T @ torch.stack([part.key for part in parts])
