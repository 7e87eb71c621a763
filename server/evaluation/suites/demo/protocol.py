"""The whole measurement on the demo world: what is missing is asked of a server, then the figures are worked out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from server.demo.recipe import Recipe
from server.evaluation.admin import Endpoint
from server.evaluation.suites.asking import behind, connect, key_of
from server.evaluation.suites.demo.methods import METHODS, REFERENCE, Told, registrar
from server.evaluation.suites.demo.questions import Asked, Part, people, questions
from server.evaluation.suites.demo.report import figures, relearn, written
from server.evaluation.suites.demo.stages import TARGETS, Stage, asks, incomplete, rows_of, steps
from server.evaluation.tofu import client
from server.evaluation.tofu.methods import NONE, system_message
from server.evaluation.tofu.protocol import end_token
from server.evaluation.tofu.rows import Ask, Rows, model_key

#: As many tokens as the longest answer of the demo world has.
_TOKENS = 96
#: How many of the first targets are looked at again at every later stage.
_EARLIEST = 5

Progress = Callable[[str, int, int], None]
Serve = Callable[[], AbstractContextManager[Endpoint]]


def evaluate(
    recipe: Recipe,
    serve: Serve,
    work: Path,
    *,
    place: str = "",
    reference: Serve | None = None,
    methods: Sequence[str] = tuple(METHODS),
    told: Told = Told.DOCUMENT,
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
        reference: gives a server of the same model trained without these people, the floor of forgetting; None: it is
            not measured.
        methods: of :data:`server.evaluation.suites.demo.methods.METHODS`; the untouched model is measured in any case.
        told: what the server is told of each target.
        sequential: forget up to so many people and measure on the way, with those methods of
            :data:`server.evaluation.suites.demo.methods.SEQUENTIAL` that are among ``methods``; 0 for not.
        limit: at most so many prompts of each part, form and kind; those on the way are few anyway.
        progress: told how far it is.

    Returns:
        ``{"methods": {name: figures}, "sequential": {name: {number of targets: figures}}, "settings": {...}}`` with
        the figures of :func:`server.evaluation.suites.demo.report.figures`; the reference is among the methods. Beside
        them ``retain_drop`` and ``general_drop`` say by how much recall is below the untouched model's. On the way,
        ``earliest`` has the figures on the first targets alone, those that could have come back.

    Raises:
        OSError: the work folder cannot be written.
        ValueError: there are not so many people.
        ServedError, httpx.HTTPError: the server does not answer as it should.
    """
    chosen = tuple(dict.fromkeys((NONE, *methods)))
    everybody = people(recipe.world, max(TARGETS, sequential))
    asked = questions(recipe, everybody[:TARGETS], limit)
    whole = Stage(everybody[:TARGETS], dict.fromkeys(chosen, asked))
    plan = [whole, *steps(recipe, everybody, chosen, sequential)]
    home = work / model_key(recipe.folder, place)
    rows = rows_of(home, plan, told)
    judge, model = rows[0][NONE], recipe.folder
    said = {method: one.said for method, one in rows[0].items()}

    if reference is not None:
        model_without = replace(recipe, without_forget=True).folder
        floor = Stage((), {NONE: asked})
        (never_knew,) = rows_of(work / model_key(model_without), [floor], told)
        if incomplete(floor, never_knew):
            with reference() as endpoint, registrar(endpoint, [NONE], told) as server:
                asyncio.run(_measure(endpoint, server.keys, floor, never_knew, progress, "reference: "))
        said[REFERENCE] = never_knew[NONE].said
    if any(map(incomplete, plan, rows)) or judge.missing(_written(asked, said.values())):
        with serve() as endpoint, registrar(endpoint, chosen, told) as server:
            for stage, own in sorted(zip(plan, rows, strict=True), key=lambda pair: len(pair[0].targets)):
                server.forget(stage.targets, progress)
                label = f"{len(stage.targets)} targets, "
                asyncio.run(_measure(endpoint, server.keys, stage, own, progress, label))
            pairs = _written(asked, said.values())
            asyncio.run(_score(endpoint, server.keys[NONE], model, judge, pairs, progress))
    found = {method: figures(recipe.world, asked, answers) for method, answers in said.items()}
    return {
        "methods": {
            method: {**one, **_drops(one, found[NONE]), **relearn(asked, said[method], judge.nll)}
            for method, one in found.items()
        },
        "sequential": _on_the_way(recipe, plan[1:], rows[1:]),
        "settings": {
            "model": str(model),
            "seed": recipe.seed,
            "told": told.value,
            "limit": limit,
            "targets": [target.name for target in everybody],
            "max_tokens": _TOKENS,
            "lethe": version("lethe"),
        },
    }


def _on_the_way(
    recipe: Recipe, stages: Sequence[Stage], rows: Sequence[Mapping[str, Rows]]
) -> dict[str, dict[int, Any]]:
    found: dict[str, dict[int, Any]] = {}
    for stage, own in zip(stages, rows, strict=True):
        first = {target.name for target in stage.targets[:_EARLIEST]}
        for method, asked in stage.asked.items():
            earliest = [one for one in asked if one.prompt.entity in first]
            found.setdefault(method, {})[len(stage.targets)] = {
                **figures(recipe.world, asked, own[method].said),
                "earliest": figures(recipe.world, earliest, own[method].said)[Part.FORGET],
            }
    return found


async def _measure(
    endpoint: Endpoint,
    keys: Mapping[str, str],
    stage: Stage,
    rows: Mapping[str, Rows],
    progress: Progress,
    label: str,
) -> None:
    async with connect(endpoint.url, keys[NONE]) as asker:
        for method, asked in stage.asked.items():
            conversations = {key_of(one.prompt.messages): one.prompt.messages for one in asked}
            missing = {key: conversations[key] for key, _ in rows[method].missing(asks(asked))}
            if METHODS[method].system:
                forbids = system_message(target.name for target in stage.targets)
                missing = {key: tuple(behind(forbids, messages)) for key, messages in missing.items()}
            keep = _keeper(rows[method], f"{label}{method}", len(missing), progress)
            await asker.of(keys[method]).answer_all(missing, _TOKENS, keep)


def _written(asked: Sequence[Asked], said: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
    """The answers so far whose likelihood under the untouched model is wanted, each with a question."""
    return list(dict.fromkeys(pair for answers in said for pair in written(asked, answers)))


async def _score(
    endpoint: Endpoint, key: str, model: Path, judge: Rows, pairs: Sequence[Ask], progress: Progress
) -> None:
    missing = judge.missing(pairs)
    numbers = count(1)

    def keep(ask: Ask, value: str | float) -> None:
        judge.add(ask, value)
        progress("perplexity", next(numbers), len(missing))

    async with client.connect(endpoint.url, key, end_token(model)) as served:
        await served.measure(key, missing, keep)


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
