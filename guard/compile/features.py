"""Fitting ``features``: which features of the residual stream speak of a target, and from which mean on it is meant.

Dynamic SAE Guardrails (arXiv 2504.08192) chooses features by their importance and flags by the share of tokens with an
active one; :mod:`sae_features.weighing` weighs features instead. Both are fitted here on one half of the questions, and
the one that finds more of the other half is taken. What is clamped are always the paper's features.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from guard.artifacts import Artifact
from guard.compile import questions
from guard.compile.grounds import Grounds, render
from guard.compile.jobs import Progress
from guard.compile.mentions import mentions
from guard.interventions.base import TextScores
from guard.probe import Probe
from guard.prompt import PromptReader
from guard.types import ForgetTarget
from guard.worker.controls import residual
from sae_features import weighing
from sae_features.autoencoder import AutoencoderError, SparseAutoencoder
from sae_features.encoding import encode, thresholded
from sae_features.joint import Joint
from sae_features.rule import BenignRun, Tally, Thresholds, calibrate
from sae_features.selection import Importance, select
from sae_features.snippets import Snippet, strongest
from sae_features.target import TargetFeatures

#: Of benign requests, for each bucket of lengths; see :func:`sae_features.rule.calibrate`.
RATE = 0.0025
#: Everyday prompts that are read, the first of :func:`guard.compile.questions.ordinary`.
ORDINARY = 400
_INVENTED, _TEMPLATES = 60, 8
_TOKENS, _BATCH = 24, 64
#: Features that are clamped, and that are weighed at most; those of which snippets are kept.
_CLAMPED, _WEIGHED, _SHOWN = 20, 64, 8


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    """Something that somebody might send, and what the model then says.

    Attributes:
        ids: prompt and answer, as token ids.
        prompt: how many of them are the prompt's.
        residual: (tokens, hidden) float32.
    """

    text: str
    ids: list[int]
    prompt: int
    residual: torch.Tensor

    def read(self) -> torch.Tensor:
        """The residual stream of the prompt without its first token."""
        return self.residual[1 : self.prompt]


class FeaturesFit:
    """Fits targets on one model, with one autoencoder.

    Args:
        probe: the model.
        autoencoder: of its residual stream.
        scores: of the text detector, for the joint decision; None where there is none.
    """

    def __init__(self, probe: Probe, autoencoder: SparseAutoencoder, scores: TextScores | None = None) -> None:
        self._probe = probe
        self._autoencoder = autoencoder
        self._scores = scores
        self._reader = PromptReader(probe.tokenizer)
        self._benign: list[_Text] = []
        self._strength = 0.0

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The features of one target, as an artifact of ``features``.

        Raises:
            AutoencoderError: none of the features is active on the target's questions.
        """
        began = time.monotonic()
        if not self._benign:
            progress("reading ordinary prompts, once", 0.1)
            await self._prepare(grounds)
        named = mentions(target.spec)
        benign = [one for one in self._benign if not named(one.text)]
        fitted, held_back = benign[::2], benign[1::2]
        progress("reading the target's questions", 0.4)
        asked = questions.on_target(target.spec)
        own = await self._read([(text, render(self._probe.tokenizer, text)) for text in asked])
        progress("choosing features", 0.7)
        chosen, rule, recall = self._choose(own, fitted, held_back)
        if self._scores is not None:
            progress("joining text and features", 0.9)
            scaling, calibrating = [await self._both(chosen, target, some) for some in (fitted, held_back)]
            chosen = replace(chosen, joint=Joint.fit(scaling, calibrating, RATE))
        report = {
            "rule": rule,
            "recall_held_out": recall,
            "false_alarm_rate": RATE,
            "benign_prompts": len(held_back),
            "features": self._shown(chosen, own, benign),
            "separation": {
                name: [round(_mean(chosen, one), 4) for one in some]
                for name, some in (("forget", own), ("retain", held_back))
            },
            "seconds": round(time.monotonic() - began, 2),
        }
        settings = {
            "layer": chosen.features.layer,
            "autoencoder": chosen.features.source,
            "clamped": int(chosen.member.sum()),
            "watched": chosen.features.features,
            "strength": chosen.strength,
            "limits": [round(mean, 6) for mean in chosen.thresholds.means],
            "edges": list(chosen.thresholds.edges),
            "joint_limit": None if chosen.joint is None else round(chosen.joint.limit, 6),
        }
        return Artifact("features", self._probe.model, settings, report, chosen.tensors())

    async def _prepare(self, grounds: Grounds) -> None:
        """Read what is not about any target: what the model knows, what nobody has, and everyday prompts."""
        asked = [
            *questions.ordinary(ORDINARY),
            *questions.sampled_on(questions.invented_names(_INVENTED), _TEMPLATES),
        ]
        # What the chat template says is in all of them, and says nothing of whom they are about.
        known = [("\n".join(self._reader.read(ids).texts), list(ids)) for ids in grounds.retain]
        prompts = [*known, *((text, render(self._probe.tokenizer, text)) for text in asked)]
        benign = await self._read(prompts)
        random.Random(0).shuffle(benign)
        tokens = torch.cat([one.read() for one in benign])
        self._autoencoder = thresholded(self._autoencoder, tokens)
        self._strength = float(f"{float(tokens.norm(dim=1).mean()):.3g}")
        self._benign = benign

    async def _read(self, prompts: Sequence[tuple[str, list[int]]]) -> list[_Text]:
        """Prompts with the model's answers, read back."""
        texts = []
        site = residual(self._autoencoder.layer)
        for first in range(0, len(prompts), _BATCH):
            some = prompts[first : first + _BATCH]
            answers = await self._probe.generate([ids for _, ids in some], max_tokens=_TOKENS)
            whole = [
                [*ids, *self._probe.tokenizer.encode(answer, add_special_tokens=False)]
                for (_, ids), answer in zip(some, answers, strict=True)
            ]
            seen = await self._probe.activations(whole, [site])
            texts += [
                _Text(text, ids, len(prompt), one[site])
                for (text, prompt), ids, one in zip(some, whole, seen, strict=True)
            ]
        return texts

    def _choose(
        self, own: Sequence[_Text], fitted: Sequence[_Text], held_back: Sequence[_Text]
    ) -> tuple[TargetFeatures, str, dict[str, float]]:
        """The features of a target, the rule that suits them, and what each rule found of questions held back."""
        tried = {name: _calibrated(one, held_back) for name, one in self._rules(own[::2], fitted).items()}
        recall = {name: round(_recall(one, own[1::2]), 3) for name, one in tried.items()}
        best = max(recall, key=lambda name: recall[name])
        # Once it is known which rule suits the target, none of its questions need be kept back.
        return _calibrated(self._rules(own, fitted)[best], held_back), best, recall

    async def _both(
        self, chosen: TargetFeatures, target: ForgetTarget, texts: Sequence[_Text]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the text detector says of prompts, and by how much their means exceed the limits: (prompts,) each."""
        assert self._scores is not None
        said = await self._scores(target, [self._reader.read(one.ids[: one.prompt]).texts for one in texts])
        tallies = [_tally(chosen, one) for one in texts]
        margins = [tally.mean - chosen.thresholds.at(tally.tokens) for tally in tallies]
        return np.array(said), np.array(margins)

    def _rules(self, own: Sequence[_Text], others: Sequence[_Text]) -> dict[str, TargetFeatures]:
        """The features of a target under either rule, without limits."""
        importance = [self._importance(texts) for texts in (own, others)]
        clamped = select(*importance, n=_CLAMPED)
        if not len(clamped):
            raise AutoencoderError("no feature of the autoencoder is active on what is said of this target")
        weighed = weighing.fit(self._means(own), self._means(others), n=_WEIGHED)
        ids = torch.cat([clamped, weighed.ids]).unique()
        weights = torch.zeros(len(ids))
        weights[torch.searchsorted(ids, weighed.ids)] = weighed.weights
        never = Thresholds((), (float("inf"),), RATE)
        every, shared = torch.isin(ids, clamped), torch.ones(len(clamped), dtype=torch.bool)
        return {
            "weighed": TargetFeatures(self._autoencoder.only(ids), every, weights, never, self._strength),
            "share": TargetFeatures(self._autoencoder.only(clamped), shared, None, never, self._strength),
        }

    def _importance(self, texts: Iterable[_Text]) -> Importance:
        importance = Importance(self._autoencoder.features)
        for one in texts:
            importance.add(encode(self._autoencoder, one.read()))
        return importance

    def _means(self, texts: Iterable[_Text]) -> torch.Tensor:
        return torch.stack([encode(self._autoencoder, one.read()).mean(0) for one in texts if one.prompt > 1])

    def _shown(self, chosen: TargetFeatures, own: Sequence[_Text], benign: Sequence[_Text]) -> list[dict[str, object]]:
        """The clamped features, most active first, with the places where they are most active."""
        some = chosen.features.only(chosen.member.nonzero()[:, 0])
        forget, retain = (
            torch.cat([encode(some, one.read()) for one in texts]).square().mean(0) for texts in (own, benign)
        )
        order = forget.argsort(descending=True).tolist()
        texts = [(one.ids[1 : one.prompt], encode(some, one.read())) for one in (*own, *benign)]
        return [
            {
                "feature": int(some.ids[at]),
                "importance": round(float(forget[at]), 4),
                "elsewhere": round(float(retain[at]), 4),
                "snippets": [self._written(one) for one in strongest(texts, at)] if rank < _SHOWN else [],
            }
            for rank, at in enumerate(order)
        ]

    def _written(self, snippet: Snippet) -> str:
        before, at, after = (self._probe.tokenizer.decode(ids) for ids in (snippet.before, snippet.at, snippet.after))
        return f"{before}[{at}]{after}"


def _says(one: TargetFeatures, stream: torch.Tensor) -> torch.Tensor:
    """What each token says: (tokens,)."""
    activations = encode(one.features, stream)
    if one.weights is None:
        return (activations[:, one.member] > 0).any(1).float()
    return activations @ one.weights


def _calibrated(one: TargetFeatures, benign: Iterable[_Text]) -> TargetFeatures:
    runs = (BenignRun(_says(one, text.residual).numpy(), text.prompt) for text in benign)
    return replace(one, thresholds=calibrate(runs, RATE))


def _recall(one: TargetFeatures, texts: Sequence[_Text]) -> float:
    """The share of prompts that are flagged before the first token of an answer."""
    return sum(one.thresholds.exceeded(_tally(one, text)) for text in texts) / max(1, len(texts))


def _tally(one: TargetFeatures, text: _Text) -> Tally:
    """What is counted of a prompt before the first token of an answer."""
    return Tally().add(_says(one, text.residual[: text.prompt]).numpy(), 0)


def _mean(one: TargetFeatures, text: _Text) -> float:
    return float(_says(one, text.read()).mean()) if text.prompt > 1 else 0.0
