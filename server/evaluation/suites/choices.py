"""Multiple choice in WMDP's format (Li et al., 2024; arXiv 2403.03218), with and without a tenant's guards.

As in lm-evaluation-harness the options are read as letters, and the letter that the model finds likeliest after
"Answer:" is its answer. Letters are asked for one by one, as the last token of a prompt (``prompt_logprobs``). In a
prompt that is refused all letters are equally likely; such a question counts as guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from string import ascii_uppercase
from typing import Any

from server.evaluation.admin import Endpoint, admin
from server.evaluation.reading import json_lines, json_list, texts
from server.evaluation.suites.asking import Asker, connect
from server.evaluation.suites.guarded import GUARDED, Guarded
from server.evaluation.tofu.methods import NONE
from server.evaluation.tofu.rows import Rows, model_key

_TENANT = "lethe-eval-choices-{}"
_CONCURRENCY = 8  # questions under way at once
#: Log-probabilities this close are the same.
_TIE = 1e-6

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its options; ``answer`` is the place of the right one, from 0."""

    question: str
    choices: tuple[str, ...]
    answer: int

    @property
    def letters(self) -> str:
        """One for each option."""
        return ascii_uppercase[: len(self.choices)]

    @property
    def prompt(self) -> str:
        """What is continued by a letter."""
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(self.letters, self.choices, strict=True))
        return f"The following is a multiple choice question.\n\n{self.question.strip()}\n{options}\nAnswer:"


def load(path: Path) -> tuple[Question, ...]:
    """The questions of a file: a JSON list, or one JSON object a line, with ``question``, ``choices`` and ``answer``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or a row is not a question with an answer among 2 to 26 choices.
        KeyError: a row lacks a field.
    """
    with path.open("rb") as file:
        listed = file.read().lstrip().startswith(b"[")
    rows = json_list(path) if listed else json_lines(path)
    questions = tuple(
        Question(str(row["question"]), texts(row["choices"], f"{path}, question {number}: the choices"), row["answer"])
        for number, row in enumerate(rows, 1)
    )
    for number, one in enumerate(questions, 1):
        if not 2 <= len(one.choices) <= len(ascii_uppercase) or one.answer not in range(len(one.choices)):
            raise ValueError(
                f"{path}, question {number}: the answer must be the place of one of 2 to 26 choices, from 0"
            )
    if not questions:
        raise ValueError(f"{path} holds no questions")
    return questions


def evaluate(
    path: Path,
    model: str,
    serve: Callable[[], AbstractContextManager[Endpoint]],
    work: Path,
    guarded: Guarded,
    *,
    place: str = "",
    limit: int | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Accuracy of a served model, for a tenant without guards and for a guarded one.

    Args:
        path: the questions.
        model: the folder or name of the model, to tell kept results apart.
        serve: gives a server of it for as long as the block lasts; called only if something is missing.
        work: where results are kept.
        guarded: whose guards.
        place: the URL of a server that runs already; empty for one that ``serve`` starts.
        limit: at most so many questions.
        progress: told how far it is.

    Returns:
        ``{"none": {"accuracy", "undecided"}, "guarded": same, "chance", "n", "settings"}``, from 0 to 1. An undecided
        question, with several letters likeliest, counts as one over their number.

    Raises:
        OSError, ValueError, KeyError: as :func:`load`.
        ServedError, httpx.HTTPError: the server does not answer as it should.
    """
    questions = load(path)[:limit]
    home = work / model_key(Path(model), place)
    rows = {
        NONE: Rows(home / f"{NONE}.jsonl"),
        GUARDED: Rows(home / f"{GUARDED}-{guarded.digest()}.jsonl"),
    }
    asks = [(one.prompt, letter) for one in questions for letter in one.letters]
    if any(one.missing(asks) for one in rows.values()):
        with serve() as endpoint, admin(endpoint) as api:
            asyncio.run(_measure(endpoint, guarded.keys(api, _TENANT), rows, questions, progress))
    return {
        **{name: _figures(one, questions) for name, one in rows.items()},
        "chance": round(fmean(1 / len(one.choices) for one in questions), 4),
        "n": len(questions),
        "settings": {"file": str(path), "model": model, "action": guarded.action, "lethe": version("lethe")},
    }


async def _measure(
    endpoint: Endpoint,
    keys: Mapping[str, str],
    rows: Mapping[str, Rows],
    questions: Sequence[Question],
    progress: Progress,
) -> None:
    async with connect(endpoint.url, keys[NONE]) as anybody:
        for name, key in keys.items():
            for start in range(0, len(questions), _CONCURRENCY):
                batch = questions[start : start + _CONCURRENCY]
                await asyncio.gather(*(_ask(anybody.of(key), rows[name], one) for one in batch))
                progress(name, start + len(batch), len(questions))


async def _ask(asker: Asker, rows: Rows, question: Question) -> None:
    for prompt, letter in rows.missing([(question.prompt, letter) for letter in question.letters]):
        rows.add((prompt, letter), -(await asker.logprobs(f"{prompt} {letter}"))[-1])


def _figures(rows: Rows, questions: Sequence[Question]) -> dict[str, float]:
    points, undecided = [], []
    for one in questions:
        nll = [rows.nll[one.prompt, letter] for letter in one.letters]
        best = [place for place, value in enumerate(nll) if value <= min(nll) + _TIE]
        points.append((one.answer in best) / len(best))
        undecided.append(len(best) > 1)
    return {"accuracy": round(fmean(points), 4), "undecided": round(fmean(undecided), 4)}
