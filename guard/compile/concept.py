"""Fitting ``concept``: value vectors that speak for the target are found, and as many taken out as works best."""

from __future__ import annotations

import asyncio
import time

import torch

from guard.artifacts import Artifact
from guard.compile.grounds import Grounds
from guard.compile.jobs import Progress
from guard.compile.trial import Trial, ask, attempt
from guard.methods import concept
from guard.methods.edit import Edit
from guard.probe import Probe
from guard.types import ForgetTarget, Gating
from guard.worker.controls import mlp_input

#: How many vectors are taken out of all layers together; the paper's concepts have one each, in models of 7B.
_COUNTS = (1, 8, 32, 128)

#: A value vector: layer, dimension, itself, and how much more it adds on the target than elsewhere.
_Found = tuple[int, int, torch.Tensor, float]


class ConceptFit:
    """Fits targets on one model."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The edit of one target, as an artifact of ``concept``: it holds for flagged requests and always alike."""
        began = time.monotonic()
        progress("reading what the model says", 0.1)
        asked = await ask(self._probe, target.spec)
        encode = self._probe.tokenizer.encode
        told = [
            [*ids, *encode(answer, add_special_tokens=False)]
            for ids, answer in zip(asked.prompts, asked.answers, strict=True)
        ]
        progress("finding value vectors", 0.3)
        found = await self._found(told, grounds)
        trials: dict[int, tuple[Edit, Trial]] = {}
        for number, count in enumerate(_COUNTS):
            progress(f"{count} value vectors", 0.5 + 0.5 * number / len(_COUNTS))
            edit = _without(found[:count], grounds)
            trials[count] = edit, await attempt(self._probe, edit, grounds, asked.held, asked.said)
        # One edit for both ways of use, so the rest counts.
        count = max(trials, key=lambda one: trials[one][1].score(Gating.ALWAYS))
        edit, trial = trials[count]
        vectors = [[layer, dim] for layer, dim, _, _ in found[:count]]
        report = {"questions": asked.asked, "known": asked.known, **trial.report()}
        report["seconds"] = round(time.monotonic() - began, 2)
        return Artifact("concept", self._probe.model, {"vectors": vectors}, report, edit.tensors())

    async def _found(self, prompts: list[list[int]], grounds: Grounds) -> list[_Found]:
        """Value vectors of the surveyed layers, those first through which most of the target's excess comes."""
        seen = await self._probe.activations(prompts, [mlp_input(layer) for layer in grounds.layers])
        found: list[_Found] = []
        for layer, ground in grounds.layers.items():
            here = torch.cat([one[mlp_input(layer)] for one in seen])
            elsewhere = torch.cat([ground.starts, ground.others])
            excess = await asyncio.to_thread(concept.excess, here, elsewhere)  # beside the event loop
            most = excess.topk(min(2 * max(_COUNTS), len(excess))).indices
            vectors = await self._probe.value_vectors(layer, most.tolist())
            added = excess[most] * vectors.square().sum(1)
            found += [
                (layer, int(dim), vector, float(share)) for dim, vector, share in zip(most, vectors, added, strict=True)
            ]
        return sorted(found, key=lambda one: one[3], reverse=True)


def _without(found: list[_Found], grounds: Grounds) -> Edit:
    layers = {}
    for layer in sorted({layer for layer, *_ in found}):
        mine = [(dim, vector) for at, dim, vector, _ in found if at == layer]
        dims = torch.tensor([dim for dim, _ in mine])
        width = grounds.layers[layer].starts.shape[1]
        layers[layer] = concept.ablate(dims, torch.stack([vector for _, vector in mine]), width)
    return Edit(layers)
