"""Activations that a probe asked to keep."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from safetensors.torch import save

from guard.worker.batch import Stretch
from guard.worker.controls import Capture


@dataclass(slots=True)
class Captures:
    """Activations by capture and site, in float32 on the CPU, in the order of their positions."""

    _kept: dict[str, dict[str, list[torch.Tensor]]] = field(default_factory=dict)
    _step: tuple[tuple[Stretch, Capture], ...] = ()

    def begin(self, stretches: Iterable[Stretch]) -> None:
        """Say which requests of the coming step are captured."""
        self._step = tuple((stretch, stretch.controls.capture) for stretch in stretches if stretch.controls.capture)

    def see(self, site: str, activations: torch.Tensor) -> None:
        """Keep the rows of ``activations`` (tokens, width) whose requests asked for ``site``."""
        for stretch, capture in self._step:
            if site in capture.sites:
                rows = activations[stretch.first_row : stretch.first_row + stretch.count]
                self._kept.setdefault(capture.name, {}).setdefault(site, []).append(rows.detach().float().cpu().clone())

    def take(self, names: Iterable[str]) -> bytes:
        """Hand over and forget: safetensors bytes with one tensor ``{name}|{site}`` (tokens, width) each."""
        taken = {}
        for name in names:
            for site, chunks in self._kept.pop(name, {}).items():
                taken[f"{name}|{site}"] = torch.cat(chunks)
        return save(taken)
