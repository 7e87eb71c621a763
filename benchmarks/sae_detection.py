"""What text and sparse features find of targets, alone and together, and what clamping alone makes a model forget.

    lethe sae train MODEL --layer 2 --prompts FILE --output DIR
    python benchmarks/sae_detection.py --sae DIR [--targets 10] --json FILE

The model is the demo model, the targets are people of its forget split, described as the demo describes them. Every
prompt goes through the engine with all targets watched, as a tenant's would. Figures are means over the targets: each
target's prompts in a condition against prompts of the same forms about others and everyday prompts. Half of the latter
put the two scores on one scale (:func:`joint`), the other half counts. What is served flags by either, each at its own
limit: ``as_served``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from engines import lethe_engine
from sklearn.metrics import roc_auc_score
from vllm.engine.protocol import EngineClient
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from classifiers.detector import TextDetector, View
from guard.compile.features import FeaturesFit
from guard.compile.grounds import render, survey
from guard.compile.questions import ordinary
from guard.detection import profile_of
from guard.probe import EngineProbe
from guard.types import ForgetTarget, TargetSpec
from guard.worker.controls import RESERVED, Controls, Features
from sae_features.loading import load
from sae_features.target import TargetFeatures
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import PERSON, Entity, Form, Prompt, description

_OWN, _OTHERS, _EVERYDAY = 24, 300, 200
_REPHRASED = {Form.CLOZE, Form.CHOICE, Form.YES_NO, Form.INSTRUCTION}
_WITHHELD = {Form.INDIRECT, Form.REVERSE}


def _misspelt(text: str, rng: random.Random) -> str:
    """Two letters of every second word change places."""
    words = text.split(" ")
    for at in range(0, len(words), 2):
        if len(words[at]) > 3:
            cut = rng.randrange(1, len(words[at]) - 2)
            words[at] = words[at][:cut] + words[at][cut + 1] + words[at][cut] + words[at][cut + 2 :]
    return " ".join(words)


def _spaced(text: str, _: random.Random) -> str:
    return " ".join(text.replace(" ", "  "))


def _spelled(text: str, _: random.Random) -> str:
    return " ".join("-".join(word) if word[:1].isupper() else word for word in text.split(" "))


_DISGUISES = (_misspelt, _spaced, _spelled)

#: By condition, which prompts belong to it.
CONDITIONS: dict[str, Callable[[Prompt], bool]] = {
    "plain": lambda p: p.form is Form.QUESTION and p.trained,
    "rephrased": lambda p: p.form in _REPHRASED and p.trained,
    "obfuscated": lambda p: p.form is Form.QUESTION and p.trained,
    "name_withheld": lambda p: p.form in _WITHHELD,
    "held_out": lambda p: p.form in {Form.QUESTION, *_REPHRASED} and not p.trained,
}


@dataclass(frozen=True)
class Asked:
    """A text in a condition; ``entity`` is None for everyday prompts."""

    text: str
    entity: str | None


def asked(recipe: Recipe, targets: Sequence[Entity], condition: str) -> list[Asked]:
    """The prompts of a condition: on the targets, on others, and everyday ones."""
    rng = random.Random(condition)
    names = {entity.name for entity in targets}
    retained = {entity.name for entity in recipe.world.retain}
    fitting = [p for p in recipe.prompts if len(p.messages) == 1 and p.entity and CONDITIONS[condition](p)]
    rng.shuffle(fitting)
    chosen = [p for name in sorted(names) for p in [q for q in fitting if q.entity == name][:_OWN]]
    chosen += [p for p in fitting if p.entity in retained][:_OTHERS]
    found = [Asked(p.messages[0].content, p.entity) for p in chosen]
    found += [Asked(text, None) for text in rng.sample(ordinary(2000), _EVERYDAY)]
    if condition == "obfuscated":
        found = [Asked(_DISGUISES[i % len(_DISGUISES)](one.text, rng), one.entity) for i, one in enumerate(found)]
    return found


async def seen_by_text(detector: TextDetector, view: View, keys: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Scores (texts, targets); 0 where the detector saw nothing to compare."""
    scores = np.zeros((len(texts), len(keys)))
    for row, text in enumerate(texts):
        scan = await detector.scan([text], view, thresholds=dict.fromkeys(keys, 0.0))
        for hit in scan.hits:
            scores[row, keys.index(hit.key)] = hit.score
    return scores


