"""Fitting ``lunar``: layer and coefficient by what the model then says, the edits themselves in closed form.

There are two edits. The one for flagged requests need not tell its target from others, the detector did: it acts
wherever an answer begins, so it carries over to every form of a question. The one that is always on has to tell the
target from everybody else by itself, and is chosen for leaving the rest alone too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch

from guard.artifacts import Artifact
from guard.compile import questions
from guard.compile.grounds import Grounds, candidates, is_refusal, render, split_at_answer
from guard.compile.jobs import Progress
from guard.methods import lunar
from guard.methods.edit import Edit, RankOne
from guard.probe import Probe
from guard.types import ForgetTarget, Gating
from guard.worker.controls import Controls, mlp_input, residual

_COEFFICIENTS = (1.0, 2.0, 3.0)
_CHECKED = 10  # questions that are asked to see what an edit does
_RETAINED = 10
_TOKENS = 20
#: An edit that leaves more than this of what was said is not good enough to be taken over from another target.
_ENOUGH = 0.45


@dataclass(frozen=True, slots=True)
class Choice:
    """Where and how strongly to edit: ``coefficient`` is the published ``c``.

    Where there is no natural length of the direction, it is in units of the residual's norm.
    """

    layer: int
    coefficient: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What an edit did.

    Attributes:
        forget: how much of the old answers to forget questions is left, 0 to 1.
        retain: how much of those to retain questions is left when the edit is always on, 0 to 1.
        fluency: how little the new answers repeat themselves, 0 to 1.
    """

    choice: Choice
    forget: float
    retain: float
    fluency: float

    def score(self, gating: Gating) -> float:
        """Higher is better: forgetting first, then speaking well; for an edit that is always on, the rest as before."""
        return -2 * self.forget + self.fluency + (self.retain if gating is Gating.ALWAYS else 0.0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Activations on the forget questions, each with a refusal for an answer, and where the answers begin."""

    activations: Sequence[Mapping[str, torch.Tensor]]
    lengths: Sequence[int]

    def at(self, site: str) -> tuple[torch.Tensor, torch.Tensor]:
        return split_at_answer([one[site] for one in self.activations], self.lengths)


class LunarFit:
    """Fits targets on one model; the layers that suit the first are tried first on the next."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._layers: dict[Gating, int] = {}

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The edits of one target, as an artifact of ``lunar`` with tensors ``{gating}/{layer}.key`` and so on."""
        began = time.monotonic()
        progress("reading what the model says", 0.1)
        prompts = [render(self._probe.tokenizer, question) for question in questions.on_target(target.spec)]
        answers = await self._probe.generate(prompts, max_tokens=_TOKENS)
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

        async def attempt(choice: Choice, gating: Gating) -> Trial:
            progress(f"{gating}: layer {choice.layer}, coefficient {choice.coefficient:g}", 0.5)
            return await self._try(choice, _edit(choice, seen, grounds, gating), grounds, held, said)

        async def best(layers: Sequence[int], gating: Gating) -> Trial:
            trials = [await attempt(Choice(layer, c), gating) for layer in layers for c in _COEFFICIENTS]
            return max(trials, key=lambda trial: trial.score(gating))

        tensors: dict[str, torch.Tensor] = {}
        settings: dict[str, Any] = {"direction": "unanswerable" if grounds.refuses else "opening"}
        report: dict[str, Any] = {"questions": len(prompts), "known": len(known)}
        for gating in Gating:
            tried = self._layers.get(gating)
            trial = await best(candidates(self._probe.layers) if tried is None else [tried], gating)
            if tried is not None and trial.forget > _ENOUGH:
                trial = await best(candidates(self._probe.layers), gating)
            self._layers[gating] = trial.choice.layer
            edit = _edit(trial.choice, seen, grounds, gating)
            tensors |= {f"{gating}/{name}": tensor for name, tensor in edit.tensors().items()}
            settings[gating] = {"layer": trial.choice.layer, "coefficient": trial.choice.coefficient}
            report[gating] = {
                "forget": round(trial.forget, 3),
                "retain": round(trial.retain, 3),
                "fluency": round(trial.fluency, 3),
            }
        report["seconds"] = round(time.monotonic() - began, 2)
        return Artifact("lunar", self._probe.model, settings, report, tensors)

    async def _try(
        self, choice: Choice, edit: Edit, grounds: Grounds, held: Sequence[Sequence[int]], said: Sequence[str]
    ) -> Trial:
        name = await self._probe.load(edit)
        try:
            retained = list(grounds.retain)[:: max(1, len(grounds.retain) // _RETAINED)][:_RETAINED]
            controls = Controls(edits=(name,))
            now = await self._probe.generate([*held, *retained], max_tokens=_TOKENS, controls=controls)
        finally:
            await self._probe.drop(name)
        new = now[: len(held)]
        kept = [(grounds.retain[ids], answer) for ids, answer in zip(retained, now[len(held) :], strict=True)]
        return Trial(
            choice,
            forget=_mean([alike(old, answer) for old, answer in zip(said, new, strict=True)]),
            retain=_mean([alike(old[: len(answer)], answer) for old, answer in kept]),
            fluency=_mean([_distinct(answer) for answer in new]),
        )


def _edit(choice: Choice, seen: _Seen, grounds: Grounds, gating: Gating) -> Edit:
    """The closed form at one layer, keyed at the last token of the prompt, where the answer begins.

    The published code moves every token. Keyed at the answer's start alone, with all other tokens among what must
    stay, the edit is as strong and the model can still speak.
    """
    layer = grounds.layers[choice.layer]
    starts, others = seen.at(mlp_input(choice.layer))
    # Each kind of token weighs by its mean, whatever their numbers.
    stays = [0.7 * rows / len(rows) ** 0.5 for rows in (layer.others, others)]
    moved = starts
    if gating is Gating.ALWAYS:
        stays.append(layer.starts / len(layer.starts) ** 0.5)
    else:
        moved = torch.cat([starts, layer.starts])
    towards = layer.norm * grounds.opening
    if grounds.refuses:
        ends, _ = seen.at(residual(choice.layer))
        towards = lunar.direction(layer.unanswerable[None], ends)
    part = lunar.fit(choice.coefficient * towards, moved / len(moved) ** 0.5, torch.cat(stays))
    response = float((starts @ part.key).mean())  # ridge shrinks it; the coefficient should mean what it says
    return Edit({choice.layer: (RankOne(part.key / response, part.value),)})


def alike(before: str, after: str) -> float:
    """How much of the words of ``before`` still stands in ``after`` in their order, 0 to 1."""
    words = before.lower().split()
    blocks = SequenceMatcher(None, words, after.lower().split(), autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(1, len(words))


def _distinct(text: str) -> float:
    words = text.lower().split()
    return len(set(words)) / len(words) if words else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
