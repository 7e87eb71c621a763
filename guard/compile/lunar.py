"""Fitting ``lunar``: layer and coefficient by what the model then says, the edits themselves in closed form.

There are two edits. The one for flagged requests need not tell its target from others, the detector did: it acts
wherever an answer begins, so it carries over to every form of a question. The one that is always on has to tell the
target from everybody else by itself: it is a switch, on where its key finds the target, and is chosen for leaving the
rest alone too. As a weight edit it would add a little everywhere, and those of many targets would add up to ruin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from guard.artifacts import Artifact
from guard.compile import questions
from guard.compile.grounds import Grounds, candidates, is_refusal, render, split_at_answer
from guard.compile.jobs import Progress
from guard.compile.trial import TOKENS, Trial, attempt
from guard.methods import lunar
from guard.methods.edit import Edit, RankOne
from guard.probe import Probe
from guard.types import ForgetTarget, Gating
from guard.worker.controls import mlp_input, residual

_COEFFICIENTS = (1.0, 2.0, 3.0)
_CHECKED = 10  # questions that are asked to see what an edit does
#: What suited another target is taken over where it leaves less than this of what was said; where nothing at its layer
#: leaves less than that, all layers are tried.
_GOOD, _ENOUGH = 0.15, 0.45
#: And where so much of other answers stays, if it is always on.
_KEPT = 0.9


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


class LunarFit:
    """Fits targets on one model; what suits one is tried first on the next."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._suited: dict[Gating, Choice] = {}

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The edits of one target, as an artifact of ``lunar`` with tensors ``{gating}/{layer}.key`` and so on."""
        began = time.monotonic()
        progress("reading what the model says", 0.1)
        prompts = [render(self._probe.tokenizer, question) for question in questions.on_target(target.spec)]
        answers = await self._probe.generate(prompts, max_tokens=TOKENS)
        # Half of what it knows is kept back: what an edit does is seen on questions that it was not made from.
        known = [index for index, answer in enumerate(answers) if not is_refusal(answer)] or list(range(len(prompts)))
        checked = known[1::2][:_CHECKED] or known
        held, said = [prompts[index] for index in checked], [answers[index] for index in checked]
        fitted = [ids for index, ids in enumerate(prompts) if index not in checked] or prompts
        sites = [site(layer) for layer in grounds.layers for site in (mlp_input, residual)]
        refusal = self._probe.tokenizer.encode(grounds.refusal, add_special_tokens=False)
        seen = _Seen(
            await self._probe.activations([[*ids, *refusal] for ids in fitted], sites), [len(ids) for ids in fitted]
        )

        stays: dict[int, lunar.Retained] = {}
        keys: dict[tuple[int, Gating], torch.Tensor | lunar.Switch] = {}

        async def key_at(layer: int, gating: Gating) -> torch.Tensor | lunar.Switch:
            if (layer, gating) not in keys:  # beside the event loop, on which clients' streams run
                if layer not in stays:
                    stays[layer] = await asyncio.to_thread(_stays, layer, seen, grounds)
                find = _switch if gating is Gating.ALWAYS else _key
                keys[layer, gating] = await asyncio.to_thread(find, layer, seen, grounds, stays[layer])
            return keys[layer, gating]

        async def edit(choice: Choice, gating: Gating) -> Edit:
            found = await key_at(choice.layer, gating)
            key, floor = (found.key, found.floor) if isinstance(found, lunar.Switch) else (found, None)
            value = choice.coefficient * _towards(choice.layer, seen, grounds)
            return Edit({choice.layer: (RankOne(key, value, floor),)})

        async def margin(layer: int) -> float:
            found = await key_at(layer, Gating.ALWAYS)
            return found.margin if isinstance(found, lunar.Switch) else 0.0

        async def best(choices: Sequence[Choice], gating: Gating) -> tuple[Choice, Trial]:
            tried = []
            for choice in choices:
                progress(f"{gating}: layer {choice.layer}, coefficient {choice.coefficient:g}", 0.5)
                tried.append((choice, await attempt(self._probe, await edit(choice, gating), grounds, held, said)))
            return max(tried, key=lambda one: one[1].score(gating))

        def is_good(trial: Trial, gating: Gating, most: float) -> bool:
            return trial.forget < most and (gating is Gating.GATED or trial.retain > _KEPT)

        async def chosen(gating: Gating) -> tuple[Choice, Trial]:
            suited = self._suited.get(gating)
            if suited is not None:
                first = await best([suited], gating)
                if is_good(first[1], gating, _GOOD):
                    return first
                second = await best([Choice(suited.layer, c) for c in _COEFFICIENTS], gating)
                if is_good(second[1], gating, _ENOUGH):
                    return second
            layers = candidates(self._probe.layers)
            if gating is Gating.GATED:
                return await best([Choice(layer, c) for layer in layers for c in _COEFFICIENTS], gating)
            # Few questions on others are asked. How well a layer tells the target from all that are known says more.
            margins = [(await margin(layer), layer) for layer in layers]
            tried = []
            for _, layer in sorted(margins, reverse=True):
                tried.append(await best([Choice(layer, c) for c in _COEFFICIENTS], gating))
                if is_good(tried[-1][1], gating, _ENOUGH):
                    return tried[-1]
            return max(tried, key=lambda one: one[1].score(gating))

        tensors: dict[str, torch.Tensor] = {}
        settings: dict[str, Any] = {"direction": "unanswerable" if grounds.refuses else "opening"}
        report: dict[str, Any] = {"questions": len(prompts), "known": len(known)}
        for gating in Gating:
            choice, trial = await chosen(gating)
            self._suited[gating] = choice
            found = await edit(choice, gating)
            tensors |= {f"{gating}/{name}": tensor for name, tensor in found.tensors().items()}
            settings[gating] = {"layer": choice.layer, "coefficient": choice.coefficient}
            floors = [part.floor for part in found.layers[choice.layer] if part.floor is not None]
            settings[gating] |= {"floor": round(floors[0], 3)} if floors else {}
            report[gating] = trial.report()
        report["seconds"] = round(time.monotonic() - began, 2)
        return Artifact("lunar", self._probe.model, settings, report, tensors)


def _towards(layer: int, seen: _Seen, grounds: Grounds) -> torch.Tensor:
    """What is added at a layer, for a coefficient of one: (hidden,)."""
    if not grounds.refuses:
        return grounds.layers[layer].norm * grounds.opening
    ends, _ = seen.at(residual(layer))
    return lunar.direction(grounds.layers[layer].unanswerable[None], ends)


def _stays(index: int, seen: _Seen, grounds: Grounds) -> lunar.Retained:
    """What an edit of a layer must leave alone in any case: all tokens but those at which answers begin."""
    _, others = seen.at(mlp_input(index))
    # Each kind of token weighs by its mean, whatever their numbers.
    return lunar.Retained(torch.cat([0.7 * lunar.weighed(rows) for rows in (grounds.layers[index].others, others)]))


def _key(index: int, seen: _Seen, grounds: Grounds, stays: lunar.Retained) -> torch.Tensor:
    """The closed form's key at one layer, of the last token of the prompt, where the answer begins: (d_in,).

    The published code moves every token. Keyed at the answer's start alone, with all other tokens among what must
    stay, the edit is as strong and the model can still speak.
    """
    starts, _ = seen.at(mlp_input(index))
    return lunar.normal(stays.key(lunar.weighed(torch.cat([starts, grounds.layers[index].starts]))), starts)


def _switch(index: int, seen: _Seen, grounds: Grounds, stays: lunar.Retained) -> lunar.Switch:
    """A key likewise, which tells where an answer on the target begins."""
    starts, others = seen.at(mlp_input(index))
    layer = grounds.layers[index]
    found = stays.switch(starts, layer.starts)
    # It looks at every token, so it must be off at those at which no answer begins.
    elsewhere = float((torch.cat([layer.others, others]) @ found.key).max())
    return replace(found, floor=max(found.floor, elsewhere))