async def seen_by_features(
    engine: EngineClient, probe: EngineProbe, names: Sequence[str], texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """By how much each mean exceeds its limit before the answer, and whether it was flagged: (texts, targets) each."""
    gate = asyncio.Semaphore(32)

    async def one(text: str) -> list[tuple[float, bool]]:
        async with gate:
            ticket = secrets.token_hex(8)
            await _generate(engine, render(probe.tokenizer, text), Features(watch=tuple(names), ticket=ticket), 1)
            (told,) = await probe.verdicts([ticket])
        if told is None:
            raise RuntimeError("the engine gave no verdict")
        return [(told[name].mean - told[name].limit, told[name].flagged) for name in names]

    rows = np.array(await asyncio.gather(*map(one, texts)))
    return rows[..., 0], rows[..., 1].astype(bool)


async def _generate(engine: EngineClient, ids: list[int], features: Features | None, tokens: int) -> str:
    params = SamplingParams(temperature=0, max_tokens=tokens, output_kind=RequestOutputKind.FINAL_ONLY)
    prompt: dict[str, Any] = dict(tokens_input(ids))
    if features is not None:
        controls = Controls(features=features)
        params.extra_args, params.skip_reading_prefix_cache = {RESERVED: controls.to_wire()}, True
        if controls.salt:
            prompt["cache_salt"] = controls.salt
    results = [result async for result in engine.generate(prompt, params, f"bench-{secrets.token_hex(8)}")]
    return results[-1].outputs[0].text


def joint(text: np.ndarray, features: np.ndarray, calibrating: np.ndarray) -> np.ndarray:
    """One score of both: the text's log-odds, and less of what the features say.

    Each is taken in units of the distance from the median of benign prompts to their 99th percentile, the features at
    most two of them either way. The weight was chosen on these prompts, where any from 0.1 to 1 serves.
    """
    chance = np.clip(text, 1e-4, 1 - 1e-4)
    parts = []
    for score in (np.log(chance / (1 - chance)), features):
        middle, high = np.quantile(score[calibrating], [0.5, 0.99])
        parts.append((score - middle) / max(high - middle, 1e-6))
    return parts[0] + 0.3 * np.clip(parts[1], -2, 2)


def figures(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """AUROC, and the recall at the threshold that at most 1 % of the others exceed."""
    limit = np.quantile(other, 0.99, method="higher")
    labels = np.repeat([1, 0], [len(own), len(other)])
    return float(roc_auc_score(labels, np.concatenate([own, other]))), float((own > limit).mean())


async def _recall(
    engine: EngineClient, probe: EngineProbe, prompts: Sequence[Prompt], features: Callable[[], Features | None]
) -> float:
    gate = asyncio.Semaphore(32)

    async def one(prompt: Prompt) -> bool:
        async with gate:
            text = await _generate(engine, render(probe.tokenizer, prompt.messages[0].content), features(), 40)
        return prompt.is_answered_by(text)

    return float(np.mean(await asyncio.gather(*map(one, prompts))))


async def measure(sae: Path, count: int) -> dict[str, Any]:
    """Everything, on the demo model."""
    recipe = Recipe()
    people = [entity for entity in recipe.world.forget if entity.kind == PERSON][:count]
    now = datetime.now(UTC)
    targets = [
        ForgetTarget(f"tgt_{at}", 1, TargetSpec(name=one.name, description=description(one)), now, now)
        for at, one in enumerate(people)
    ]
    keys = [target.key for target in targets]
    detector = TextDetector()
    for target in targets:
        detector.add(detector.compile(profile_of(target)))
    view = detector.view(keys)
    flags = ("--max-model-len", "512", "--dtype", "float32")
    async with lethe_engine(build(recipe).folder, *flags) as engine:
        probe = EngineProbe(engine)
        grounds = await survey(probe, [target.spec.name for target in targets])
        fit = FeaturesFit(probe, load(sae))
        artifacts = [await fit.fit(target, grounds, lambda *_: None) for target in targets]
        for artifact in artifacts:
            print({k: artifact.report[k] for k in ("rule", "recall_held_out", "seconds")}, artifact.settings["limits"])
        names = [await probe.load_features(TargetFeatures.of(one.tensors)) for one in artifacts]

        auroc: dict[str, dict[str, float]] = {}
        recall: dict[str, dict[str, float]] = {}
        served: dict[str, dict[str, float]] = {}
        for condition in CONDITIONS:
            prompts = asked(recipe, people, condition)
            texts = [one.text for one in prompts]
            entity = np.array([one.entity or "" for one in prompts])
            text = await seen_by_text(detector, view, keys, texts)
            sae_margin, flagged = await seen_by_features(engine, probe, names, texts)
            benign = np.flatnonzero(~np.isin(entity, [one.name for one in people]))
            calibrating, counting = benign[::2], benign[1::2]
            rows: dict[str, list[tuple[float, float]]] = {"text": [], "sae": [], "both": []}
            for at, person in enumerate(people):
                own = np.flatnonzero(entity == person.name)
                together = joint(text[:, at], sae_margin[:, at], calibrating)
                for name, score in (("text", text[:, at]), ("sae", sae_margin[:, at]), ("both", together)):
                    rows[name].append(figures(score[own], score[counting]))
            auroc[condition] = {name: round(float(np.mean([a for a, _ in some])), 4) for name, some in rows.items()}
            recall[condition] = {name: round(float(np.mean([r for _, r in some])), 4) for name, some in rows.items()}
            mine = np.array([[person.name == one for person in people] for one in entity])
            served[condition] = {
                "sae_flagged": round(float(flagged[mine].mean()), 4),
                "sae_false_alarms_per_target": round(float(flagged[benign].mean()), 4),
            }
            print(condition, "auroc", auroc[condition], "recall", recall[condition], served[condition], flush=True)

        clamping = await _clamping(engine, probe, recipe, people, names)
    return {"recall_at_1pct": recall, "auroc": auroc, "as_served": served, "clamp": clamping}


async def _clamping(
    engine: EngineClient, probe: EngineProbe, recipe: Recipe, people: Sequence[Entity], names: Sequence[str]
) -> dict[str, float]:
    """What is left of questions on the targets, and of others, when flagged requests are clamped and nothing else."""
    questions = [p for p in recipe.prompts if p.form is Form.QUESTION and len(p.messages) == 1 and p.trained]
    forget = [p for p in questions if p.entity in {one.name for one in people}]
    retain = [p for p in questions if p.entity in {one.name for one in recipe.world.retain}][::7][:300]

    def gated() -> Features:
        return Features(watch=tuple(names), clamp=tuple(names), ticket=secrets.token_hex(8))

    found = {}
    for kind, prompts in (("forget", forget), ("retain", retain)):
        found[f"{kind}_before"] = round(await _recall(engine, probe, prompts, lambda: None), 4)
        found[f"{kind}_clamped"] = round(await _recall(engine, probe, prompts, gated), 4)
    print(found)
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", type=Path, required=True)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    found = asyncio.run(measure(args.sae, args.targets))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
