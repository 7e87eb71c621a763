"""The head's trees, compared all at once, say what a walk through them says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from classifiers.features import FEATURES
from classifiers.head import _PATH, Head, shipped


def _walked(model: dict, row: np.ndarray) -> float:
    """The sum of the trees for one row, by following each from its root."""
    total = model["intercept"]
    for tree in model["trees"]:
        node = 0
        while tree["left"][node] != node:
            goes_left = row[tree["feature"][node]] <= tree["threshold"][node]
            node = tree["left" if goes_left else "right"][node]
        total += tree["value"][node]
    return total


def test_the_shipped_trees_end_in_the_leaf_that_a_walk_ends_in() -> None:
    model = json.loads(_PATH.read_text(encoding="utf-8"))
    thresholds: dict[int, set[float]] = {}
    for tree in model["trees"]:
        for feature, threshold in zip(tree["feature"], tree["threshold"], strict=True):
            thresholds.setdefault(feature, set()).add(threshold)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, len(FEATURES)))
    for feature, values in thresholds.items():  # on a threshold a row goes left, just above it right
        rows[:, feature] = rng.choice(sorted(values), 200) + rng.choice([0.0, 1e-9, -0.3], 200)
    assert shipped()._trained(rows) == pytest.approx([_walked(model, row) for row in rows], abs=1e-9)


def test_trees_of_different_shapes_stand_side_by_side() -> None:
    def tree(**nodes: list[float]) -> dict:
        return {"feature": [], "threshold": [], **nodes}

    stump = tree(feature=[1, 0, 0], threshold=[0.5, 0, 0], left=[1, 1, 2], right=[2, 1, 2], value=[0, 1, 2])
    leaf = tree(feature=[0], threshold=[0], left=[0], right=[0], value=[10])
    comb = tree(
        feature=[0, 2, 0, 0, 0],
        threshold=[0.0, 1.0, 0, 0, 0],
        left=[2, 3, 2, 3, 4],
        right=[1, 4, 2, 3, 4],
        value=[0, 0, 100, 200, 300],
    )
    model = {"features": list(FEATURES), "intercept": 0.25, "trees": [stump, leaf, comb]}
    rows = np.zeros((4, len(FEATURES)))
    rows[1, 1], rows[2, 0], rows[3, :3] = 1, 1, (1, 1, 2)
    assert Head(model)._trained(rows).tolist() == [111.25, 112.25, 211.25, 312.25]


def test_trees_that_are_leaves_alone_say_what_they_say() -> None:
    leaf = {"feature": [0], "threshold": [0.0], "left": [0], "right": [0], "value": [1.5]}
    head = Head({"features": list(FEATURES), "intercept": 0.5, "trees": [leaf, leaf]})
    assert head._trained(np.zeros((3, len(FEATURES)))).tolist() == [3.5, 3.5, 3.5]
