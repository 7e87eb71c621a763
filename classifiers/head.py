"""The trained head: features of a (text, target) pair to one logit. Its weights are data, not code."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from classifiers.features import FEATURES

_PATH = Path(__file__).parent / "head.json"


class Head:
    """A sum of small decision trees, monotone in what can only speak for (or against) a target.

    Args:
        model: ``{"features": [...], "intercept": float, "trees": [{"feature", "threshold", "left", "right", "value"}]}``;
            node 0 is the root of a tree, and a leaf is its own left and right child.

    Raises:
        ValueError: the model was trained on other features.
    """

    def __init__(self, model: dict) -> None:
        if tuple(model["features"]) != FEATURES:
            raise ValueError("the head was trained on other features; run classifiers.training")
        trees = model["trees"]
        size = max(len(tree["value"]) for tree in trees)
        self._depth = max(tree["depth"] for tree in trees)
        self._rows = np.arange(len(trees))
        self._feature, self._left, self._right = (
            np.array([_padded(tree[name], size) for tree in trees], np.intp) for name in ("feature", "left", "right")
        )
        self._threshold, self._value = (
            np.array([_padded(tree[name], size) for tree in trees]) for name in ("threshold", "value")
        )
        self._intercept = float(model["intercept"])
        self.fingerprint = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:16]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Score pairs.

        Args:
            features: float64 ``(n, len(FEATURES))``.

        Returns:
            float64 ``(n,)``; positive where the text more likely than not speaks of the target.
        """
        pairs = np.arange(len(features))[:, None]
        node = np.zeros((len(features), len(self._rows)), np.intp)
        for _ in range(self._depth):
            goes_left = features[pairs, self._feature[self._rows, node]] <= self._threshold[self._rows, node]
            node = np.where(goes_left, self._left[self._rows, node], self._right[self._rows, node])
        return self._value[self._rows, node].sum(axis=1) + self._intercept


@lru_cache(maxsize=1)
def shipped() -> Head:
    """The head that comes with the package."""
    return Head(json.loads(_PATH.read_text(encoding="utf-8")))


def _padded(values: list[float], size: int) -> list[float]:
    return values + [0] * (size - len(values))
