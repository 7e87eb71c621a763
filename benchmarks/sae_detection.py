"""What text and sparse features find of targets, alone and together, and what clamping alone makes a model forget.

    python benchmarks/sae_detection.py --subject demo --prompts FILE
    lethe sae train MODEL --layer 2 --width 2048 --prompts FILE --output DIR     # MODEL: lethe demo-model build
    python benchmarks/sae_detection.py --subject demo --sae DIR [--targets 10] --json FILE

What is asked in which condition is in ``sae_subjects.py``. Every prompt goes through the engine with all targets
watched, as a tenant's would. Figures are means over the targets: each target's prompts in a condition against prompts
of the same forms about others and everyday prompts. "Both" is the joint score that is served, fitted with the target
and on none of these prompts; the weight of the features in it was chosen on those of the demo model, though, and so was
the rule that at their median the text decides. "Layers" is O3's score (``layer_scores.py``), "all" is the joint score
with it, which is not served. ``as_served`` is what is flagged at the limits of each. Clamping is
measured behind the door, once with the text's detectors on and once without; no guard of the output is on. Of TOFU's
answers ROUGE-L recall is measured, which is not nought for a model that never learnt them (see ``tofu.json``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from engines import become, lethe_engine
from layer_scores import LayerScore, pooled
from sae_subjects import CONDITIONS, Marked, Subject, demo, tofu
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
from sae_features.joint import MOST, WEIGHT
from sae_features.loading import load
from sae_features.target import TargetFeatures

_TEXT = {GuardName.LEXICON, GuardName.SEMANTIC}
_OUTPUT = {GuardName.LEAK, GuardName.STATEMENTS}


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


async def measure(subject: Subject, sae: Path, kept: Path | None) -> dict[str, Any]:
    """Everything."""
    flags = ("--max-model-len", "512", "--dtype", "float32")
    with TemporaryDirectory() as folder:
        service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
        try:
            async with lethe_engine(subject.model, *flags) as engine:
                guarded = GuardedEngine(engine, service, load(sae))
                return await _measured(engine, guarded, service, subject, kept)
        finally:
            service.close()


async def _measured(
    engine: EngineClient,
    guarded: GuardedEngine,
    service: GuardService,
    subject: Subject,
    raw: Path | None,
) -> dict[str, Any]:
    people = list(subject.specs)
    targets = service.registry.write(lambda writer: [writer.create_target(spec) for spec in subject.specs.values()])
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
    layers = await _layer_scores(probe, [target.spec for target in targets])
    names = [await probe.load_features(one) for one in features]
    joint = [one.joint for one in features if one.joint is not None]
    if len(joint) < len(features):
        raise RuntimeError("there were too few benign prompts for a joint decision")

    auroc: dict[str, dict[str, float]] = {}
    recall: dict[str, dict[str, float]] = {}
    served: dict[str, dict[str, float]] = {}
    for condition in CONDITIONS:
        prompts = subject.asked[condition]
        texts = [one.text for one in prompts]
        entity = np.array([one.entity or "" for one in prompts])
        text, thresholds = await seen_by_text(detector, view, keys, texts)
        by_text = text >= thresholds
        margin, flagged = await seen_by_features(engine, probe, names, texts)
        together = np.stack([one.scores(text[:, at], margin[:, at]) for at, one in enumerate(joint)], axis=1)
        seen = await pooled(probe, texts, range(probe.layers))
        by_layers = np.stack([one(seen) for one in layers], axis=1)
        # On the scale of benign prompts, as the features are in the joint score, and with their weight.
        everything = together + WEIGHT * np.clip(by_layers, -MOST, MOST)
        bars = [thresholds[:, at].min() for at in range(len(targets))]  # one for each target
        beyond = [one.beyond(text[:, at], margin[:, at], bars[at]) for at, one in enumerate(joint)]
        jointly = np.stack(beyond, axis=1) > 0
        benign = np.flatnonzero(~np.isin(entity, people))
        if raw is not None:
            raw.mkdir(parents=True, exist_ok=True)
            numbers = np.array([one.numbers() for one in joint])
            np.savez(
                raw / f"{condition}.npz",
                text=text,
                sae=margin,
                layers=by_layers,
                entity=entity,
                bars=bars,
                joint=numbers,
            )
        scores = {"text": text, "sae": margin, "both": together, "layers": by_layers, "all": everything}
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in scores}
        for at, person in enumerate(people):
            own = np.flatnonzero(entity == person)
            for name, score in scores.items():
                rows[name].append(figures(score[own, at], score[benign, at]))
        auroc[condition] = {name: round(float(np.mean([a for a, _ in some])), 4) for name, some in rows.items()}
        recall[condition] = {name: round(float(np.mean([r for _, r in some])), 4) for name, some in rows.items()}
        mine = np.array([[person == one for person in people] for one in entity])
        served[condition] = {
            f"{name}_{what}": round(float(of[where].mean()), 4)
            for name, of in (("text", by_text), ("sae", flagged), ("both", by_text | jointly))
            for what, where in (("flagged", mine), ("false_alarms_per_target", benign))
        }
        print(condition, "auroc", auroc[condition], "recall", recall[condition], served[condition], flush=True)

    clamping = await _clamping(guarded, service, probe, subject, targets)
    return {"recall_at_1pct": recall, "auroc": auroc, "as_served": served, "clamp": clamping}


async def _layer_scores(probe: EngineProbe, specs: Sequence[TargetSpec]) -> list[LayerScore]:
    """Fitted on what the features are fitted on: the questions that a job asks, and everyday prompts."""
    benign = await pooled(probe, ordinary(ORDINARY), range(probe.layers))
    return [LayerScore(await pooled(probe, on_target(spec), range(probe.layers)), benign) for spec in specs]


async def _clamping(
    guarded: GuardedEngine,
    service: GuardService,
    probe: EngineProbe,
    subject: Subject,
    targets: Sequence[ForgetTarget],
) -> dict[str, float]:
    """What is left of questions on the targets, and of others, when flagged requests are clamped and nothing else."""
    found = {}
    for name, on, off in (
        ("before", (), _OUTPUT),
        ("clamped", targets, _OUTPUT),
        ("clamped_by_features", targets, _TEXT | _OUTPUT),
    ):
        become(service, on, "clamp", {g: GuardToggle(enabled=g not in off, deadline_ms=600_000) for g in GuardName})
        for kind, questions in (("forget", subject.forget), ("retain", subject.retain)):
            found[f"{kind}_{name}"] = round(await _recall(guarded, probe, questions), 4)
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
