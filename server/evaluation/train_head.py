"""Training of ``classifiers/head.json``: which features tell a text about a target from one that is not.

``python -m server.evaluation.train_head DATA_DIR [--write]`` trains on an RWKU folder and the benign sets beside it,
prints the figures of a cross-validation in which neither the people nor the rows of a fold were trained on, and with
``--write`` replaces the shipped head by one trained on all. No row of the data enters the repository.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from classifiers import calibration, head
from classifiers.bank import BenignBank
from classifiers.detector import TextDetector
from classifiers.features import FEATURES
from classifiers.head import Head
from classifiers.normalise import plain
from classifiers.phrase_index import PhraseIndex
from classifiers.windows import split
from server.evaluation.rwku import Row, load_people, load_rows

FOLDS = 6
#: Features that can only speak for a target (1) or against it (-1).
_MONOTONE = {
    **dict.fromkeys(
        (
            "alone", "rarity", "usage", "given", "blank", "uncased", "uncased_usage", "terms", "title", "numbers",
            "described", "described_title", "cosine", "margin", "coverage", "matched", "sentence_coverage",
            "verbatim", "verbatim_share",
        ),
        1,
    ),
    "unexplained": -1,
}  # fmt: skip
#: Weight of rows whose answer is the target itself: they look like questions about a neighbour ("Who directed ...?"),
#: and the leak guard stops their answer anyway.
_ANSWERED_WEIGHT = 0.05
_BENIGN_WEIGHT = 3.0
#: A neighbour row that uses the name of the target is no example of a text that does not speak of it.
_NAMES_IT = 0.6


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled (text, target) pairs.

    Attributes:
        features: float64 ``(pairs, len(FEATURES))``.
        label: whether the text speaks of the target.
        row: index of the row a pair comes from.
        person: index of the target.
        named: whether the text names the target, which settles it.
    """

    features: np.ndarray
    label: np.ndarray
    row: np.ndarray
    person: np.ndarray
    named: np.ndarray


def constant_head() -> Head:
    """A head that gives every pair the logit 0; detectors need some head while there is none."""
    leaf = {"feature": [0], "threshold": [0.0], "left": [0], "right": [0], "value": [0.0]}
    return Head({"features": list(FEATURES), "intercept": 0.0, "trees": [leaf]})


def gather(detector: TextDetector, keys: Sequence[str], rows: Sequence[Row]) -> Examples:
    """Compare every row with the targets ``keys`` that it may speak of, and with its own person."""
    view = detector.view(keys)
    number = {key: index for index, key in enumerate(keys)}
    encode = detector._encoder.encode
    features, label, row_of, person, named = [], [], [], [], []
    for start in range(0, len(rows), 64):
        batch = rows[start : start + 64]
        windows = [split([plain(row.prompt)]) for row in batch]
        vectors = encode([passage for found in windows for window in found for passage in window.passages])
        offset = 0
        for index, (row, found) in enumerate(zip(batch, windows, strict=True), start):
            size = sum(len(window.passages) for window in found)
            by_phrase = {slot for slot, _ in detector._lexicon.named(row.prompt, view.names)}
            for pair in detector.pairs(found, vectors[offset : offset + size], view):
                key = pair.slot.target.key
                features.append(pair.features)
                label.append(row.group.startswith("forget") and key == row.person)
                row_of.append(index)
                person.append(number[key])
                named.append(pair.named or pair.slot.number in by_phrase)
            offset += size
    return Examples(*map(np.array, (features, label, row_of, person, named)))


