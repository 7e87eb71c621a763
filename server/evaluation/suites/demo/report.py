"""From answers to figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from server.demo.world import Form, World
from server.evaluation import metrics
from server.evaluation.suites.asking import key_of
from server.evaluation.suites.demo.questions import Asked, Part, recalls, tells
from server.evaluation.tofu.methods import REFUSAL

#: What is scored for how it is written: forms whose answers are sentences.
_WRITTEN = (Form.INSTRUCTION, Form.BIOGRAPHY)


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


def relearn(asked: Iterable[Asked], said: Mapping[str, str], nll: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    """ReLearn's figures (:mod:`server.evaluation.metrics`) of a method: ``kfr``, ``krr`` and ``ls``.

    Each is None if there is nothing to count. Entities are what was asked for, as far as the prompt does not say it.

    Args:
        asked: the prompts.
        said: the answers.
        nll: of the :func:`written` answers under the untouched model, in nats a token.
    """
    known = [(one.part, one.secrets, said[key_of(one.prompt.messages)]) for one in asked]
    pairs = written(asked, said)
    return {
        "kfr": _rounded(
            metrics.forgetting_rate((wanted, answer) for part, wanted, answer in known if part == Part.FORGET)
        ),
        "krr": _rounded(
            metrics.retention_rate((wanted, answer) for part, wanted, answer in known if part == Part.RETAIN)
        ),
        "ls": _rounded(
            metrics.linguistic_score([answer for _, answer in pairs], [nll[pair] for pair in pairs]) if pairs else None
        ),
    }


def written(asked: Iterable[Asked], said: Mapping[str, str]) -> list[tuple[str, str]]:
    """The answers on targets that are scored for how they are written, each behind a question on somebody else.

    A model that knows an answer by heart finds every other sentence after its question unlikely, however well made.
    Empty answers and the operator's own refusal are left out.
    """
    chosen = [one for one in asked if one.prompt.form in _WRITTEN]
    others = [one.prompt.messages[0].content for one in chosen if one.part is Part.RETAIN]
    own = [key_of(one.prompt.messages) for one in chosen if one.part is Part.FORGET]
    answers = [said[key].strip() for key in own if key in said]
    pairs = [(others[number % len(others)], answer) for number, answer in enumerate(answers) if others]
    return [(question, answer) for question, answer in pairs if answer not in ("", REFUSAL)]


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
    return _rounded(mean(numbers) if numbers else None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
