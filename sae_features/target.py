"""What has to be known of one target while the model runs: its features, its rule, and how hard they are clamped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sae_features.autoencoder import SparseAutoencoder
from sae_features.joint import Joint
from sae_features.rule import Thresholds

_ROWS = ("encoder", "decoder", "gate", "gain", "bias", "shift", "b_dec", "ids")
#: The name changes with the scale of the joint score: a limit of another one would mean nothing.
_JOINT = "joint_soft_maximum"


@dataclass(frozen=True, slots=True, eq=False)
class TargetFeatures:
    """The features of one target.

    Attributes:
        features: float32, theirs alone (:meth:`SparseAutoencoder.only`).
        member: bool (n,), those that are the target's: where one of them is active, they all are clamped. The others
            are only weighed.
        weights: float32 (n,), what a unit of activation says (:mod:`sae_features.weighing`); None where a token says
            whether one of the members is active (the share of Dynamic SAE Guardrails).
        thresholds: on the running mean of what the tokens say.
        strength: ``c``, to minus which members are clamped.
        joint: the decision together with the text detector; None where there is none.
    """

    features: SparseAutoencoder
    member: torch.Tensor
    weights: torch.Tensor | None
    thresholds: Thresholds
    strength: float
    joint: Joint | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it as tensors, for a safetensors file."""
        parts = {name: getattr(self.features, name) for name in _ROWS}
        parts |= {
            "member": self.member,
            "edges": torch.tensor(self.thresholds.edges, dtype=torch.int64),
            "means": torch.tensor(self.thresholds.means, dtype=torch.float64),
            "numbers": torch.tensor([self.features.layer, self.thresholds.rate, self.strength], dtype=torch.float64),
            "source": torch.tensor(list(self.features.source.encode()), dtype=torch.uint8),
        }
        if self.weights is not None:
            parts["weights"] = self.weights
        if self.joint is not None:
            parts[_JOINT] = torch.tensor(self.joint.numbers(), dtype=torch.float64)
        # An autoencoder that subtracts b_dec has it twice in the same memory, which safetensors refuses.
        return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in parts.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> TargetFeatures:
        """Read what :meth:`tensors` gave.

        Raises:
            KeyError: a tensor is missing.
        """
        layer, rate, strength = tensors["numbers"].tolist()
        source = bytes(tensors["source"].tolist()).decode()
        return cls(
            features=SparseAutoencoder(**{name: tensors[name] for name in _ROWS}, layer=int(layer), source=source),
            member=tensors["member"],
            weights=tensors.get("weights"),
            thresholds=Thresholds(tuple(tensors["edges"].tolist()), tuple(tensors["means"].tolist()), rate),
            strength=strength,
            joint=Joint.of(tensors[_JOINT].tolist()) if _JOINT in tensors else None,
        )
