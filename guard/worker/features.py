"""The features that a worker has loaded, and what is read of them and clamped in a step.

Sums and decisions live on the device and nothing in a forward pass waits for them; the host knows the schedule and with
it how many tokens each request has shown, so it knows the limits that the sums are held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors.torch import load

from guard.kernels.sae_clamp import clamp
from guard.kernels.sae_tap import tap
from guard.worker.batch import Stretch
from guard.worker.controls import Features
from guard.worker.ledger import NOBODY, Ledger, Watched
from guard.worker.skills import Gather, SkillTaps
from sae_features.table import FeatureTable, union
from sae_features.target import TargetFeatures

#: Tables of combinations of sets that are kept.
_KEPT_TABLES = 32


@dataclass(frozen=True, slots=True)
class LiveFeatures:
    """What one table does in one step; R requests, T sets, n tokens.

    Attributes:
        rows: int64 (n,), the tokens in the flat batch.
        owners: int64 (n,), whose they are, of the R.
        counted: int64 (n,), the same, or R for tokens that were counted before.
        cells: int64 (R + 1, T), of the ledger.
        limits: float32 (R + 1, T), infinite where the rule is not to be asked yet.
        begins: int32 (R + 1, 1), the position of each request's first token in the step.
        may: bool (R + 1, T), what is clamped once it is flagged.
        must: bool (R + 1, T), what is clamped in any case.
        clamps: whether any of them is.
    """

    table: FeatureTable
    rows: torch.Tensor
    owners: torch.Tensor
    counted: torch.Tensor
    cells: torch.Tensor
    limits: torch.Tensor
    begins: torch.Tensor
    may: torch.Tensor
    must: torch.Tensor
    clamps: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """One request in a step: its tokens at the positions from ``fresh`` to before ``until`` are counted, for the sets
    ``names``.
    """

    stretch: Stretch
    watched: Watched
    fresh: int
    until: float
    names: list[str]


@dataclass(slots=True)
class FeatureTaps:
    """Feature sets by name, and what they do in the coming step.

    Attributes:
        device: of the model.
        gather: of this rank's slice of an MLP's keys, all.
        ledger: of the watched requests.
        skills: by name, and what is judged for them.
        live: of the coming step, by layer.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    gather: Gather = lambda keys: keys
    ledger: Ledger = field(init=False)
    skills: SkillTaps = field(init=False)
    live: dict[int, list[LiveFeatures]] = field(default_factory=dict)
    _sets: dict[str, TargetFeatures] = field(default_factory=dict)
    _tables: dict[tuple[str, ...], FeatureTable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.device)
        self.skills = SkillTaps(self.device, self.gather)

    def add(self, name: str, blob: bytes) -> None:
        """Load a set from the safetensors bytes of :meth:`sae_features.target.TargetFeatures.tensors`."""
        self._sets[name] = TargetFeatures.of({key: tensor.to(self.device) for key, tensor in load(blob).items()})

    def discard(self, name: str) -> None:
        """Forget a set; requests under way keep it, and an unknown name is ignored."""
        self._sets.pop(name, None)

    def check(self, features: Features) -> None:
        """Whether everything that a request names is loaded.

        Raises:
            KeyError: it is not.
        """
        if missing := {*features.watch, *features.clamp, *features.always} - self._sets.keys():
            raise KeyError(*missing)
        if missing := set(features.skills) - self.skills.loaded.keys():
            raise KeyError(*missing)

    def begin(self, stretches: Sequence[Stretch], prompt_length: Callable[[str], int]) -> None:
        """Prepare a step.

        Args:
            stretches: of the requests with controls.
            prompt_length: of a request.

        Raises:
            KeyError: a request names a set that is not loaded.
        """
        self.live = {}
        # By autoencoder, whose features share a table, and by whether answers are counted.
        parts: dict[tuple[int, str, bool], list[_Part]] = {}
        everyone: list[tuple[Stretch, Watched]] = []
        for stretch in stretches:
            features = stretch.controls.features
            if features is None:
                continue
            watched = self.ledger.get(stretch.request_id)
            if watched is None:
                names = dict.fromkeys((*features.watch, *features.clamp, *features.always))
                sets = {name: self._sets[name] for name in names}
                skills = {name: self.skills.loaded[name] for name in features.skills}
                length = prompt_length(stretch.request_id)
                watched = self.ledger.enter(stretch.request_id, features, sets, length, skills)
            everyone.append((stretch, watched))
            fresh = watched.offer(stretch)
            mine: dict[tuple[int, str, bool], list[str]] = {}
            for name, one in watched.sets.items():
                once = name in features.once
                if once and stretch.position >= watched.prompt and name not in (*features.clamp, *features.always):
                    continue  # judged already, and nothing is clamped
                mine.setdefault((one.features.layer, one.features.source, once), []).append(name)
            for key, own in mine.items():
                until = watched.prompt if key[-1] else math.inf
                parts.setdefault(key, []).append(_Part(stretch, watched, fresh, until, own))
        for (layer, *_), some in parts.items():
            live = self._live(some)
            if len(live.rows):
                self.live.setdefault(layer, []).append(live)
        self.skills.begin(everyone)

    def end(self) -> None:
        """Leave the tap idle."""
        self.live = {}
        self.skills.live = {}

    def see(self, hidden: torch.Tensor, rest: torch.Tensor, layer: int) -> None:
        """Read the residual stream after a layer, decide, and clamp.

        Args:
            hidden: (tokens, width), what is to be added to ``rest``; changed in place.
            rest: (tokens, width).
            layer: after which it stands.
        """
        ledger = self.ledger
        for one in self.live.get(layer, ()):
            x = hidden[one.rows].float() + rest[one.rows].float()
            sums = ledger.sums[one.cells]
            order = torch.arange(len(one.rows), device=self.device)
            activations, fired = tap(x, order, one.counted, one.table, sums)
            ledger.sums[one.cells] = sums
            since = ledger.since[one.cells]
            since = torch.where((sums > one.limits) & (since < 0), one.begins, since)
            ledger.since[one.cells] = since
            if one.clamps:
                clamped = one.must | (one.may & (since >= 0))
                clamp(hidden, one.rows, one.owners, one.table, activations, fired, clamped)

    def _live(self, parts: Sequence[_Part]) -> LiveFeatures:
        sets = {name: part.watched.sets[name] for part in parts for name in part.names}
        columns = {name: column for column, name in enumerate(sorted(sets))}
        shape = (len(parts) + 1, len(columns))
        cells, limits = np.full(shape, NOBODY, np.int64), np.full(shape, np.inf, np.float32)
        may, must = np.zeros(shape, bool), np.zeros(shape, bool)
        rows, owners, counted = [], [], []
        for number, part in enumerate(parts):
            stretch, watched = part.stretch, part.watched
            positions = np.arange(max(stretch.position, 1), stretch.position + stretch.count)
            rows.append(stretch.first_row + positions - stretch.position)
            owners.append(np.full(len(positions), number))
            counts = (positions >= part.fresh) & (positions < part.until)
            counted.append(np.where(counts, number, len(parts)))
            for name in part.names:
                at = number, columns[name]
                cells[at], limits[at] = watched.cells[name], watched.limit(name)
                may[at], must[at] = name in watched.features.clamp, name in watched.features.always
        begins = np.array([*(part.stretch.position for part in parts), 0], np.int32)[:, None]
        arrays = {"cells": cells, "limits": limits, "begins": begins, "may": may, "must": must}
        arrays |= {"rows": np.concatenate(rows), "owners": np.concatenate(owners), "counted": np.concatenate(counted)}
        return LiveFeatures(
            table=self._table({name: sets[name] for name in columns}),
            clamps=bool(may.any() or must.any()),
            **{name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()},
        )

    def _table(self, sets: Mapping[str, TargetFeatures]) -> FeatureTable:
        key = tuple(sets)
        if key not in self._tables:
            while len(self._tables) >= _KEPT_TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[key] = union(list(sets.values()))
        return self._tables[key]
