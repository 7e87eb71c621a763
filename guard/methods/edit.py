"""A set of rank-one changes of what ``mlp.down_proj`` layers add to the residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

#: The tensors of a layer, in the order of the fields of :class:`RankOne`.
PARTS = ("key", "value", "floor")


@dataclass(frozen=True, slots=True)
class RankOne:
    """A change of one layer: ``key`` is (d_in,), ``value`` (d_out,), both float32.

    Without a floor it is the weight edit ``dW = value key^T``. With one it is a switch, which no weight edit can be:
    all of ``value`` is added where ``key . x >= floor``, and nothing elsewhere. A request may say at which of its
    tokens switches look (:class:`guard.worker.controls.Starts`).
    """

    key: torch.Tensor
    value: torch.Tensor
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes by layer, several of one layer adding up."""

    layers: Mapping[int, tuple[RankOne, ...]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """As the worker part loads it: ``{layer}.key`` (rank, d_in), ``.value`` (rank, d_out), ``.floor`` (rank,).

        A floor of minus infinity stands for none.
        """
        found = {}
        for layer, parts in self.layers.items():
            found[f"{layer}.key"] = torch.stack([part.key for part in parts])
            found[f"{layer}.value"] = torch.stack([part.value for part in parts])
            found[f"{layer}.floor"] = torch.tensor([-torch.inf if p.floor is None else p.floor for p in parts])
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Edit:
        """What :meth:`tensors` gave."""
        layers = sorted({int(name.split(".")[0]) for name in tensors})
        return cls(
            {
                layer: tuple(
                    RankOne(key, value, None if floor == -torch.inf else float(floor))
                    for key, value, floor in zip(
                        tensors[f"{layer}.key"],
                        tensors[f"{layer}.value"],
                        # Those that were stored before there were floors have none.
                        tensors.get(f"{layer}.floor", torch.full(tensors[f"{layer}.key"].shape[:1], -torch.inf)),
                        strict=True,
                    )
                )
                for layer in layers
            }
        )

    def delta(self, layer: int) -> torch.Tensor:
        """The change of a layer's weight: (d_out, d_in).

        Raises:
            ValueError: it is none, since a part has a floor.
        """
        parts = self.layers[layer]
        if any(part.floor is not None for part in parts):
            raise ValueError(f"the edit of layer {layer} has a floor, so it is no change of the weight")
        return torch.stack([part.value for part in parts]).T @ torch.stack([part.key for part in parts])
