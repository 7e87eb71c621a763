"""Fitting ``lunar``: layer and coefficient by what the model then says, the edits themselves in closed form.

There are two edits, both switches. The one for flagged requests need not tell its target from others, the detector
did: it is on wherever an answer begins, whatever was asked. With the closed form's key its strength hung on how like
the question was to those that it was fitted on, so that a sentence to be completed, which begins its answer without a
chat template, got next to nothing of it. The one that is always on has to tell the target from everybody else by
itself: it is on where its key finds the target, and is chosen for leaving the rest alone too. As a weight edit it would
add a little everywhere, and those of many targets would add up to ruin. Where no layer's keys tell the target from
others, as in very small models, there is none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from guard.artifacts import Artifact
from guard.compile.grounds import Grounds, candidates, split_at_answer
from guard.compile.jobs import Progress
from guard.compile.trial import Trial, ask, attempt
from guard.methods import lunar
from guard.methods.edit import Edit, RankOne
from guard.probe import Probe
from guard.types import ForgetTarget, Gating
from guard.worker.controls import mlp_input, residual

#: Each twice the one before, so that the half of a strength was tried too.
_COEFFICIENTS = (1.0, 2.0, 4.0, 8.0)
#: What suited another target is taken over where it leaves less than this of what was said; where nothing at its layer
#: leaves less than that, all layers are tried.
_GOOD, _ENOUGH = 0.15, 0.45
#: And where so much of other answers stays, if it is always on.
_KEPT = 0.9
#: Why there is no edit that is always on.
_CANNOT_TELL = "at no layer can questions on the target be told from others, so the edit is for flagged requests only"


@dataclass(frozen=True, slots=True)
class Choice:
    """Where and how strongly to edit: ``coefficient`` is the published ``c``.

    Where there is no natural length of the direction, it is in units of the residual's norm.
    """

    layer: int
    coefficient: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """Activations on the forget questions, each with a refusal for an answer, and where the answers begin."""

    activations: Sequence[Mapping[str, torch.Tensor]]
    lengths: Sequence[int]

    def at(self, site: str) -> tuple[torch.Tensor, torch.Tensor]:
        return split_at_answer([one[site] for one in self.activations], self.lengths)


class _Edits:
    """The edits of one target; a switch is worked out once, beside the event loop, on which clients' streams run."""

    def __init__(self, seen: _Seen, grounds: Grounds) -> None:
        self._seen = seen
        self._grounds = grounds
        self._switches: dict[int, lunar.Switch] = {}

    async def of(self, choice: Choice, gating: Gating) -> Edit:
        """The edit that a choice stands for."""
        value = choice.coefficient * _towards(choice.layer, self._seen, self._grounds)
        if gating is Gating.GATED:
            width = self._grounds.layers[choice.layer].starts.shape[1]
            return Edit({choice.layer: (RankOne(torch.zeros(width), value, 0.0),)})
        switch = await self.switch(choice.layer)
        return Edit({choice.layer: (RankOne(switch.key, value, switch.floor),)})

    async def switch(self, layer: int) -> lunar.Switch:
        """When an edit of a layer is on, if it is always there."""
        if layer not in self._switches:
            self._switches[layer] = await asyncio.to_thread(_switch, layer, self._seen, self._grounds)
        return self._switches[layer]


class _Trials:
    """What the edits of one target do; each is tried once."""

    def __init__(self, attempted: Callable[[Choice, Gating], Awaitable[Trial]]) -> None:
        self._attempted = attempted
        self._trials: dict[tuple[Choice, Gating], Trial] = {}

    async def of(self, choice: Choice, gating: Gating) -> Trial:
        """The trial of one."""
        if (choice, gating) not in self._trials:
            self._trials[choice, gating] = await self._attempted(choice, gating)
        return self._trials[choice, gating]

    async def left_by_half(self, choice: Choice) -> float:
        """What the edit for flagged requests leaves of old answers at half its strength, 0 to 1.

        Few questions are tried. One that would do with half leads the answers to other questions too; and where only
        flagged requests are led, it harms nobody else's.
        """
        if choice.coefficient == _COEFFICIENTS[0]:
            return 1.0
        return (await self.of(replace(choice, coefficient=choice.coefficient / 2), Gating.GATED)).left

    async def score(self, choice: Choice, gating: Gating) -> float:
        """Higher is better."""
        score = (await self.of(choice, gating)).score(gating)
        return score - await self.left_by_half(choice) if gating is Gating.GATED else score