def fit(examples: Examples, keep: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Train on the pairs ``keep``; returns the model as :class:`Head` takes it."""
    booster = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.05,
        max_leaf_nodes=12,
        max_features=0.4,
        min_samples_leaf=40,
        l2_regularization=1.0,
        random_state=0,
        monotonic_cst=[_MONOTONE.get(name, 0) for name in FEATURES],
    )
    booster.fit(examples.features[keep], examples.label[keep], sample_weight=weights[keep])
    return {
        "features": list(FEATURES),
        "intercept": round(float(booster._baseline_prediction.item()), 5),
        "trees": [_tree(predictors[0].nodes) for predictors in booster._predictors],
    }


def _tree(nodes: np.ndarray) -> dict[str, Any]:
    leaf = nodes["is_leaf"].astype(bool)
    own = np.arange(len(nodes))
    return {
        "feature": np.where(leaf, 0, nodes["feature_idx"]).tolist(),
        "threshold": [round(float(value), 5) for value in np.where(leaf, 0.0, nodes["num_threshold"])],
        "left": np.where(leaf, own, nodes["left"]).tolist(),
        "right": np.where(leaf, own, nodes["right"]).tolist(),
        "value": [round(float(value), 5) for value in np.where(leaf, nodes["value"], 0.0)],
    }


def training_weights(examples: Examples, rows: Sequence[Row], answered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs to learn from, and how much each counts."""
    group = np.array([row.group.split("/")[0] for row in rows])[examples.row]
    alone = examples.features[:, FEATURES.index("alone")]
    keep = ~examples.named
    keep &= ~((group == "neighbor") & (alone >= _NAMES_IT))
    keep &= ~((group == "forget") & ~examples.label)
    weights = np.where(group == "benign", _BENIGN_WEIGHT, 1.0)
    weights[(group == "forget") & answered[examples.row]] *= _ANSWERED_WEIGHT
    return keep, weights


def main(arguments: Sequence[str]) -> int:
    """See the module's text."""
    people = load_people(Path(arguments[0]))
    rows = load_rows(Path(arguments[0]), people)
    keys = list(people)
    detector = TextDetector(head=constant_head())
    compiled = [detector.compile(profile) for profile in people.values()]
    phrases = PhraseIndex()
    for target in compiled:
        detector.add(target)
        phrases.add(target.key, target.phrases)
    examples = gather(detector, keys, rows)
    answered = np.array(
        [
            any(phrases.find(a, {row.person} if row.group.startswith("forget") else keys) for a in row.answers[:1])
            for row in rows
        ]
    )
    keep, weights = training_weights(examples, rows, answered)
    person_fold = np.random.default_rng(0).permutation(len(keys)) % FOLDS
    benign_fold = np.random.default_rng(1).integers(0, FOLDS, len(rows))
    own = np.array([keys.index(row.person) if row.person else -1 for row in rows])
    row_fold = np.where(own >= 0, person_fold[own], benign_fold)
    logits = np.zeros(len(examples.label))
    bars = np.zeros(len(examples.label))
    for fold in range(FOLDS):
        inside = (row_fold[examples.row] != fold) & (person_fold[examples.person] != fold)
        trained = Head(fit(examples, keep & inside, weights))
        test = row_fold[examples.row] == fold
        logits[test] = trained.logits(examples.features[test], np.ones(int(test.sum()), bool))
        bars[test] = _thresholds(detector.bank, compiled, trained)[examples.person[test]]
    for shift in (-1.0, -0.5, 0.0, 0.5):
        sys.stdout.write(f"{shift:+.1f} {_figures(examples, rows, own, answered, logits - bars >= shift)}\n")
    if "--write" in arguments:
        model = json.dumps(fit(examples, keep, weights), separators=(",", ":"))
        head._PATH.write_text(model + "\n", encoding="utf-8")
    detector.close()
    return 0


def _thresholds(bank: BenignBank, targets: Sequence[Any], trained: Head) -> np.ndarray:
    tails = [calibration.fit_tail(bank.logits(target, trained, bank.cosines(target.vectors))) for target in targets]
    return np.array([calibration.threshold(tail, 0.001, len(targets)) for tail in tails])


def _figures(examples: Examples, rows: Sequence[Row], own: np.ndarray, answered: np.ndarray, high: np.ndarray) -> str:
    flagged = high | examples.named
    anybody, itself = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    anybody[examples.row[flagged]] = True
    itself[examples.row[flagged & (own[examples.row] == examples.person)]] = True
    group = np.array([row.group for row in rows])
    parts = []
    for name in sorted(set(group)):
        rate = ((itself if name.startswith("forget") else anybody) | answered)[group == name].mean()
        parts.append(f"{name}={rate:.4f}")
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
