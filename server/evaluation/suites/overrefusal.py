"""False alarms: what is wrongly blocked of ordinary questions, and of questions close to what is forgotten.

On at once are all people of RWKU (introduction and passages), the authors of TOFU's forget10 (name alone) and the ten
people of the demo world (description and document). Blocked is a question that is flagged for any of them, or whose
gold answer any guard would stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classifiers.phrase_index import PhraseIndex
from guard.types import TargetSpec
from server.demo.recipe import Recipe
from server.evaluation import rwku
from server.evaluation.suites.demo.methods import Told, target_of
from server.evaluation.suites.demo.questions import Part, people, questions
from server.evaluation.suites.demo.stages import TARGETS
from server.evaluation.suites.judging import Case, Progress, judge, rates
from server.evaluation.tofu.data import author_names, load


def evaluate(data: Path, *, limit: int | None = None, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Measure false alarms.

    Args:
        data: the folder that holds ``rwku``, ``tofu`` and ``benign``.
        limit: at most so many rows of each file, and of each form of the demo world.
        progress: told how far it is.

    Returns:
        ``{"groups": {group: rates}, "settings": {...}}`` with :func:`server.evaluation.suites.judging.rates`; groups
        are ``benign/...``, ``neighbor/...`` (RWKU; those that name a target apart, as they are rightly blocked),
        ``tofu/...`` and ``demo/retain``, ``demo/general``.

    Raises:
        FileNotFoundError: a file is missing; the message says which.
        ValueError, KeyError: a file is not what it should be.
    """
    targets = [*_rwku(data), *_tofu(data), *_demo()]
    cases = [*_ordinary(data, limit), *_near_tofu(data, limit), *_near_demo(limit)]
    with judge() as judging:
        progress("register", 0, 1)
        tenant = judging.tenant("everybody", targets)
        progress("register", 1, 1)
        judged = judging.judge(tenant, cases, lambda done: progress("judge", done, len(cases)))
    return {"groups": rates(cases, judged), "settings": {"targets": len(targets), "limit": limit, "data": str(data)}}


def _rwku(data: Path) -> Iterator[TargetSpec]:
    for profile in rwku.load_people(data / "rwku").values():
        yield TargetSpec(name=profile.name, description=profile.description, documents=profile.documents)


def _tofu(data: Path) -> Iterator[TargetSpec]:
    for name in author_names(load(data / "tofu")["forget"]):
        yield TargetSpec(name=name)


def _demo() -> Iterator[TargetSpec]:
    for person in people(Recipe().world, TARGETS):
        yield TargetSpec(**target_of(person, Told.DOCUMENT))


def _ordinary(data: Path, limit: int | None) -> Iterator[Case]:
    """Benign rows that name nobody of RWKU, and RWKU's neighbours, apart from those that name somebody.

    A row lists every spelling of its answer; a model would give one, so the first stands for it.
    """
    everybody = rwku.load_people(data / "rwku")
    names = PhraseIndex()
    for name in everybody:
        names.add(name, [name])
    for row in rwku.load_rows(data / "rwku", everybody, limit):
        answer = row.answers[0] if row.answers else ""
        named = any(names.find(text, everybody) for text in (row.prompt, answer))
        if not row.group.startswith("forget"):
            yield Case(f"{row.group}, names a target" if named else row.group, row.prompt, answer)


def _near_tofu(data: Path, limit: int | None) -> Iterator[Case]:
    for part, rows in load(data / "tofu").items():
        if part != "forget":
            for row in rows[:limit]:
                yield Case(f"tofu/{part}", row.question, row.answer)


def _near_demo(limit: int | None) -> Iterator[Case]:
    recipe = Recipe()
    for asked in questions(recipe, people(recipe.world, TARGETS), limit):
        prompt = asked.prompt
        if asked.part in (Part.RETAIN, Part.GENERAL) and len(prompt.messages) == 1:
            yield Case(f"demo/{asked.part}", prompt.messages[0].content, prompt.answer)
