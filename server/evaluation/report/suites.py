"""The suites of ``lethe eval`` beside TOFU and RWKU: one function for each kind of results file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.evaluation.report.results import Figures, Kind, Table, table

#: Columns of a table of rates, and their headings.
_RATES = {"flagged": "prompt flagged", "leaked": "right answer stopped", "blocked": "either", "n": "n"}
#: What stands in a file beside the ways in which things were registered.
_NO_WAYS = ("deviation_score", "settings", "command")


def forgetting(figures: Figures) -> list[Table]:
    """The demo world, method by method, and one target after the other."""
    on_the_way = [
        (
            method,
            int(count),
            of["forget"]["recall"],
            of["earliest"]["recall"],
            of["retain"]["recall"],
            of["general"]["recall"],
        )
        for method, steps in figures["sequential"].items()
        for count, of in steps.items()
    ]
    headings = ("method", "targets", "recall, forget", "of the first targets", "retain", "general")
    tables = [_methods(figures)]
    return [*tables, table(headings, on_the_way, "One target after the other")] if on_the_way else tables


def unlearning(figures: Figures) -> list[Table]:
    """The demo world unlearnt by training, and what each method takes and needs."""
    rows = [
        (
            method,
            *(of["chosen"][name] for name in ("rate", "retain_weight", "epochs", "seconds")),
            of["search_seconds"],
            of["needs"]["weights"],
            "yes" if of["needs"]["retain_set"] else "no",
            of["needs"]["switchable"],
            of["needs"]["at_inference"],
        )
        for method, of in figures["fitting"].items()
    ]
    fitted = ("learning rate", "weight of the retain term", "epochs", "s to fit", "s to choose")
    columns = ("method", *fitted, "weights", "retain set", "switchable", "beside the model, to answer")
    return [_methods(figures), table(columns, rows, "What a method takes and needs")]


def _methods(figures: Figures) -> Table:
    columns = (
        "recall, forget",
        "held-out forms",
        "worst form",
        "retain",
        "lost of it",
        "mixed prompts",
        "general",
        "KFR",
        "KRR",
        "LS",
    )
    rows = ((method, *_of_method(of)) for method, of in figures["methods"].items())
    return table(("method", *columns), rows, "Share of right answers, every form weighing the same")


def _of_method(of: Mapping[str, Any]) -> tuple[object, ...]:
    forget = of["forget"]
    return (
        forget["recall"],
        forget["held_out"],
        f"{forget['worst_form']} ({forget['worst_recall']:.2f})",
        of["retain"]["recall"],
        of["retain_drop"],
        of["mixed"]["recall"],
        of["general"]["recall"],
        *(of.get(name) for name in ("kfr", "krr", "ls")),
    )


def pistol(figures: Figures) -> list[Table]:
    """Contracts, those linked with them and all others, by what is registered."""
    scores = figures["deviation_score"].items()
    return [*_ways(figures), table(("registered", "deviation score"), scores)]


def knowundo(figures: Figures) -> list[Table]:
    """Private and public facts, by what is registered."""
    return _ways(figures)


def overrefusal(figures: Figures) -> list[Table]:
    """Harmless questions that are blocked."""
    return [_rates("questions", figures["groups"])]


def documents(figures: Figures) -> list[Table]:
    """MUSE's measures for a text known by heart."""
    rows = (
        (
            method,
            *(of["verbmem"][part][shape]["rouge_l"] for part in ("forget", "retain") for shape in ("plain", "chat")),
            *of["knowmem"].values(),
            of["privleak"],
        )
        for method, of in figures["methods"].items()
    )
    columns = ("VerbMem, plain", "in chat", "retain, plain", "in chat", "KnowMem", "retain", "PrivLeak")
    return [table(("method", *columns), rows)]


def _ways(figures: Figures) -> list[Table]:
    return [_rates(way, groups) for way, groups in figures.items() if way not in _NO_WAYS]


def _rates(way: str, groups: Mapping[str, Any]) -> Table:
    return table((way, *_RATES.values()), ((group, *(of[name] for name in _RATES)) for group, of in groups.items()))


KINDS = (
    Kind(
        "forgetting",
        "Forgetting in the demo world",
        "lethe eval demo --json benchmarks/results/forgetting.json",
        forgetting,
    ),
    Kind(
        "unlearning",
        "Unlearning by training in the demo world",
        "python -m benchmarks.unlearning --json benchmarks/results/unlearning.json",
        unlearning,
        "Baselines: the ten people, prompts and judgement of the table before, on another training of the demo model. "
        "Of every method the best of its grid, which is in the file. Judged by 12 prompts of each part, form and kind, "
        "which is this command's default, against 20 there.",
    ),
    Kind(
        "pistol",
        "PISTOL, contracts",
        "lethe eval pistol --data ../shared/data/pistol --limit 6 --json benchmarks/results/pistol.json",
        pistol,
    ),
    Kind(
        "knowundo",
        "KnowUnDo, privacy",
        "lethe eval knowundo --data ../shared/data/knowundo --json benchmarks/results/knowundo.json",
        knowundo,
    ),
    Kind(
        "overrefusal",
        "False alarms",
        "lethe eval overrefusal --data ../shared/data --json benchmarks/results/overrefusal.json",
        overrefusal,
        "The shipped head was trained on the rows of benign/ and on RWKU; the cross-validated column in README "
        "says how it does on others.",
    ),
    Kind(
        "documents",
        "Documents, MUSE's measures",
        "lethe eval documents --data ../shared/data/text --json benchmarks/results/documents.json",
        documents,
    ),
)
