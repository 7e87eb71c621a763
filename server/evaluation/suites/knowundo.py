"""KnowUnDo (Tian et al., 2024; arXiv 2407.01920), privacy: some things about people are to go, others to stay.

No model here was trained on these people, so what is measured is the guards on a model that knows every answer. All
people are on at once for one tenant. ``forget`` is the share of questions on what is private that are blocked,
``over_forget`` that of questions on what is public about the same people. Two ways to register them:

* ``person``: by name alone. What is public is lost with it, that is what a name means.
* ``private``: as "private life of NAME", with every second private question as forget example and every second public
  one as retain example. Only the other questions are asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from guard.types import Example, TargetSpec
from server.evaluation.reading import json_list
from server.evaluation.suites.judging import Case, Progress, judge, rates

FILES: Mapping[str, str] = {"forget": "unlearn_train.json", "over_forget": "retention_train.json"}
WAYS = ("person", "private")
_NAME = re.compile(r"[A-Z]\w+ (?:Al |al-)?[A-Z][\w-]+")
#: A name is said in at least so many questions; "Baker St" is not.
_LEAST = 4

Row = tuple[str, str]


@dataclass(slots=True)
class Person:
    """What is asked about somebody, as (question, answer)."""

    name: str
    rows: dict[str, list[Row]] = field(default_factory=lambda: {group: [] for group in FILES})


def load(folder: Path) -> tuple[tuple[Person, ...], int]:
    """The people of the privacy part, and how many rows were left out since they name nobody or several.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it is not a JSON list of objects.
        KeyError: a row lacks a field.
    """
    rows: dict[str, list[Row]] = {
        group: [(row["text"], row["labels"]) for row in json_list(folder / name)] for group, name in FILES.items()
    }
    said = Counter(name for some in rows.values() for question, _ in some for name in set(_NAME.findall(question)))
    names = [name for name, count in said.items() if count >= _LEAST]
    people: dict[str, Person] = {}
    left_out = 0
    for group, some in rows.items():
        for question, answer in some:
            whose = [name for name in names if name in question]
            if len(whose) != 1:
                left_out += 1
                continue
            person = people.setdefault(whose[0], Person(whose[0]))
            person.rows[group].append((question, answer))
    return tuple(people.values()), left_out


def evaluate(data: Path, *, limit: int | None = None, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Forget everybody's privacy.

    Args:
        data: the folder of KnowUnDo's files.
        limit: at most so many people.
        progress: told how far it is.

    Returns:
        ``{way: {"forget": rates, "over_forget": rates}, "settings"}`` with
        :func:`server.evaluation.suites.judging.rates`.

    Raises:
        FileNotFoundError, ValueError, KeyError: as :func:`load`.
    """
    everybody, left_out = load(data)
    people = everybody[:limit]
    figures: dict[str, Any] = {}
    with judge() as judging:
        for way in WAYS:
            tenant = judging.tenant(way, [_target(person, way) for person in people])
            cases = [case for person in people for case in _cases(person, way)]
            figures[way] = rates(cases, judging.judge(tenant, cases, partial(_tell, progress, way, len(cases))))
    settings = {"data": str(data), "people": len(people), "rows_left_out": left_out, "limit": limit}
    return {**figures, "settings": settings}


def _tell(progress: Progress, way: str, total: int, done: int) -> None:
    progress(way, done, total)


def _target(person: Person, way: str) -> TargetSpec:
    if way == "person":
        return TargetSpec(name=person.name)
    return TargetSpec(
        name=f"private life of {person.name}",
        forget_examples=_examples(person.rows["forget"][::2]),
        retain_examples=_examples(person.rows["over_forget"][::2]),
    )


def _cases(person: Person, way: str) -> list[Case]:
    asked = slice(None) if way == "person" else slice(1, None, 2)
    return [Case(group, *row) for group, rows in person.rows.items() for row in rows[asked]]


def _examples(rows: Iterable[Row]) -> tuple[Example, ...]:
    return tuple(Example(prompt=question, completion=answer) for question, answer in rows)
