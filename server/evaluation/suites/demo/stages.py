"""What is asked at which point of a measurement on the demo world, and where the answers are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from server.demo.recipe import Recipe
from server.demo.world import Entity
from server.evaluation.suites.asking import key_of
from server.evaluation.suites.demo.methods import METHODS, SEQUENTIAL, Told, target_of
from server.evaluation.suites.demo.questions import Asked, of_each, questions, without
from server.evaluation.tofu.methods import NONE
from server.evaluation.tofu.rows import Rows, method_key

#: How many people the demo world has to forget.
TARGETS = 10
#: Forgetting one after the other, it is measured after so many.
_STEPS = (1, 5, 10, 20, 40)
_KEPT = 12  # prompts of each form and kind on everybody else then


@dataclass(frozen=True, slots=True)
class Stage:
    """So many targets are in force, and something is asked with some methods.

    Attributes:
        targets: who is forgotten by now.
        asked: what is asked, by method.
    """

    targets: tuple[Entity, ...]
    asked: Mapping[str, Sequence[Asked]]


def steps(recipe: Recipe, everybody: Sequence[Entity], methods: Sequence[str], sequential: int) -> list[Stage]:
    """What is asked on the way to so many targets; none for 0."""
    if not sequential:
        return []
    kept = without(everybody, questions(recipe, everybody, _KEPT))
    followed = (NONE, *(method for method in methods if method in SEQUENTIAL))
    numbers = sorted({sequential, *(number for number in _STEPS if number < sequential)})
    return [
        Stage(tuple(everybody[:number]), dict.fromkeys(followed, (*of_each(recipe, everybody[:number]), *kept)))
        for number in numbers
    ]


def rows_of(home: Path, stages: Sequence[Stage], told: Told) -> list[dict[str, Rows]]:
    """The answers of each stage by method; the untouched model's are the same ones at every stage."""
    opened: dict[Path, Rows] = {}
    for path in (path for stage in stages for path in _paths(home, stage, told).values()):
        opened.setdefault(path, Rows(path))
    return [{method: opened[path] for method, path in _paths(home, stage, told).items()} for stage in stages]


def _paths(home: Path, stage: Stage, told: Told) -> dict[str, Path]:
    bodies = [target_of(target, told) for target in stage.targets]
    keys = {method: method_key([] if method == NONE else bodies, asdict(METHODS[method])) for method in stage.asked}
    return {method: home / f"{method}-{key}.jsonl" for method, key in keys.items()}


def incomplete(stage: Stage, rows: Mapping[str, Rows]) -> bool:
    """Whether an answer of a stage is not there yet."""
    return any(rows[method].missing(asks(wanted)) for method, wanted in stage.asked.items())


def asks(asked: Sequence[Asked]) -> list[tuple[str, None]]:
    """The same as what :class:`Rows` are asked for."""
    return [(key_of(one.prompt.messages), None) for one in asked]
