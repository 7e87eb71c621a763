"""What text and sparse features find of targets, alone and together, and what clamping alone makes a model forget.

    python benchmarks/sae_detection.py --prompts FILE
    lethe sae train MODEL --layer 2 --width 2048 --prompts FILE --output DIR     # MODEL: lethe demo-model build
    python benchmarks/sae_detection.py --sae DIR [--targets 10] --json FILE

The model is the demo model, the targets are people of its forget split, described as the demo describes them. Every
prompt goes through the engine with all targets watched, as a tenant's would. Figures are means over the targets: each
target's prompts in a condition against prompts of the same forms about others and everyday prompts. "Both" is the joint
score that is served, fitted with the target and on none of these prompts; the weight of the features in it was chosen
on them, though, and so was the rule that at their median the text decides. ``as_served`` is what is flagged at the
limits of each. Clamping is measured behind the door, once with the text's detectors on and once without; no
guard of the output is on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from engines import become, lethe_engine
from sklearn.metrics import roc_auc_score
from vllm.engine.protocol import EngineClient
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from classifiers.detector import TextDetector, View
from guard.compile.features import ORDINARY, FeaturesFit
from guard.compile.grounds import render, survey
from guard.compile.questions import ordinary
from guard.detection import profile_of
from guard.engine import GuardedEngine
from guard.probe import EngineProbe
from guard.service import GuardService
from guard.types import ForgetTarget, GuardName, GuardToggle, TargetSpec
from guard.worker.controls import RESERVED, Controls, Features
from sae_features.loading import load
from sae_features.target import TargetFeatures
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import PERSON, Entity, Form, Prompt, description

_OWN, _OTHERS, _EVERYDAY = 24, 300, 200
_REPHRASED = {Form.CLOZE, Form.CHOICE, Form.YES_NO, Form.INSTRUCTION}
_WITHHELD = {Form.INDIRECT, Form.REVERSE}
_TEXT = {GuardName.LEXICON, GuardName.SEMANTIC}
_OUTPUT = {GuardName.LEAK, GuardName.STATEMENTS}


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
    found += [Asked(text, None) for text in rng.sample(ordinary(2000)[ORDINARY:], _EVERYDAY)]
    if condition == "obfuscated":
        found = [Asked(_DISGUISES[i % len(_DISGUISES)](one.text, rng), one.entity) for i, one in enumerate(found)]
    return found


async def seen_by_text(
    detector: TextDetector, view: View, keys: Sequence[str], texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, 0 where the detector saw nothing to compare, and the thresholds of those: (texts, targets) each."""
    scores, thresholds = np.zeros((len(texts), len(keys))), np.ones((len(texts), len(keys)))
    for row, text in enumerate(texts):
        scan = await detector.scan([text], view, scored=frozenset(keys))
        for hit in scan.hits:
            scores[row, keys.index(hit.key)] = hit.score
            thresholds[row, keys.index(hit.key)] = hit.threshold
    return scores, thresholds


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


def prompts(recipe: Recipe) -> list[str]:
    """What the autoencoder is trained on: questions of the demo world, and everyday ones."""
    rng = random.Random(0)
    found = rng.sample([p.messages[0].content for p in recipe.prompts if len(p.messages) == 1], 9000) + ordinary(2000)
    rng.shuffle(found)
    return [text.replace("\n", " ") for text in found]


