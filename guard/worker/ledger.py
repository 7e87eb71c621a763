"""Where every watched request stands: what its tokens said so far, whether that was too much, who wants to know."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from guard.worker.batch import Stretch
from guard.worker.controls import Features, Told
from sae_features.skills import SkillKeys
from sae_features.target import TargetFeatures

#: The cell of whom is not watched: its limit is infinite.
NOBODY = 0
#: Finished requests that are kept because nobody has fetched their verdicts yet.
_KEPT = 4096


@dataclass(slots=True)
class Watched:
    """One request.

    Attributes:
        sets: by name.
        cells: of each set and skill, by name, where its sum or score stands and where it was flagged.
        prompt: how many tokens the prompt has; the rule is asked from its end on.
        position: of the first token that was not offered yet.
        counted: tokens that were; the first of a request is not.
        unseen: tokens that passed without being offered.
        skills: by name.
    """

    features: Features
    sets: Mapping[str, TargetFeatures]
    cells: Mapping[str, int]
    prompt: int
    position: int = 0
    counted: int = 0
    unseen: int = 0
    skills: Mapping[str, SkillKeys] = field(default_factory=dict)

    def offer(self, stretch: Stretch) -> int:
        """Count the tokens of a step that were not counted before; the position of the first of them."""
        end = stretch.position + stretch.count
        self.unseen += max(0, stretch.position - self.position)
        first = max(self.position, stretch.position, 1)
        self.counted += max(0, end - first)
        self.position = max(self.position, end)
        return first

    @property
    def ready(self) -> bool:
        """Whether the whole prompt has been read."""
        return self.position >= self.prompt

    def counted_for(self, name: str) -> int:
        """How many tokens the sum of a set is of: of one whose rule is asked once, none of the answer's."""
        after = max(0, self.position - self.prompt) if name in self.features.once else 0
        return self.counted - after

    def limit(self, name: str) -> float:
        """What the sum of the counted tokens must exceed; infinite as long as the rule is not to be asked."""
        counted = self.counted_for(name)
        late = self.position > self.prompt and name in self.features.once
        asked = self.ready and not late and counted > 0 and name in (*self.features.watch, *self.features.clamp)
        return self.sets[name].thresholds.at(counted) * counted if asked else float("inf")


@dataclass(slots=True)
class Ledger:
    """The watched requests.

    Attributes:
        device: where sums and flags are kept.
        sums: float32 (cells,), what the counted tokens said; of a skill the score of the key, NaN before it is judged.
        since: int32 (cells,), the position at which the pass began that exceeded the limit; -1 where none has.
    """

    device: torch.device
    sums: torch.Tensor = field(init=False)
    since: torch.Tensor = field(init=False)
    _requests: dict[str, Watched] = field(default_factory=dict)
    _finished: dict[str, Watched] = field(default_factory=dict)  # oldest first
    _tickets: dict[str, list[str]] = field(default_factory=dict)  # the requests of each
    _free: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(1, device=self.device)
        self.since = torch.full((1,), -1, dtype=torch.int32, device=self.device)

    def get(self, request_id: str) -> Watched | None:
        """A request that has begun."""
        return self._requests.get(request_id)

    def enter(
        self,
        request_id: str,
        features: Features,
        sets: Mapping[str, TargetFeatures],
        prompt: int,
        skills: Mapping[str, SkillKeys],
    ) -> Watched:
        """A request begins.

        Args:
            request_id: unlike that of any other that has not finished.
            features: of its controls.
            sets: those that it names.
            prompt: how many tokens its prompt has.
            skills: those that it names.
        """
        names = (*sets, *skills)
        cells = dict(zip(names, self._allot(len(names)), strict=True))
        for name in skills:
            self.sums[cells[name]] = math.nan
        watched = self._requests[request_id] = Watched(features, sets, cells, prompt, skills=skills)
        if features.ticket:
            self._tickets.setdefault(features.ticket, []).append(request_id)
        return watched

    def finish(self, request_id: str) -> None:
        """A request is over; its verdict stays until it is fetched, or until too many others are over."""
        watched = self._requests.pop(request_id, None)
        if watched is None:
            return
        if request_id not in self._tickets.get(watched.features.ticket, ()):
            self._free += watched.cells.values()
            return
        self._finished[request_id] = watched
        if len(self._finished) > _KEPT:
            oldest = next(iter(self._finished))
            self._discharge(self._finished[oldest].features.ticket, [oldest])

    def take(self, tickets: Iterable[str]) -> list[dict[str, Told] | None]:
        """The verdicts on the requests of each ticket, by set; a ticket is good for one.

        None where no request of a ticket has read its prompt yet, where there is none, and where one passed tokens that
        were not seen.
        """
        sums, since = self.sums.tolist(), self.since.tolist()  # waits for the step that is under way
        return [self._take(ticket, sums, since) for ticket in tickets]

    def _take(self, ticket: str, sums: list[float], since: list[int]) -> dict[str, Told] | None:
        ids = list(self._tickets.get(ticket, ()))
        known = [self._requests.get(i) or self._finished.get(i) for i in ids]
        found = [one for one in known if one is not None and one.ready]
        if not found:
            return None
        told: dict[str, Told] = {}
        for one in found:
            for name in dict.fromkeys((*one.features.watch, *one.features.clamp)):
                cell, counted = one.cells[name], one.counted_for(name)
                limit = one.sets[name].thresholds.at(counted)
                mine = Told(sums[cell] / max(counted, 1), limit, since[cell] >= 0, since[cell])
                told[name] = max(told.get(name, mine), mine, key=_further)
            for name, skill in one.skills.items():
                cell = one.cells[name]
                mine = Told(sums[cell], skill.detector.threshold, since[cell] >= 0, since[cell])
                told[name] = max(told.get(name, mine), mine, key=_further)
        self._discharge(ticket, ids)
        unseen = any(one.unseen and one.features.summed for one in found)
        return None if unseen or any(math.isnan(one.mean) for one in told.values()) else told

    def _discharge(self, ticket: str, ids: Iterable[str]) -> None:
        """Requests of a ticket will not be asked about any more."""
        for request_id in ids:
            if (finished := self._finished.pop(request_id, None)) is not None:
                self._free += finished.cells.values()
        left = set(self._tickets.pop(ticket, ())) - set(ids)
        if left:
            self._tickets[ticket] = sorted(left)

    def _allot(self, count: int) -> list[int]:
        """Cells with nothing in them."""
        if len(self._free) < count:
            before = len(self.sums)
            more = max(before, 256, count)
            self.sums = torch.cat([self.sums, self.sums.new_zeros(more)])
            self.since = torch.cat([self.since, self.since.new_full((more,), -1)])
            self._free += range(before, before + more)
        cells = [self._free.pop() for _ in range(count)]
        index = torch.tensor(cells, dtype=torch.int64, device=self.device)
        self.sums[index], self.since[index] = 0.0, -1
        return cells


def _further(told: Told) -> tuple[int, float]:
    return told.since, told.mean - told.limit