class LunarFit:
    """Fits targets on one model; what suits one is tried first on the next."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._suited: dict[Gating, Choice] = {}

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The edits of one target, as an artifact of ``lunar`` with tensors ``{gating}/{layer}.key`` and so on."""
        began = time.monotonic()
        progress("reading what the model says", 0.1)
        asked = await ask(self._probe, target.spec)
        sites = [site(layer) for layer in grounds.layers for site in (mlp_input, residual)]
        refusal = self._probe.tokenizer.encode(grounds.refusal, add_special_tokens=False)
        told = await self._probe.activations([[*ids, *refusal] for ids in asked.prompts], sites)
        edits = _Edits(_Seen(told, [len(ids) for ids in asked.prompts]), grounds)
        tensors: dict[str, torch.Tensor] = {}
        settings: dict[str, Any] = {"direction": "unanswerable" if grounds.refuses else "opening"}
        report: dict[str, Any] = {"questions": asked.asked, "known": asked.known}

        async def attempted(choice: Choice, gating: Gating) -> Trial:
            progress(f"{gating}: layer {choice.layer}, coefficient {choice.coefficient:g}", 0.5)
            return await attempt(self._probe, await edits.of(choice, gating), grounds, asked.held, asked.said)

        trials = _Trials(attempted)
        for gating in Gating:
            choice = await self._chosen(edits, gating, trials)
            if choice is None:
                report[gating] = {"because": _CANNOT_TELL}
                continue
            self._suited[gating] = choice
            edit = await edits.of(choice, gating)
            tensors |= {f"{gating}/{name}": tensor for name, tensor in edit.tensors().items()}
            settings[gating] = {"layer": choice.layer, "coefficient": choice.coefficient}
            if gating is Gating.ALWAYS:
                settings[gating]["floor"] = round((await edits.switch(choice.layer)).floor, 3)
            report[gating] = (await trials.of(choice, gating)).report()
            if gating is Gating.GATED:
                report[gating]["target_left_by_half"] = round(await trials.left_by_half(choice), 3)
        report["seconds"] = round(time.monotonic() - began, 2)
        return Artifact("lunar", self._probe.model, settings, report, tensors)

    async def _chosen(self, edits: _Edits, gating: Gating, trials: _Trials) -> Choice | None:
        """The best edit; None where it would have to be always on and no layer tells the target from others."""

        async def best(choices: Iterable[Choice]) -> Choice:
            scores = {choice: await trials.score(choice, gating) for choice in choices}
            return max(scores, key=scores.__getitem__)

        async def is_good(choice: Choice, most: float) -> bool:
            trial = await trials.of(choice, gating)
            if gating is Gating.ALWAYS:
                return trial.left < most and trial.others_left > _KEPT
            return trial.left < most and await trials.left_by_half(choice) < _ENOUGH

        layers = candidates(self._probe.layers)
        suited = self._suited.get(gating)
        if suited is not None and (gating is Gating.GATED or (await edits.switch(suited.layer)).margin > 0):
            if await is_good(suited, _GOOD):
                return suited
            there = await best(_at(suited.layer))
            if await is_good(there, _ENOUGH):
                return there
        if gating is Gating.GATED:
            return await best(choice for layer in layers for choice in _at(layer))
        # Few questions on others are asked. How well a layer tells the target from all that are known says more.
        margins = {layer: (await edits.switch(layer)).margin for layer in layers}
        found = []
        for layer in sorted(layers, key=lambda layer: (margins[layer], layer), reverse=True):
            if margins[layer] <= 0:
                break
            found.append(await best(_at(layer)))
            if await is_good(found[-1], _ENOUGH):
                return found[-1]
        return await best(found) if found else None


def _at(layer: int) -> list[Choice]:
    return [Choice(layer, coefficient) for coefficient in _COEFFICIENTS]


def _towards(layer: int, seen: _Seen, grounds: Grounds) -> torch.Tensor:
    """What is added at a layer, for a coefficient of one: (hidden,)."""
    if not grounds.refuses:
        return grounds.layers[layer].norm * grounds.opening
    ends, _ = seen.at(residual(layer))
    return lunar.direction(grounds.layers[layer].unanswerable[None], ends)


def _switch(index: int, seen: _Seen, grounds: Grounds) -> lunar.Switch:
    """What tells an answer on the target from others; it looks where answers begin, and only there.

    The published code moves every token. Keyed at the answer's start alone, with all other tokens among what must
    stay, the edit is as strong and the model can still speak.
    """
    starts, others = seen.at(mlp_input(index))
    # Each kind of token weighs by its mean, whatever their numbers.
    stays = lunar.Retained(torch.cat([0.7 * lunar.weighed(rows) for rows in (grounds.layers[index].others, others)]))
    return stays.switch(starts, grounds.layers[index].starts)
