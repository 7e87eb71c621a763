"""What text and sparse features find of targets, alone and together, and what clamping alone makes a model forget.

    python benchmarks/sae_detection.py --subject demo --prompts FILE
    lethe sae train MODEL --layer 2 --width 2048 --prompts FILE --output DIR     # MODEL: lethe demo-model build
    python benchmarks/sae_detection.py --subject demo --sae DIR [--targets 10] --json FILE

What is asked in which condition is in ``sae_subjects.py``. Every prompt goes through the engine with all targets
watched, as a tenant's would. Figures are means over the targets that are asked about in a condition: each one's prompts
against prompts of the same forms about others and everyday prompts. "Both" is the joint score that is served, fitted
with the target and on none of these prompts; how sharp its maximum is was chosen on those of both subjects, though, and
the rule that at their median the text decides on the demo model's. "Layers" is O3's score (``layer_scores.py``), "all"
is the joint score with it, which is not served. ``as_served`` is what is flagged at the limits of each. Clamping is
measured behind the door, once with the text's detectors on and once without; no guard of the output is on. Of TOFU's
answers ROUGE-L recall is measured, which is not nought for a model that never learnt them (see ``tofu.json``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from engines import become, lethe_engine
from layer_scores import LayerScore, pooled
from sae_subjects import CONDITIONS, Asked, Marked, Subject, demo, tofu
from sklearn.metrics import roc_auc_score
from vllm.engine.protocol import EngineClient
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from classifiers.detector import TextDetector, View
from guard.compile.features import ORDINARY, FeaturesFit
from guard.compile.grounds import render, survey
from guard.compile.questions import on_target, ordinary
from guard.detection import profile_of
from guard.engine import GuardedEngine
from guard.probe import EngineProbe
from guard.service import GuardService
from guard.types import ForgetTarget, GuardName, GuardToggle, TargetSpec
from guard.worker.controls import RESERVED, Controls, Features
from sae_features.joint import MOST, Joint
from sae_features.loading import load
from sae_features.target import TargetFeatures
from server.evaluation.admin import PATIENCE_MS

_TEXT = {GuardName.LEXICON, GuardName.SEMANTIC}
_OUTPUT = {GuardName.LEAK, GuardName.STATEMENTS}
#: Of O3's score beside the joint one.
_LAYERS_WEIGHT = 0.3


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


def figures(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """AUROC, and the recall at the threshold that at most 1 % of the others exceed."""
    limit = np.quantile(other, 0.99, method="higher")
    labels = np.repeat([1, 0], [len(own), len(other)])
    return float(roc_auc_score(labels, np.concatenate([own, other]))), float((own > limit).mean())


async def _recall(engine: EngineClient, probe: EngineProbe, questions: Sequence[Marked]) -> float:
    gate = asyncio.Semaphore(32)

    async def one(question: Marked) -> float:
        async with gate:
            return question.mark(await _generate(engine, render(probe.tokenizer, question.text), None, 40))

    return float(np.mean(await asyncio.gather(*map(one, questions))))


async def measure(subject: Subject, sae: Path, raw: Path | None) -> dict[str, Any]:
    """Everything; the raw scores go to the folder ``raw``."""
    flags = ("--max-model-len", "512", "--dtype", "float32")
    with TemporaryDirectory() as folder:
        service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
        try:
            async with lethe_engine(subject.model, *flags) as engine:
                guarded = GuardedEngine(engine, service, load(sae))
                fitted = await _fitted(guarded, service, subject)
                found: dict[str, dict[str, Any]] = {"recall_at_1pct": {}, "auroc": {}, "as_served": {}}
                for condition in CONDITIONS:
                    scores = await _scored(engine, fitted, subject.asked[condition])
                    if raw is not None:
                        raw.mkdir(parents=True, exist_ok=True)
                        joint = np.array([one.numbers() for one in fitted.joint])
                        np.savez(raw / f"{condition}.npz", joint=joint, **asdict(scores))
                    for kind, of in _figures(fitted, scores, list(subject.specs)).items():
                        found[kind][condition] = of
                    print(condition, {kind: of[condition] for kind, of in found.items()}, flush=True)
                clamp = await _clamping(guarded, service, fitted, subject)
                return {**found, "clamp": clamp}
        finally:
            service.close()


@dataclass(frozen=True)
class _Fitted:
    """The targets of a subject, ready to be found; everything in their order."""

    targets: list[ForgetTarget]
    detector: TextDetector
    view: View
    probe: EngineProbe
    names: list[str]
    joint: list[Joint]
    layers: list[LayerScore]


async def _fitted(guarded: GuardedEngine, service: GuardService, subject: Subject) -> _Fitted:
    targets = service.registry.write(lambda writer: [writer.create_target(spec) for spec in subject.specs.values()])
    detector = TextDetector()
    for target in targets:
        detector.add(detector.compile(profile_of(target)))
    probe, autoencoder, kept = guarded.means.probe, guarded.means.autoencoder, guarded.means.artifacts
    assert isinstance(probe, EngineProbe) and autoencoder is not None and kept is not None
    grounds = await survey(probe, [target.spec.name for target in targets])
    fit = FeaturesFit(probe, autoencoder, service.detection.scores)
    features = []
    for target in targets:
        artifact = await fit.fit(target, grounds, lambda *_: None)
        print({k: artifact.report[k] for k in ("rule", "recall_held_out", "seconds")}, artifact.settings, flush=True)
        await kept.put(target, artifact)
        features.append(TargetFeatures.of(artifact.tensors))
    joint = [one.joint for one in features if one.joint is not None]
    if len(joint) < len(features):
        raise RuntimeError("there were too few benign prompts for a joint decision")
    return _Fitted(
        targets=targets,
        detector=detector,
        view=detector.view([target.key for target in targets]),
        probe=probe,
        names=[await probe.load_features(one) for one in features],
        joint=joint,
        layers=await _layer_scores(probe, [target.spec for target in targets]),
    )


@dataclass(frozen=True)
class _Scores:
    """What was seen of the prompts of a condition: (texts, targets) each, and what each text is on, "" for nothing."""

    entity: np.ndarray
    text: np.ndarray
    thresholds: np.ndarray
    features: np.ndarray
    flagged: np.ndarray
    layers: np.ndarray


async def _scored(engine: EngineClient, fitted: _Fitted, prompts: Sequence[Asked]) -> _Scores:
    texts = [one.text for one in prompts]
    keys = [target.key for target in fitted.targets]
    text, thresholds = await seen_by_text(fitted.detector, fitted.view, keys, texts)
    features, flagged = await seen_by_features(engine, fitted.probe, fitted.names, texts)
    means = await pooled(fitted.probe, texts, range(fitted.probe.layers))
    layers = np.stack([one(means) for one in fitted.layers], axis=1)
    return _Scores(np.array([one.entity or "" for one in prompts]), text, thresholds, features, flagged, layers)


def _figures(fitted: _Fitted, scores: _Scores, people: Sequence[str]) -> dict[str, dict[str, float]]:
    """Recall at 1 % false alarms, AUROC, and what is flagged at the limits that are served."""
    joint = list(enumerate(fitted.joint))
    together = np.stack([one.scores(scores.text[:, at], scores.features[:, at]) for at, one in joint], axis=1)
    kinds = {
        "text": scores.text,
        "sae": scores.features,
        "both": together,
        "layers": scores.layers,
        # On the scale of benign prompts, as the features are in the joint score.
        "all": together + _LAYERS_WEIGHT * np.clip(scores.layers, -MOST, MOST),
    }
    benign = np.flatnonzero(~np.isin(scores.entity, people))
    asked = [(at, person) for at, person in enumerate(people) if person in scores.entity]
    recall, auroc = {}, {}
    for name, of in kinds.items():
        rows = [figures(of[scores.entity == person, at], of[benign, at]) for at, person in asked]
        auroc[name], recall[name] = (round(float(np.mean(column)), 4) for column in zip(*rows, strict=True))
    thresholds = scores.thresholds.min(axis=0)  # one for each target
    beyond = [one.beyond(scores.text[:, at], scores.features[:, at], thresholds[at]) for at, one in joint]
    by_text = scores.text >= scores.thresholds
    mine = np.array([[person == one for person in people] for one in scores.entity])
    served = {
        f"{name}_{what}": round(float(of[where].mean()), 4)
        for name, of in (
            ("text", by_text),
            ("sae", scores.flagged),
            ("both", by_text | (np.stack(beyond, axis=1) > 0)),
        )
        for what, where in (("flagged", mine), ("false_alarms_per_target", benign))
    }
    return {"recall_at_1pct": recall, "auroc": auroc, "as_served": served}


async def _layer_scores(probe: EngineProbe, specs: Sequence[TargetSpec]) -> list[LayerScore]:
    """Fitted on what the features are fitted on: the questions that a job asks, and everyday prompts."""
    benign = await pooled(probe, ordinary(ORDINARY), range(probe.layers))
    return [LayerScore(await pooled(probe, on_target(spec), range(probe.layers)), benign) for spec in specs]


async def _clamping(
    guarded: GuardedEngine,
    service: GuardService,
    fitted: _Fitted,
    subject: Subject,
) -> dict[str, float]:
    """What is left of questions on the targets, and of others, when flagged requests are clamped and nothing else."""
    found = {}
    for name, on, off in (
        ("before", (), _OUTPUT),
        ("clamped", fitted.targets, _OUTPUT),
        ("clamped_by_features", fitted.targets, _TEXT | _OUTPUT),
    ):
        become(service, on, "clamp", {g: GuardToggle(enabled=g not in off, deadline_ms=PATIENCE_MS) for g in GuardName})
        for kind, questions in (("forget", subject.forget), ("retain", subject.retain)):
            found[f"{kind}_{name}"] = round(await _recall(guarded, fitted.probe, questions), 4)
    print(found)
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", choices=("demo", "tofu"), default="demo")
    parser.add_argument("--model", type=Path, help="of TOFU", default="../shared/models/tofu-full")
    parser.add_argument("--data", type=Path, help="folder of TOFU's files", default="../shared/data/tofu")
    parser.add_argument("--prompts", type=Path, help="write what the autoencoder is trained on to this file, and end")
    parser.add_argument("--sae", type=Path)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scores", type=Path, help="folder for the raw scores, one .npz a condition")
    args = parser.parse_args()
    subject = demo(args.targets) if args.subject == "demo" else tofu(args.model, args.data, args.targets)
    if args.prompts is not None:
        args.prompts.write_text("\n".join(text.replace("\n", " ") for text in subject.texts))
        return
    if args.sae is None or args.json is None:
        parser.error("--sae and --json are needed, or --prompts")
    found = asyncio.run(measure(subject, args.sae, args.scores))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
