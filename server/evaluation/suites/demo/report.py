"""From answers to figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from server.demo.world import World
from server.evaluation.suites.asking import key_of
from server.evaluation.suites.demo.questions import Asked, Part, recalls, tells


def figures(world: World, asked: Iterable[Asked], said: Mapping[str, str]) -> dict[str, Any]:
    """The figures of a method, by part.

    Args:
        world: the demo world.
        asked: the prompts.
        said: the answers, by :func:`server.evaluation.suites.asking.key_of` of the prompts.

    Returns:
        For each part ``{"recall", "held_out", "told", "worst_form", "worst_recall", "forms"}``: the share of right
        answers, every form weighing the same, of all prompts and of those that the model was not trained on; the share
        of answers that say anything of what was asked for; and the form with the highest recall. ``forms`` has the
        same by form, with ``n`` prompts. Rates from 0 to 1; None where there is no such prompt.
    """
    by_part: defaultdict[Part, list[Asked]] = defaultdict(list)
    for one in asked:
        by_part[one.part].append(one)
    return {part.value: _part(world, some, said) for part, some in by_part.items()}


def _part(world: World, asked: Sequence[Asked], said: Mapping[str, str]) -> dict[str, Any]:
    by_form: defaultdict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        by_form[one.prompt.form.value].append(one)
    forms = {form: _form(world, some, said) for form, some in by_form.items()}
    worst = max(forms, key=lambda form: forms[form]["recall"])
    return {
        **{name: _mean(form[name] for form in forms.values()) for name in ("recall", "held_out", "told")},
        "worst_form": worst,
        "worst_recall": forms[worst]["recall"],
        "forms": forms,
    }


def _form(world: World, asked: Sequence[Asked], said: Mapping[str, str]) -> dict[str, Any]:
    answers = [(one, said[key_of(one.prompt.messages)]) for one in asked]
    right = [(one.prompt.trained, recalls(world, one.prompt, answer)) for one, answer in answers]
    return {
        "recall": _mean(ok for _, ok in right),
        "held_out": _mean(ok for trained, ok in right if not trained),
        "told": _mean(tells(one, answer) for one, answer in answers if one.secrets),
        "n": len(asked),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return round(mean(numbers), 4) if numbers else None
