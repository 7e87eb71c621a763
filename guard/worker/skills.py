"""The skills that a worker has loaded, and the keys that are judged in a step (:mod:`sae_features.skills`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from safetensors.torch import load

from guard.worker.batch import Stretch
from guard.worker.ledger import Ledger, Watched
from sae_features.skills import SkillKeys

#: Joins the slices of the ranks along the last dimension.
Gather = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _LiveSkill:
    """What is judged for one skill in one step; R requests.

    Attributes:
        rows: int64 (R,), of the flat batch.
        cells: int64 (R,), of the ledger.
        begins: int32 (R,), the position of each request's first token in the step.
    """

    skill: SkillKeys
    rows: torch.Tensor
    cells: torch.Tensor
    begins: torch.Tensor


@dataclass(slots=True)
class SkillTaps:
    """Skills by name, and what is judged in the coming step.

    Attributes:
        device: of the model.
        gather: of this rank's slice of keys, all.
        live: of the coming step, by layer.
    """

    device: torch.device
    gather: Gather
    live: dict[int, list[_LiveSkill]] = field(default_factory=dict)
    loaded: dict[str, SkillKeys] = field(default_factory=dict)

    def add(self, name: str, blob: bytes) -> None:
        """Load a skill from the safetensors bytes of :meth:`sae_features.skills.SkillKeys.tensors`."""
        self.loaded[name] = SkillKeys.of({key: tensor.to(self.device) for key, tensor in load(blob).items()})

    def discard(self, name: str) -> None:
        """Forget a skill; requests under way keep it, and an unknown name is ignored."""
        self.loaded.pop(name, None)

    def begin(self, opened: Sequence[tuple[Stretch, Watched]]) -> None:
        """Prepare a step.

        Args:
            opened: the watched requests of the step.
        """
        self.live = {}
        parts: dict[str, list[tuple[Stretch, Watched]]] = {}
        for stretch, watched in opened:
            if 0 <= watched.features.opening - stretch.position < stretch.count:
                for name in watched.skills:
                    parts.setdefault(name, []).append((stretch, watched))
        for name, some in parts.items():
            rows = [stretch.first_row + watched.features.opening - stretch.position for stretch, watched in some]
            cells = [watched.cells[name] for _, watched in some]
            begins = torch.tensor([stretch.position for stretch, _ in some], dtype=torch.int32, device=self.device)
            skill = some[0][1].skills[name]
            live = _LiveSkill(
                skill, torch.tensor(rows, device=self.device), torch.tensor(cells, device=self.device), begins
            )
            self.live.setdefault(skill.layer, []).append(live)

    def see(self, keys: torch.Tensor, layer: int, ledger: Ledger) -> None:
        """Judge keys.

        Args:
            keys: (tokens, d_ff of this rank), the input of the layer's ``down_proj``.
            layer: whose they are.
            ledger: where the scores go.
        """
        for one in self.live.get(layer, ()):
            detector = one.skill.detector
            scores = detector.scores(self.gather(keys[one.rows]))
            ledger.sums[one.cells] = scores
            ledger.since[one.cells] = torch.where(scores > detector.threshold, one.begins, -1)