def figures(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """AUROC, and the recall at the threshold that at most 1 % of the others exceed."""
    limit = np.quantile(other, 0.99, method="higher")
    labels = np.repeat([1, 0], [len(own), len(other)])
    return float(roc_auc_score(labels, np.concatenate([own, other]))), float((own > limit).mean())


async def _recall(engine: EngineClient, probe: EngineProbe, prompts: Sequence[Prompt]) -> float:
    gate = asyncio.Semaphore(32)

    async def one(prompt: Prompt) -> bool:
        async with gate:
            text = await _generate(engine, render(probe.tokenizer, prompt.messages[0].content), None, 40)
        return prompt.is_answered_by(text)

    return float(np.mean(await asyncio.gather(*map(one, prompts))))


async def measure(sae: Path, count: int) -> dict[str, Any]:
    """Everything, on the demo model."""
    recipe = Recipe()
    people = [entity for entity in recipe.world.forget if entity.kind == PERSON][:count]
    specs = [TargetSpec(name=one.name, description=description(one)) for one in people]
    flags = ("--max-model-len", "512", "--dtype", "float32")
    with TemporaryDirectory() as folder:
        service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
        try:
            async with lethe_engine(build(recipe).folder, *flags) as engine:
                guarded = GuardedEngine(engine, service, load(sae))
                return await _measured(engine, guarded, service, recipe, people, specs)
        finally:
            service.close()


async def _measured(
    engine: EngineClient,
    guarded: GuardedEngine,
    service: GuardService,
    recipe: Recipe,
    people: Sequence[Entity],
    specs: Sequence[TargetSpec],
) -> dict[str, Any]:
    targets = service.registry.write(lambda writer: [writer.create_target(spec) for spec in specs])
    keys = [target.key for target in targets]
    detector = TextDetector()
    for target in targets:
        detector.add(detector.compile(profile_of(target)))
    view = detector.view(keys)
    probe, autoencoder, kept = guarded.means.probe, guarded.means.autoencoder, guarded.means.artifacts
    assert probe is not None and autoencoder is not None and kept is not None
    grounds = await survey(probe, [target.spec.name for target in targets])
    fit = FeaturesFit(probe, autoencoder, service.detection.scores)
    features = []
    for target in targets:
        artifact = await fit.fit(target, grounds, lambda *_: None)
        print({k: artifact.report[k] for k in ("rule", "recall_held_out", "seconds")}, artifact.settings, flush=True)
        await kept.put(target, artifact)
        features.append(TargetFeatures.of(artifact.tensors))
    names = [await probe.load_features(one) for one in features]
    joint = [one.joint for one in features if one.joint is not None]
    if len(joint) < len(features):
        raise RuntimeError("there were too few benign prompts for a joint decision")

    auroc: dict[str, dict[str, float]] = {}
    recall: dict[str, dict[str, float]] = {}
    served: dict[str, dict[str, float]] = {}
    for condition in CONDITIONS:
        prompts = asked(recipe, people, condition)
        texts = [one.text for one in prompts]
        entity = np.array([one.entity or "" for one in prompts])
        text, thresholds = await seen_by_text(detector, view, keys, texts)
        by_text = text >= thresholds
        margin, flagged = await seen_by_features(engine, probe, names, texts)
        together = np.stack([one.scores(text[:, at], margin[:, at]) for at, one in enumerate(joint)], axis=1)
        bars = [thresholds[:, at].min() for at in range(len(targets))]  # one for each target
        beyond = [one.beyond(text[:, at], margin[:, at], bars[at]) for at, one in enumerate(joint)]
        jointly = np.stack(beyond, axis=1) > 0
        benign = np.flatnonzero(~np.isin(entity, [one.name for one in people]))
        rows: dict[str, list[tuple[float, float]]] = {"text": [], "sae": [], "both": []}
        for at, person in enumerate(people):
            own = np.flatnonzero(entity == person.name)
            for name, score in (("text", text[:, at]), ("sae", margin[:, at]), ("both", together[:, at])):
                rows[name].append(figures(score[own], score[benign]))
        auroc[condition] = {name: round(float(np.mean([a for a, _ in some])), 4) for name, some in rows.items()}
        recall[condition] = {name: round(float(np.mean([r for _, r in some])), 4) for name, some in rows.items()}
        mine = np.array([[person.name == one for person in people] for one in entity])
        served[condition] = {
            f"{name}_{what}": round(float(of[where].mean()), 4)
            for name, of in (("text", by_text), ("sae", flagged), ("both", by_text | jointly))
            for what, where in (("flagged", mine), ("false_alarms_per_target", benign))
        }
        print(condition, "auroc", auroc[condition], "recall", recall[condition], served[condition], flush=True)

    clamping = await _clamping(guarded, service, probe, recipe, people, targets)
    return {"recall_at_1pct": recall, "auroc": auroc, "as_served": served, "clamp": clamping}


async def _clamping(
    guarded: GuardedEngine,
    service: GuardService,
    probe: EngineProbe,
    recipe: Recipe,
    people: Sequence[Entity],
    targets: Sequence[ForgetTarget],
) -> dict[str, float]:
    """What is left of questions on the targets, and of others, when flagged requests are clamped and nothing else."""
    questions = [p for p in recipe.prompts if p.form is Form.QUESTION and len(p.messages) == 1 and p.trained]
    forget = [p for p in questions if p.entity in {one.name for one in people}]
    retain = [p for p in questions if p.entity in {one.name for one in recipe.world.retain}][::7][:300]
    found = {}
    for name, on, off in (
        ("before", (), _OUTPUT),
        ("clamped", targets, _OUTPUT),
        ("clamped_by_features", targets, _TEXT | _OUTPUT),
    ):
        become(service, on, "clamp", {g: GuardToggle(enabled=g not in off, deadline_ms=600_000) for g in GuardName})
        for kind, prompts in (("forget", forget), ("retain", retain)):
            found[f"{kind}_{name}"] = round(await _recall(guarded, probe, prompts), 4)
    print(found)
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, help="write what the autoencoder is trained on to this file, and end")
    parser.add_argument("--sae", type=Path)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.prompts is not None:
        args.prompts.write_text("\n".join(prompts(Recipe())))
        return
    if args.sae is None or args.json is None:
        parser.error("--sae and --json are needed, or --prompts")
    found = asyncio.run(measure(args.sae, args.targets))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
