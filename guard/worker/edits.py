"""The rank-one edits that a worker has loaded, and those that are live in a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from safetensors.torch import load

from guard.methods.edit import PARTS
from guard.worker.batch import Stretch


@dataclass(frozen=True, slots=True)
class LiveEdits:
    """What one layer adds in one step; the arguments of :func:`guard.kernels.low_rank.add_edits`."""

    rows: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    floors: torch.Tensor | None


@dataclass(slots=True)
class _Stack:
    """The edits of one layer for one combination of names."""

    columns: Mapping[str, list[int]]  # by name, which rows of keys and values are its
    keys: torch.Tensor
    values: torch.Tensor
    floors: torch.Tensor | None
    switches: torch.Tensor  # bool (edits,), on the CPU: which have a floor


@dataclass(slots=True)
class EditTable:
    """Edits by name. One may change several layers, and a layer by more than one rank.

    Attributes:
        shard: which slice of ``d_in`` this worker holds under tensor parallelism: (rank, number of ranks).
        device: where the tensors live.
    """

    shard: tuple[int, int] = (0, 1)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _edits: dict[str, dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = field(default_factory=dict)
    _stacks: tuple[frozenset[str], dict[int, _Stack]] = (frozenset(), {})

    def __contains__(self, name: str) -> bool:
        return name in self._edits

    def add(self, name: str, blob: bytes) -> None:
        """Load an edit from safetensors bytes, those of :meth:`guard.methods.edit.Edit.tensors`."""
        tensors = load(blob)
        layers = sorted({int(key.split(".")[0]) for key in tensors})
        self._edits[name] = {layer: self._loaded(*(tensors[f"{layer}.{part}"] for part in PARTS)) for layer in layers}
        self._stacks = (frozenset(), {})

    def _loaded(
        self, keys: torch.Tensor, values: torch.Tensor, floors: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rank, ranks = self.shard
        keys = keys.float().chunk(ranks, dim=1)[rank].contiguous()
        # What ranks add is summed up. A score is a rank's share of it, but the state of a switch is the same on all.
        values = torch.where(floors[:, None].isneginf(), values.float(), values.float() / ranks)
        return keys.to(self.device), values.to(self.device), floors.float().to(self.device)

    def discard(self, name: str) -> None:
        """Forget an edit; an unknown name is ignored."""
        self._edits.pop(name, None)
        self._stacks = (frozenset(), {})

    def live(self, stretches: Iterable[Stretch]) -> dict[int, LiveEdits]:
        """What each layer adds in this step.

        Raises:
            KeyError: a request names an edit that is not loaded.
        """
        edited = [stretch for stretch in stretches if stretch.controls.edits]
        if not edited:
            return {}
        stacks = self._stacked(frozenset(name for stretch in edited for name in stretch.controls.edits))
        rows = torch.tensor([row for stretch in edited for row in stretch.rows])
        owner = torch.tensor([i for i, stretch in enumerate(edited) for _ in stretch.rows])
        looked = torch.tensor([at for stretch in edited for at in stretch.looked])
        live = {}
        for layer, stack in stacks.items():
            mask = torch.zeros(len(edited), len(stack.keys))
            for index, stretch in enumerate(edited):
                for name in stretch.controls.edits:
                    mask[index, stack.columns.get(name, [])] = 1.0
            mask = mask[owner] * (looked[:, None] | ~stack.switches)
            # Most steps show a switch no token at which it looks, and then there is nothing to do.
            (some,) = mask.any(1).nonzero(as_tuple=True)
            if len(some):
                mine, mask = rows[some].to(self.device), mask[some].to(self.device)
                live[layer] = LiveEdits(mine, stack.keys, stack.values, mask, stack.floors)
        return live

    def _stacked(self, names: frozenset[str]) -> dict[int, _Stack]:
        """The edits of ``names`` stacked by layer; kept until another combination is asked for."""
        if self._stacks[0] == names:
            return self._stacks[1]
        columns: dict[int, dict[str, list[int]]] = {}
        parts: dict[int, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}
        for name in sorted(names):
            for layer, part in self._edits[name].items():
                before = sum(len(keys) for keys, _, _ in parts.get(layer, []))
                columns.setdefault(layer, {})[name] = list(range(before, before + len(part[0])))
                parts.setdefault(layer, []).append(part)
        stacks = {}
        for layer, loaded in parts.items():
            keys, values, floors = (torch.cat(column) for column in zip(*loaded, strict=True))
            # Looked up here, once for a combination of edits, so that no step waits for the device.
            switches = ~floors.isneginf().cpu()
            stacks[layer] = _Stack(columns[layer], keys, values, floors if bool(switches.any()) else None, switches)
        self._stacks = (names, stacks)
        return stacks
