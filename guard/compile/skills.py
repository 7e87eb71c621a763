"""Fitting ``skill``: by which keys of which MLP it shows that a prompt needs a skill.

Effective Skill Unlearning's box (arXiv 2503.21730) and a linear discriminant (:mod:`sae_features.skills`) are fitted
at several layers on some of the operator's examples; the one that tells apart best those kept back is taken. Judged is
one key of a request, that of the token which the answer follows. The paper looks at every generated token too; by
then a stream has begun, and keys within answers separate worse.

Everyday prompts, which fitting of knowledge is calibrated on, are not used: many of them need the skill.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from guard.artifacts import Artifact
from guard.compile.grounds import render
from guard.features import SKILL
from guard.probe import Probe
from guard.prompt import PromptReader, opening
from guard.types import ForgetTarget, TargetKind, TargetSpec
from guard.worker.controls import mlp_input
from sae_features.skills import KeyBox, KeyDirection, SkillKeys, calibrate, centre, fit_box, fit_linear

if TYPE_CHECKING:  # which checks what is submitted
    from guard.compile.jobs import Progress

#: Examples of each kind without which nothing is fitted.
LEAST = 15
#: Of prompts that do not need the skill, if there are enough examples to know.
RATE = 0.005
_LAYERS, _BATCH = 6, 32
#: The examples are dealt out to these: to fit on, to place the threshold by, and to compare.
_FOLDS = 3


@dataclass(frozen=True, slots=True)
class DetectorTrial:
    """One detector, and what it did, fitted on other examples, with those that were kept back.

    Attributes:
        skill: fitted on all examples.
        recall: share of those that need the skill and were found.
        false_alarms: share of the others that were found too.
        separation: distance of their mean scores in units of their standard deviations.
    """

    skill: SkillKeys
    recall: float
    false_alarms: float
    separation: float

    @property
    def rank(self) -> tuple[float, float]:
        """By which the best is taken: Youden's index, then the distance."""
        return round(self.recall - self.false_alarms, 4), self.separation

    def reported(self) -> dict[str, object]:
        """For an artifact's report."""
        numbers = {"recall": self.recall, "false_alarms": self.false_alarms, "separation": self.separation}
        rounded = {name: round(value, 4) for name, value in numbers.items()}
        return {"kind": self.skill.kind, "layer": self.skill.layer, **rounded}


def check(spec: TargetSpec) -> None:
    """Whether a target can be fitted as a skill.

    Raises:
        ValueError: it is none, or has too few examples; the message says what to give.
    """
    if spec.kind is not TargetKind.SKILL:
        raise ValueError("only a target of kind 'skill' can be compiled as one; set its kind")
    if min(len(spec.forget_examples), len(spec.retain_examples)) < LEAST:
        raise ValueError(
            f"a skill is fitted on prompts: give at least {LEAST} forget_examples that need it (there are "
            f"{len(spec.forget_examples)}) and {LEAST} retain_examples that do not ({len(spec.retain_examples)}); "
            "200 and more of the latter keep false alarms rare"
        )


class SkillFit:
    """Fits skills on one model.

    Args:
        probe: the model.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._reader = PromptReader(probe.tokenizer)

    async def fit(self, target: ForgetTarget, progress: Progress) -> Artifact:
        """The keys of one target, as an artifact of ``skill``.

        Raises:
            ValueError: it has too few examples.
        """
        began = time.monotonic()
        trials = await self.trials(target.spec, progress)
        best = max(trials, key=lambda trial: trial.rank)
        report = {
            **best.reported(),
            "tried": [trial.reported() for trial in trials],
            "forget_examples": len(target.spec.forget_examples),
            "retain_examples": len(target.spec.retain_examples),
            "seconds": round(time.monotonic() - began, 2),
        }
        settings = {
            "kind": best.skill.kind,
            "layer": best.skill.layer,
            "threshold": round(best.skill.detector.threshold, 6),
        }
        return Artifact(SKILL, self._probe.model, settings, report, best.skill.tensors())

    async def trials(self, spec: TargetSpec, progress: Progress) -> list[DetectorTrial]:
        """Box and discriminant at every layer that is tried.

        Raises:
            ValueError: there are too few examples.
        """
        check(spec)
        progress("reading prompts that need the skill", 0.0)
        own = await self._keys([example.prompt for example in spec.forget_examples])
        progress("reading prompts that do not", 0.3)
        others = await self._keys([example.prompt for example in spec.retain_examples])
        progress("fitting", 0.9)
        return [trial for layer in own for trial in _tried(layer, own[layer], others[layer])]

    async def _keys(self, prompts: Sequence[str]) -> Mapping[int, torch.Tensor]:
        """By layer the keys (prompts, d_ff) where the answers begin, in an order without meaning."""
        rendered = [render(self._probe.tokenizer, prompt) for prompt in prompts]
        random.Random(0).shuffle(rendered)
        found: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers(self._probe.layers)}
        for first in range(0, len(rendered), _BATCH):
            some = rendered[first : first + _BATCH]
            at = [opening(self._reader.read(ids), len(ids)) for ids in some]
            seen = await self._probe.activations(some, [mlp_input(layer) for layer in found])
            for layer, rows in found.items():
                rows += [one[mlp_input(layer)][where].clone() for one, where in zip(seen, at, strict=True)]
        return {layer: torch.stack(rows) for layer, rows in found.items()}


def layers(count: int) -> list[int]:
    """Which of a model's layers are tried: all of a few, else some that are evenly spaced up to the last."""
    step = max(1, count / _LAYERS)
    return sorted({count - 1 - round(number * step) for number in range(min(count, _LAYERS))})


def _tried(layer: int, own: torch.Tensor, others: torch.Tensor) -> list[DetectorTrial]:
    fold, other = ([keys[start::_FOLDS] for start in range(_FOLDS)] for keys in (own, others))
    judged = _fitted(fold[0], fold[1], other[0], other[1])
    # Once it is known how good they are, no example need be kept back.
    final = _fitted(torch.cat([fold[0], fold[2]]), fold[1], torch.cat([other[0], other[2]]), other[1])
    trials = []
    for detector, kept in zip(judged, final, strict=True):
        scores, other_scores = detector.scores(fold[2]), detector.scores(other[2])
        spread = float(scores.std() + other_scores.std())
        trials.append(
            DetectorTrial(
                SkillKeys(layer, kept),
                recall=float((scores > detector.threshold).float().mean()),
                false_alarms=float((other_scores > detector.threshold).float().mean()),
                separation=float(scores.mean() - other_scores.mean()) / max(spread, 1e-6),
            )
        )
    return trials


def _fitted(
    own: torch.Tensor, own_placing: torch.Tensor, others: torch.Tensor, others_placing: torch.Tensor
) -> list[KeyBox | KeyDirection]:
    """The paper's box, which needs no others, and the discriminant with its threshold placed by other keys."""
    # So many prompts as there are bound how rare a false alarm can be shown to be.
    rate = max(RATE, 1 / (len(others_placing) + 1))
    linear = calibrate(fit_linear(own, others), others_placing.split(1), rate)
    return [fit_box(torch.cat([own, own_placing])), centre(linear, own_placing)]
