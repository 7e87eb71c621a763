"""The head: features of a (text, target) pair to one logit. Its trees are trained and are data, not code.

The trees know about people: they were trained on questions about people and on questions about what surrounds those
people (see :mod:`server.evaluation.train_head`), which must still be answered. Three plain rules stand beside them,
for what that training cannot show: a text that all but repeats the evidence, a description by a telling title ("the
star of 'Seven Sparrows'"), and targets that are no people, whose surroundings are not to be spared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import calibration
from classifiers.features import FEATURES

_PATH = Path(__file__).parent / "head.json"

#: The cosine from which on a text repeats the evidence, and how fast certainty grows with it (logits per unit).
_REPEATS, _REPEATS_SLOPE = 0.82, 25.0
#: A text whose runs of three words are those of one piece of evidence, so many and this share, repeats it: the logit.
_COPIED, _COPIED_SHARE, _COPIED_LOGIT = 8, 0.95, 2.0
#: The information of a title, in tens of nats, by which a description identifies a person.
_TELLING, _TELLING_SLOPE = 1.1, 2.0
#: For targets that are no people: the cosine that speaks of them, at least so far above what benign text reaches.
_TOPIC, _TOPIC_MARGIN, _TOPIC_SLOPE = 0.45, 0.12, 14.0
#: What a title or rare word of such a target adds: logits for each ten nats, up to a most.
_TOPIC_TITLE, _TOPIC_TITLE_MOST = 0.7, 2.0


class Head:
    """A sum of small decision trees, monotone in what can only speak for (or against) a target, beside fixed rules.

    Args:
        model: ``{"features": [...], "intercept": float, "trees": [...]}``, a tree being ``{"feature", "threshold",
            "left", "right", "value"}`` with one entry a node;
            node 0 is the root of a tree, and a leaf is its own left and right child.

    Raises:
        ValueError: the model was trained on other features.
    """

    def __init__(self, model: dict) -> None:
        if tuple(model["features"]) != FEATURES:
            raise ValueError("the head was trained on other features; run server.evaluation.train_head")
        trees = [_Scored.of(tree) for tree in model["trees"]]
        nodes, leaves = max(len(tree.features) for tree in trees), max(len(tree.values) for tree in trees)
        # A node that is only padding rules nothing out.
        self._feature = np.array([_padded(tree.features, nodes) for tree in trees], np.intp)
        self._threshold = np.array([_padded(tree.thresholds, nodes) for tree in trees])
        self._ruled_out = np.array(
            [_padded(tree.ruled_out, nodes) for tree in trees], np.min_scalar_type(2**leaves - 1)
        )
        self._value = np.array([_padded(tree.values, leaves) for tree in trees])
        self._intercept = float(model["intercept"])
        self.fingerprint = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:16]

    def logits(self, features: np.ndarray, persons: np.ndarray, others: np.ndarray | bool = False) -> np.ndarray:
        """Score pairs.

        Args:
            features: float64 ``(n, len(FEATURES))``.
            persons: bool ``(n,)``, whether the target of each pair is a person.
            others: bool ``(n,)``, whether the text has other names where the evidence has its own; then it is no proof
                that the two are alike.

        Returns:
            float64 ``(n,)``; positive where the text more likely than not speaks of the target.
        """
        column = dict(zip(FEATURES, features.T, strict=True))
        cosine = column["cosine"]
        repeats = _REPEATS_SLOPE * (cosine - _REPEATS)
        told = np.where(column["described_title"] > 0, _TELLING_SLOPE * (column["described_title"] - _TELLING), -np.inf)
        bar = np.maximum(_TOPIC, cosine - column["margin"] + _TOPIC_MARGIN)
        copied = (column["verbatim"] >= _COPIED) & (column["verbatim_share"] >= _COPIED_SHARE)
        repeats = np.maximum(repeats, np.where(copied, _COPIED_LOGIT, -np.inf))
        topic = _TOPIC_SLOPE * (cosine - bar) + np.minimum(_TOPIC_TITLE_MOST, _TOPIC_TITLE * column["title"])
        topic = np.where(persons, -np.inf, topic + calibration.FLOOR)
        alike = np.where(others, -np.inf, np.maximum(repeats + calibration.FLOOR, topic))
        return np.maximum.reduce([self._trained(features), told + calibration.FLOOR, alike])

    def _trained(self, features: np.ndarray) -> np.ndarray:
        """The sum of the trees, all nodes of all of them compared at once (QuickScorer; Lucchese et al., SIGIR 2015).

        Leaves are bits, the leftmost the lowest. A node whose comparison fails rules out the leaves to its left; the
        first that is not ruled out is where the walk from the root would have ended.
        """
        right = ~(features[:, self._feature] <= self._threshold)
        out = np.bitwise_or.reduce(np.where(right, self._ruled_out, 0), axis=2)
        leaf = np.log2(~out & (out + 1)).astype(np.intp)  # the lowest bit that is not set
        return self._value[np.arange(len(self._value)), leaf].sum(axis=1) + self._intercept


@dataclass(frozen=True, slots=True)
class _Scored:
    """A tree for :meth:`Head._trained`: its nodes in any order, its leaves from left to right.

    Attributes:
        features, thresholds: of each node.
        ruled_out: of each node, the leaves to its left, as bits.
        values: of each leaf.
    """

    features: list[int]
    thresholds: list[float]
    ruled_out: list[int]
    values: list[float]

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> _Scored:
        """A tree as the file has it."""
        scored = cls([], [], [], [])

        def walk(node: int) -> None:
            if tree["left"][node] == node:
                scored.values.append(tree["value"][node])
                return
            first = len(scored.values)
            walk(tree["left"][node])
            scored.features.append(tree["feature"][node])
            scored.thresholds.append(tree["threshold"][node])
            scored.ruled_out.append(2 ** len(scored.values) - 2**first)
            walk(tree["right"][node])

        walk(0)
        return scored


@lru_cache(maxsize=1)
def shipped() -> Head:
    """The head that comes with the package."""
    return Head(json.loads(_PATH.read_text(encoding="utf-8")))


def _padded(values: Sequence[float], size: int) -> list[float]:
    return [*values, *[0] * (size - len(values))]
