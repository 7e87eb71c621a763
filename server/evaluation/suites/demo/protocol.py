"""The whole measurement on the demo world: what is missing is asked of a server, then the figures are worked out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from server.demo.recipe import Recipe
from server.demo.world import Entity
from server.evaluation.admin import Endpoint
from server.evaluation.suites.asking import connect, key_of
from server.evaluation.suites.demo.methods import METHODS, SEQUENTIAL, Registrar, registrar, target_of
from server.evaluation.suites.demo.questions import Asked, of_each, people, questions, without
from server.evaluation.suites.demo.report import figures
from server.evaluation.tofu.methods import NONE
from server.evaluation.tofu.rows import Rows, method_key, model_key

#: As many tokens as the longest answer of the demo world has.
_TOKENS = 96
#: How many people the demo world has to forget.
TARGETS = 10
#: Forgetting one after the other, it is measured after so many.
_STEPS = (1, 5, 10, 20, 40)
_KEPT = 12  # prompts of each form and kind on everybody else then

Progress = Callable[[str, int, int], None]
Serve = Callable[[], AbstractContextManager[Endpoint]]


@dataclass(frozen=True, slots=True)
class Stage:
    """So many targets are in force, and something is asked with some methods.

    Attributes:
        targets: who is forgotten by now.
        asked: what is asked, by method.
    """

    targets: tuple[Entity, ...]
    asked: Mapping[str, Sequence[Asked]]


def evaluate(
    recipe: Recipe,
    serve: Serve,
    work: Path,
    *,
    place: str = "",
    methods: Sequence[str] = tuple(METHODS),
    sequential: int = 0,
    limit: int | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure what methods leave of the ten people of the demo world that are to be forgotten, and of all else.

    Targets are registered, fitted and switched on one after the other. Every answer is kept at once, so a run that is
    broken off costs nothing.

    Args:
        recipe: of the demo model that is served.
        serve: gives a server of it for as long as the block lasts; called only if something is missing.
        work: where answers are kept, by model, method, targets and state of the code that guards.
        place: the URL of a server that runs already; empty for one that ``serve`` starts.
        methods: of :data:`server.evaluation.suites.demo.methods.METHODS`; the untouched model is measured in any case.
        sequential: forget up to so many people and measure on the way, with those methods of
            :data:`server.evaluation.suites.demo.methods.SEQUENTIAL` that are among ``methods``; 0 for not.
        limit: at most so many prompts of each part, form and kind; those on the way are few anyway.
        progress: told how far it is.

    Returns:
        ``{"methods": {name: figures}, "sequential": {name: {number of targets: figures}}, "settings": {...}}`` with
        the figures of :func:`server.evaluation.suites.demo.report.figures`. Beside them ``retain_drop`` and
        ``general_drop`` say by how much recall is below the untouched model's.

    Raises:
        OSError: the work folder cannot be written.
        ValueError: there are not so many people.
        ServedError, httpx.HTTPError: the server does not answer as it should.
    """
    chosen = tuple(dict.fromkeys((NONE, *methods)))
    everybody = people(recipe.world, max(TARGETS, sequential))
    asked = questions(recipe, everybody[:TARGETS], limit)
    stages = {TARGETS: Stage(everybody[:TARGETS], dict.fromkeys(chosen, asked))}
    steps: dict[int, Stage] = {}
    if sequential:
        kept = without(everybody, questions(recipe, everybody, _KEPT))
        followed = (NONE, *(method for method in chosen if method in SEQUENTIAL))
        for step in sorted({sequential, *(step for step in _STEPS if step < sequential)}):
            own = (*of_each(recipe, everybody[:step]), *kept)
            steps[step] = Stage(everybody[:step], dict.fromkeys(followed, own))
    home = work / model_key(recipe.folder, place)
    plan = [(stage, _rows(home, stage)) for stage in (*stages.values(), *steps.values())]
    if any(rows[method].missing(_asks(stage.asked[method])) for stage, rows in plan for method in rows):
        with serve() as endpoint, registrar(endpoint, chosen) as told:
            for stage, rows in sorted(plan, key=lambda pair: len(pair[0].targets)):
                told.forget(stage.targets, progress)
                asyncio.run(_measure(endpoint, told, stage, rows, progress))
    (whole, rows), *later = plan
    found = {method: figures(recipe.world, whole.asked[method], rows[method].said) for method in chosen}
    return {
        "methods": {method: {**one, **_drops(one, found[NONE])} for method, one in found.items()},
        "sequential": {
            method: {
                len(stage.targets): figures(recipe.world, stage.asked[method], rows[method].said)
                for stage, rows in later
            }
            for method in (later[0][0].asked if later else ())
        },
        "settings": {
            "model": str(recipe.folder),
            "seed": recipe.seed,
            "limit": limit,
            "targets": [target.name for target in everybody],
            "max_tokens": _TOKENS,
            "lethe": version("lethe"),
        },
    }


def _rows(home: Path, stage: Stage) -> dict[str, Rows]:
    """Where the answers of a stage are, by method; the untouched model's are the same at every stage."""
    bodies = [target_of(target) for target in stage.targets]
    keys = {method: method_key([] if method == NONE else bodies, asdict(METHODS[method])) for method in stage.asked}
    return {method: Rows(home / f"{method}-{key}.jsonl") for method, key in keys.items()}


def _asks(asked: Sequence[Asked]) -> list[tuple[str, None]]:
    return [(key_of(one.prompt.messages), None) for one in asked]


async def _measure(
    endpoint: Endpoint, told: Registrar, stage: Stage, rows: Mapping[str, Rows], progress: Progress
) -> None:
    async with connect(endpoint.url, told.keys[NONE]) as asker:
        for method, asked in stage.asked.items():
            conversations = {key_of(one.prompt.messages): one.prompt.messages for one in asked}
            missing = {key: conversations[key] for key, _ in rows[method].missing(_asks(asked))}
            keep = _keeper(rows[method], f"{len(stage.targets)} targets, {method}", len(missing), progress)
            await asker.of(told.keys[method]).answer_all(missing, _TOKENS, keep)


def _keeper(rows: Rows, label: str, total: int, progress: Progress) -> Callable[[str, str], None]:
    """Keeps answers as they come, and tells how many there are by then."""
    numbers = count(1)

    def keep(key: str, answer: str) -> None:
        rows.add((key, None), answer)
        progress(label, next(numbers), total)

    return keep


def _drops(found: Mapping[str, Any], untouched: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{part}_drop": round(untouched[part]["recall"] - found[part]["recall"], 4) for part in ("retain", "general")
    }
