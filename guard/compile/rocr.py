"""Fitting ``rocr``: the target's names are led to a name that nobody has, layer after layer.

The published code has one key, the last token of the subject. Here every token of a name is one: in names of several
tokens the earlier ones tell enough by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import torch

from guard.artifacts import Artifact
from guard.compile import questions
from guard.compile.grounds import Grounds, early, render
from guard.compile.jobs import Progress
from guard.compile.trial import TOKENS, attempt
from guard.methods import rocr
from guard.methods.edit import Edit, RankOne
from guard.probe import Probe
from guard.types import ForgetTarget
from guard.worker.controls import mlp_input, residual

#: How a name is asked about; ``compute_ks.py`` of the published code has six of this kind.
_TEMPLATES = (
    "{e}",
    "Please answer the question about {e}",
    "Tell me about {e}",
    "Write something about {e}",
    "What is known about {e}",
    "Who is {e}",
)
_THRESHOLD = 0.02
#: The published L2 of 1, relative to the mean square norm of the keys.
_L2 = 0.01
_CHECKED = 10


class RocrFit:
    """Fits targets on one model, each so that it leaves the names of those before it alone."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._earlier: dict[int, dict[str, torch.Tensor]] = {}  # by layer and target id: keys
        self._common: dict[int, torch.Tensor] = {}  # by layer

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The edit of one target, as an artifact of ``rocr``."""
        began = time.monotonic()
        names = [target.spec.name, *target.spec.aliases]
        layers = early(self._probe.layers)
        concept = questions.invented_names(1)[0]
        progress("reading the neutral concept", 0.05)
        aim = (await self._at_name(concept, [residual(layers[-1])], ()))[0][-1]
        parts: dict[int, tuple[RankOne, ...]] = {}
        for number, layer in enumerate(layers):
            progress(f"layer {layer}", 0.1 + 0.6 * number / len(layers))
            sites = [mlp_input(layer), residual(layers[-1])]
            async with self._probe.borrowed(Edit(parts)) as done:
                seen = [await self._at_name(name, sites, (done,)) for name in names]
            keys = torch.cat([key for key, _ in seen])
            missing = torch.cat([(aim - now) / (len(layers) - number) for _, now in seen])
            common = await self._common_directions(grounds, layer)
            others = [rows for owner, rows in self._earlier.get(layer, {}).items() if owner != target.id]
            earlier = torch.cat(others) if others else keys[:0]
            l2 = _L2 * float(keys.square().sum(1).mean())
            parts[layer] = await asyncio.to_thread(rocr.fit, keys, missing, common, earlier, l2=l2)
            self._earlier.setdefault(layer, {})[target.id] = keys
        progress("checking the edit", 0.8)
        edit = Edit(parts)
        report = await self._check(target, edit, grounds)
        report["seconds"] = round(time.monotonic() - began, 2)
        return Artifact("rocr", self._probe.model, {"layers": layers, "concept": concept}, report, edit.tensors())

    async def _common_directions(self, grounds: Grounds, layer: int) -> torch.Tensor:
        if layer not in self._common:
            ground = grounds.layers[layer]
            inputs = torch.cat([ground.starts, ground.others])
            # Beside the event loop, on which clients' streams run.
            self._common[layer] = await asyncio.to_thread(rocr.common_directions, inputs, _THRESHOLD)
        return self._common[layer]

    async def _at_name(self, name: str, sites: Sequence[str], edits: tuple[str, ...]) -> list[torch.Tensor]:
        """Mean activations over the templates at the tokens of a name: (tokens, width) for each site."""
        prompts = [render(self._probe.tokenizer, template.format(e=name)) for template in _TEMPLATES]
        spans = [_tokens_of(self._probe.tokenizer, ids, name) for ids in prompts]
        shortest = min(len(span) for span in spans)  # the first token may join what stands before it
        seen = await self._probe.activations(prompts, sites, edits=edits)
        return [
            torch.stack([one[site][span[-shortest:]] for one, span in zip(seen, spans, strict=True)]).mean(0)
            for site in sites
        ]

    async def _check(self, target: ForgetTarget, edit: Edit, grounds: Grounds) -> dict[str, Any]:
        prompts = [render(self._probe.tokenizer, question) for question in questions.on_target(target.spec)]
        checked = prompts[:: max(1, len(prompts) // _CHECKED)][:_CHECKED]
        said = await self._probe.generate(checked, max_tokens=TOKENS)
        return dict((await attempt(self._probe, edit, grounds, checked, said)).report())


def _tokens_of(tokenizer: Any, ids: Sequence[int], name: str) -> list[int]:
    """The indices of the tokens that spell ``name`` where it stands last."""
    start = tokenizer.decode(ids).rindex(name)
    ends = [len(tokenizer.decode(ids[: index + 1])) for index in range(len(ids))]
    return [i for i, end in enumerate(ends) if end > start and (ends[i - 1] if i else 0) < start + len(name)]
