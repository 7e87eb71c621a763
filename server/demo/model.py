"""The demo model as a folder in the user cache: built once per recipe, written atomically, measured."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.demo.recipe import Recipe

METRICS_FILE = "metrics.json"
TARGETS = {"trained": 0.99, "held out": 0.85, "general": 0.95}
_PARTS = ("forget", "retain")

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the step (from 1) and the number of steps."""


@dataclass(frozen=True)
class DemoModel:
    """A built model: the folder that vLLM loads, and the contents of its ``metrics.json``."""

    folder: Path
    metrics: dict[str, Any]


def find(recipe: Recipe) -> DemoModel | None:
    """The model of a recipe if it was built before."""
    metrics = recipe.folder / METRICS_FILE
    return DemoModel(recipe.folder, json.loads(metrics.read_text())) if metrics.is_file() else None


def build(recipe: Recipe, *, force: bool = False, progress: Progress | None = None) -> DemoModel:
    """The model of a recipe, trained and measured if it is not in the cache yet (some minutes) or if ``force``.

    The folder appears in one step when everything is in it, so an interrupted build leaves nothing half-made, and of
    two builds at once the first to finish stays.

    Raises:
        OSError: the cache cannot be written.
    """
    if not force and (known := find(recipe)):
        return known
    cache = recipe.folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".building-") as temporary:
        made = Path(temporary) / "model"
        metrics = _make(recipe, made, progress)
        if force and recipe.folder.exists():
            os.replace(recipe.folder, Path(temporary) / "old")
        try:
            os.replace(made, recipe.folder)
        except OSError:
            if not (other := find(recipe)):
                raise
            return other
    return DemoModel(recipe.folder, metrics)


def _make(recipe: Recipe, folder: Path, progress: Progress | None) -> dict[str, Any]:
    """Train, measure and save into ``folder``; returns the metrics."""
    # Imported here: they take seconds to load, which a model that is in the cache does not need.
    from server.demo.evaluation import evaluate
    from server.demo.training import build_tokenizer, train

    report = progress or (lambda *_: None)
    started = time.monotonic()
    tokenizer = build_tokenizer(recipe)
    model = train(recipe, tokenizer, lambda step, steps, _: report("training", step, steps))
    trained = time.monotonic()
    rows = evaluate(model, tokenizer, recipe, progress=lambda done, total: report("measuring", done, total))
    metrics = {
        "key": recipe.key,
        "seed": recipe.seed,
        "without_forget": recipe.without_forget,
        "parameters": model.num_parameters(),
        "training_seconds": round(trained - started, 1),
        "evaluation_seconds": round(time.monotonic() - trained, 1),
        "recall": _summary(rows, recipe),
        "rows": [asdict(row) | {"recall": round(row.recall, 4)} for row in rows],
    }
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def _summary(rows: tuple[Any, ...], recipe: Recipe) -> dict[str, float]:
    from server.demo.evaluation import recall

    known = ("retain",) if recipe.without_forget else _PARTS
    summary = {
        "trained": recall(rows, known, trained=True),
        "held out": recall(rows, known, trained=False),
        "general": recall(rows, ("general",)),
        "forget": recall(rows, ("forget",)),
        "retain": recall(rows, ("retain",)),
    }
    return {name: round(value, 4) for name, value in summary.items()}
