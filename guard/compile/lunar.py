"""Fitting ``lunar``: layer, direction and coefficient by what the model then says, the edit itself in closed form."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch

from guard.artifacts import Artifact
from guard.compile import questions
from guard.compile.grounds import Grounds, candidates, render
from guard.compile.jobs import Progress
from guard.methods import lunar
from guard.methods.edit import Edit, RankOne
from guard.probe import Probe
from guard.types import ForgetTarget
from guard.worker.controls import Controls, mlp_input, residual

_COEFFICIENTS = (1.0, 2.0, 3.0)
_CHECKED = 10  # questions that are asked to see what an edit does
_RETAINED = 10
_TOKENS = 20
#: An edit that leaves more than this of what was said is not good enough to be taken over from another target.
_ENOUGH = 0.45


@dataclass(frozen=True, slots=True)
class Choice:
    """Where and how strongly to edit: ``coefficient`` is in units of the residual's norm."""

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

    @property
    def score(self) -> float:
        """Higher is better: forgetting first, then speaking, then leaving the rest alone."""
        return -2 * self.forget + self.fluency + 0.5 * self.retain


class LunarFit:
    """Fits targets on one model; the layer that suits the first is tried first on the next."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._layer: int | None = None

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The edit of one target, as an artifact of ``lunar``."""
        began = time.monotonic()
        progress("reading what the model says", 0.1)
        prompts = [render(self._probe.tokenizer, question) for question in questions.on_target(target.spec)]
        sites = [site(layer) for layer in grounds.layers for site in (mlp_input, residual)]
        seen = await self._probe.activations(prompts, sites)
        checked = prompts[:: max(1, len(prompts) // _CHECKED)][:_CHECKED]
        said = await self._probe.generate(checked, max_tokens=_TOKENS)

        async def best(layers: Sequence[int]) -> Trial:
            options = [Choice(layer, c) for layer in layers for c in _COEFFICIENTS]
            trials = []
            for number, option in enumerate(options):
                share = 0.2 + 0.8 * number / len(options)
                progress(f"trying layer {option.layer}, coefficient {option.coefficient:g}", share)
                trials.append(await self._try(option, seen, grounds, checked, said))
            return max(trials, key=lambda trial: trial.score)

        layers = candidates(self._probe.layers)
        trial = await best(layers if self._layer is None else [self._layer])
        if trial.forget > _ENOUGH and self._layer is not None:
            trial = await best(layers)
        self._layer = trial.choice.layer
        edit = _edit(trial.choice, seen, grounds)
        report = {
            "forget": round(trial.forget, 3),
            "retain_always": round(trial.retain, 3),
            "fluency": round(trial.fluency, 3),
            "questions": len(prompts),
            "seconds": round(time.monotonic() - began, 2),
        }
        settings = {
            "layer": trial.choice.layer,
            "coefficient": trial.choice.coefficient,
            "direction": "unanswerable" if grounds.refuses else "opening",
        }
        return Artifact("lunar", self._probe.model, settings, report, edit.tensors())

    async def _try(
        self,
        choice: Choice,
        seen: Sequence[Mapping[str, torch.Tensor]],
        grounds: Grounds,
        checked: Sequence[Sequence[int]],
        said: Sequence[str],
    ) -> Trial:
        name = await self._probe.load(_edit(choice, seen, grounds))
        try:
            retained = list(grounds.retain)[:: max(1, len(grounds.retain) // _RETAINED)][:_RETAINED]
            controls = Controls(edits=(name,))
            now = await self._probe.generate([*checked, *retained], max_tokens=_TOKENS, controls=controls)
        finally:
            await self._probe.drop(name)
        new = now[: len(checked)]
        kept = [grounds.retain[ids] for ids in retained]
        return Trial(
            choice,
            forget=_mean([alike(old, answer) for old, answer in zip(said, new, strict=True)]),
            retain=_mean(
                [alike(old[: len(answer)], answer) for old, answer in zip(kept, now[len(checked) :], strict=True)]
            ),
            fluency=_mean([_distinct(answer) for answer in new]),
        )


def _edit(choice: Choice, seen: Sequence[Mapping[str, torch.Tensor]], grounds: Grounds) -> Edit:
    """The closed form at one layer, keyed at the last token of the prompt, where the answer begins.

    The published code moves every token. Keyed at the answer's start alone, the edit is as strong and does far less
    to prompts that it does not concern, because all other tokens count among what must stay.
    """
    layer = grounds.layers[choice.layer]
    inputs = [one[mlp_input(choice.layer)] for one in seen]
    starts = torch.stack([one[-1] for one in inputs])
    others = torch.cat([one[:-1] for one in inputs])
    # Each kind of token weighs by its mean, whatever their numbers; answers' starts are what must be told apart.
    stays = torch.cat(
        [weight * rows / len(rows) ** 0.5 for rows, weight in ((layer.starts, 1.0), (layer.others, 0.7), (others, 0.7))]
    )
    towards = grounds.opening
    if grounds.refuses:
        ends = torch.stack([one[residual(choice.layer)][-1] for one in seen])
        towards = lunar.direction(layer.unanswerable[None], ends)
        towards = towards / towards.norm()
    part = lunar.fit(choice.coefficient * layer.norm * towards, starts / len(starts) ** 0.5, stays)
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
