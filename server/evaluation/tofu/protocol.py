"""The whole measurement: what is missing is asked of the servers, then the figures are worked out."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from guard.compile import fluency
from server.evaluation.admin import Endpoint
from server.evaluation.tofu import client, report
from server.evaluation.tofu.data import ROWS_PER_AUTHOR, Question, author_names, load
from server.evaluation.tofu.methods import COMPILED, METHODS, NONE, registered, supported, system_message
from server.evaluation.tofu.report import Parts
from server.evaluation.tofu.rows import Ask, Rows, method_key, model_key

#: What is timed: registering a target, and what an answer takes longer than without a guard.
REGISTER, QUERY = "register", "query"
#: Forget questions that are timed, about so many: one after the other.
_TIMED = 20

#: Called with a label, how many requests are done, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure.

    Attributes:
        model: its folder, or its name on a model hub.
        serve: gives a server of it for as long as the block lasts; called only if something is missing.
        place: the URL of a server that runs already; empty for one that ``serve`` starts.
    """

    model: Path
    serve: Callable[[], AbstractContextManager[Endpoint]]
    place: str = ""


def evaluate(
    subject: Subject,
    reference: Subject,
    data: Path,
    work: Path,
    *,
    methods: Sequence[str],
    limit: int | None = None,
    concurrency: int = client.CONCURRENCY,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure methods of forgetting TOFU's forget10 authors, whose names are all that the server is told but where a
    method says that it gets examples too.

    The two servers run one after the other. Every answer is kept at once, so a run that is broken off costs nothing.

    Args:
        subject: the model that knows everything.
        reference: the same without the forget rows.
        data: the folder of TOFU's files, as :data:`server.evaluation.tofu.data.FILES` names them.
        work: where raw results are kept, by model, concurrency, method and state of the code that guards.
        methods: of :data:`server.evaluation.tofu.methods.METHODS`. The untouched model is measured in any case, since
            fluency is judged by it.
        limit: at most so many rows of each file, for a quick look; authors who are not asked about are registered but
            not compiled.
        concurrency: how many requests are under way at once, and so how large the engine's batches are.
        progress: told how far it is.

    Returns:
        ``{"methods": {name: figures}, "reference": figures, "seconds": {name: {"register", "query"}}, "n": {part:
        rows}, "settings": {...}}`` with the figures of :func:`server.evaluation.tofu.report.figures`, and medians of
        what registering one target takes and of what an answer takes longer than the untouched model's.
        ``settings["left_out"]`` names the methods that the server does not have.

    Raises:
        OSError: a file is missing, or the work folder cannot be written.
        ValueError, KeyError: the data are not TOFU's, or the model has no end token.
        ServedError, httpx.HTTPError: a server does not answer as it should.
    """
    everything = load(data)
    names = author_names(everything["forget"])
    parts = {part: rows[:limit] for part, rows in everything.items()}
    end = end_token(subject.model)
    # Compiling takes longer than asking, and a quick look asks about the first authors only.
    asked = math.ceil(len(parts["forget"]) / ROWS_PER_AUTHOR)
    work = work / f"{concurrency}-at-once"
    never_knew = Rows(work / model_key(reference.model) / "reference.jsonl")
    home = work / model_key(subject.model, subject.place)
    told = _examples(names, everything["forget"])
    systems = {name: system_message(names) for name in methods if METHODS[name].system}
    rows = {}
    for name in dict.fromkeys((NONE, *methods)):
        method = METHODS[name]
        part = f"-{asked}-compiled" if asked < len(names) and method.action in COMPILED else ""
        rows[name] = Rows(home / f"{name}-{method_key(told[method.examples], asdict(method))}{part}.jsonl")

    if never_knew.missing(report.asks(parts)):
        with reference.serve() as endpoint, registered(endpoint, (), [NONE]) as told_of:
            runs = {"reference": (told_of.keys[NONE], never_knew)}
            asyncio.run(_measure(endpoint, end_token(reference.model), runs, parts, concurrency, progress, {}))
    judge = rows[NONE]
    if any(one.missing(report.asks(parts)) for one in rows.values()) or judge.missing(
        report.fluency_asks(parts, judge, (never_knew, *rows.values()))
    ):
        with subject.serve() as endpoint:
            rows = {method: rows[method] for method in supported(endpoint, list(rows))}
            for examples, targets in told.items():
                among = [method for method in rows if method == NONE or METHODS[method].examples is examples]
                with registered(endpoint, targets, among, compiled=asked) as told_of:
                    runs = {method: (key, rows[method]) for method, key in told_of.keys.items()}
                    measuring = _measure(endpoint, end, runs, parts, concurrency, progress, systems, judged=never_knew)
                    asyncio.run(measuring)
                    asyncio.run(_time(endpoint, end, runs, parts, systems))
                    for _, one in runs.values():
                        one.time(REGISTER, told_of.seconds)

    return {
        "methods": {method: report.figures(parts, one, never_knew, judge) for method, one in rows.items()},
        "reference": report.figures(parts, never_knew, never_knew, judge),
        "seconds": {method: _medians(one.seconds) for method, one in rows.items()},
        "n": {part: len(questions) for part, questions in parts.items()},
        "settings": {
            "model": str(subject.model),
            "reference": str(reference.model),
            "data": str(data),
            "limit": limit,
            "targets": names,
            "left_out": [method for method in methods if method not in rows],
            "concurrency": concurrency,
            "max_tokens": client.MAX_TOKENS,
            "end_token": end,
            "rouge": "ROUGE-L recall, no stemmer",
            "plausible_nll": report.plausibility_bar(parts, judge),
            "distinct_4grams": fluency.DISTINCT,
            "lethe": version("lethe"),
        },
    }


async def _measure(
    endpoint: Endpoint,
    end: str,
    runs: Mapping[str, tuple[str, Rows]],
    parts: Parts,
    concurrency: int,
    progress: Progress,
    systems: Mapping[str, str],
    judged: Rows | None = None,
) -> None:
    """Ask what is missing of each run, by its label: on behalf of a tenant, into its rows.

    Args:
        endpoint: the server.
        end: the text of the model's end token.
        runs: API key and rows, by label.
        parts: the questions.
        concurrency: requests under way at once.
        progress: told how far it is.
        systems: the system message behind which a run is asked, by label, where there is one.
        judged: whose answers the untouched model judges, beside those of the runs; None if it is not among them.
    """
    some_key, _ = next(iter(runs.values()))
    async with client.connect(endpoint.url, some_key, end, concurrency) as served:
        for label, (key, rows) in runs.items():
            asked = served.behind(systems.get(label, ""))
            await _ask(asked, key, rows, report.asks(parts), label, progress)
        if judged is not None:
            key, judge = runs[NONE]
            wanted = report.fluency_asks(parts, judge, (judged, *(rows for _, rows in runs.values())))
            await _ask(served, key, judge, wanted, "fluency", progress)


async def _time(
    endpoint: Endpoint, end: str, runs: Mapping[str, tuple[str, Rows]], parts: Parts, systems: Mapping[str, str]
) -> None:
    """How much longer an answer to a forget question takes with each method than without."""
    plain, _ = runs[NONE]
    questions = [row.question for row in parts["forget"][:: max(1, len(parts["forget"]) // _TIMED)]]
    async with client.connect(endpoint.url, plain, end) as served:
        for label, (key, rows) in runs.items():
            if label != NONE:
                taken = await served.extra_seconds(key, plain, questions, system=systems.get(label, ""))
                rows.time(QUERY, taken)


async def _ask(
    served: client.Served, key: str, rows: Rows, asks: Sequence[Ask], label: str, progress: Progress
) -> None:
    missing = rows.missing(asks)
    done = 0

    def keep(ask: Ask, value: str | float) -> None:
        nonlocal done
        rows.add(ask, value)
        done += 1
        progress(label, done, len(missing))

    await served.measure(key, missing, keep)


def _examples(names: Sequence[str], forget: Sequence[Question]) -> dict[bool, list[dict[str, Any]]]:
    """The targets as they are registered, by whether they are told their forget rows."""
    examples = [{"prompt": row.question, "completion": row.answer} for row in forget]
    size = ROWS_PER_AUTHOR
    return {
        False: [{"name": name} for name in names],
        True: [
            {"name": name, "forget_examples": examples[number * size : (number + 1) * size]}
            for number, name in enumerate(names)
        ],
    }


def _medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: round(statistics.median(some), 4) for name, some in seconds.items() if some}


def end_token(model: Path) -> str:
    """The text of the token that ends an answer of a model. Raises ``ValueError`` if it has none."""
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(model).eos_token
    if end is None:
        raise ValueError(f"{model} has no end token")
    return str(end)
