"""``lethe eval``: how well the guards do on public benchmarks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table

from server.cli import attacks, everything, judged, report, suites
from server.cli.measuring import (
    AdminKey,
    BaseUrl,
    JsonFile,
    Limit,
    Work,
    chosen,
    finish,
    listed,
    measuring,
    server_of,
)
from server.evaluation.tofu.methods import METHODS

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure the guards on benchmarks.")
app.add_typer(suites.app)
app.add_typer(judged.app)
app.add_typer(attacks.app)
app.add_typer(everything.app)
app.add_typer(report.app)


@app.callback()
def _several() -> None:
    """Measure the guards on benchmarks."""


@app.command()
def rwku(
    data: Annotated[Path, typer.Option(help="Folder of RWKU's files; ../benign is read beside it.")],
    json_file: JsonFile = None,
    limit: Limit = None,
) -> None:
    """RWKU: are questions about forgotten people caught, and only those?

    Everybody in DATA is registered from `intro` and `passage` alone, and all are on at once. A forget row is protected
    when its prompt is flagged for its person or its gold answer would be stopped; a neighbour or benign row is wrongly
    blocked when its prompt is flagged for anybody or its gold answer is stopped.
    """
    from server.evaluation.rwku import evaluate

    with measuring("rwku") as progress:
        figures = evaluate(data, limit=limit, progress=progress)
    finish(json_file, figures, _table(figures))


@app.command()
def tofu(
    model: Annotated[Path, typer.Option(help="The model that knows everything.")],
    reference: Annotated[Path, typer.Option(help="The same model, trained without the forget10 rows.")],
    data: Annotated[Path, typer.Option(help="Folder of TOFU's files.")],
    json_file: JsonFile = None,
    methods: Annotated[str | None, typer.Option(help=f"{listed(METHODS)} All that the server has by default.")] = None,
    limit: Limit = None,
    base_url: BaseUrl = None,
    admin_key: AdminKey = "",
    work: Work = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 32,
    against: Annotated[
        Path | None,
        typer.Option(help="Figures of another run, to say by how much these differ: of other batch sizes, say."),
    ] = None,
) -> None:
    """TOFU's own protocol through a running server: is forget10 forgotten, as if it had never been learnt?

    The authors of forget10 are registered by name alone (for `constrain` with their forget rows, as GUARD is told
    them) and are on for one tenant per method. Compared are greedy answers (ROUGE-L recall) and the probabilities of
    right and wrong answers, with those of a REFERENCE model that never learnt these authors. `none`, the untouched
    model, is measured in any case.
    """
    from server.evaluation.child import child
    from server.evaluation.tofu.protocol import Subject, evaluate

    with measuring("tofu") as progress:
        serve, place = server_of(model, base_url, admin_key)
        other = None if against is None else _comparable(against, data, limit)
        figures = evaluate(
            Subject(model, serve, place=place),
            Subject(reference, partial(child, reference)),
            data,
            work or user_cache_path("lethe") / "eval-tofu",
            methods=chosen(methods, METHODS),
            limit=limit,
            concurrency=concurrency,
            progress=progress,
        )
        if other is not None:
            figures["against"] = _against(figures, other)
    for name in figures["settings"]["left_out"]:
        Console(stderr=True).print(f"{name}: left out, the server has no such action", highlight=False)
    finish(json_file, figures, _tofu_table(figures))
    Console().print(_beside_guard(figures["seconds"]), highlight=False)
    for method, worst in figures.get("against", {}).get("largest_difference", {}).items():
        Console().print(f"{method}: differs most in {worst['figure']}, by {worst['by']:.2g}", highlight=False)


def _comparable(against: Path, data: Path, limit: int | None) -> dict[str, Any]:
    """The figures of another run, looked at before anything is measured.

    Raises:
        OSError: a file cannot be read.
        ValueError: they are not figures, or of other rows than this run's.
    """
    from server.evaluation.tofu.data import load

    other = json.loads(against.read_text(encoding="utf-8"))
    if not isinstance(other, dict) or not other.keys() >= {"n", "methods", "reference", "settings"}:
        raise ValueError(f"{against} has no figures of `lethe eval tofu`")
    if other["n"] != {part: len(rows[:limit]) for part, rows in load(data).items()}:
        raise ValueError(f"{against} is of other rows")
    return other


def _against(figures: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What differs most between two runs of the same rows."""
    from server.evaluation.tofu.client import CONCURRENCY
    from server.evaluation.tofu.report import differences

    found = differences(*({**of["methods"], "reference": of["reference"]} for of in (figures, other)))
    return {
        "concurrency": other["settings"].get("concurrency", CONCURRENCY),
        "largest_difference": {method: {"figure": name, "by": by} for method, (name, by) in found.items()},
    }


def _table(figures: dict[str, Any]) -> Table:
    table = Table("rows", "rate", "prompt alone", "n", title="RWKU: protected (forget), wrongly blocked (others)")
    for level in ("level1", "level2", "level3"):
        cells = (figures[part][level] for part in ("forget", "prompt_only"))
        table.add_row(f"forget {level}", *(f"{cell:.3f}" for cell in cells), _count(figures, f"forget/{level}"))
    for kind, rate in figures["forget"]["level3_by_type"].items():
        alone = figures["prompt_only"]["level3_by_type"][kind]
        table.add_row(f"  {kind}", f"{rate:.3f}", f"{alone:.3f}", _count(figures, f"forget/level3/{kind}"))
    for group in ("neighbor", "benign"):
        for name, rate in figures[group].items():
            table.add_row(f"{group} {name}", f"{rate:.4f}", "", _count(figures, f"{group}/{name}"))
    return table


def _count(figures: dict[str, Any], group: str) -> str:
    return str(figures["n"].get(group, ""))


#: What CURaTE (arXiv 2604.14644) reports of GUARD (arXiv 2505.13312), in seconds. Their model and machine, not ours;
#: of how well GUARD forgets on TOFU models of this size nothing is published.
_GUARD_REGISTER_S, _GUARD_QUERY_S = 2.8, 25.5


def _beside_guard(seconds: dict[str, dict[str, float]]) -> str:
    """One line: what constrained decoding costs here, and what GUARD is reported to cost."""
    costs = [f"GUARD as published (theirs; another machine and model) {_GUARD_REGISTER_S} s, +{_GUARD_QUERY_S} s"]
    for name, times in seconds.items():
        if name.startswith("constrain") and times.keys() >= {"register", "query"}:
            costs.append(f"{name} {times['register']:.3f} s, {times['query']:+.3f} s")
    return "Registering one target, one answer beyond untouched: " + "; ".join(costs)


def _tofu_table(figures: dict[str, Any]) -> Table:
    rows = ", ".join(f"{count} {part}" for part, count in figures["n"].items())
    columns = ("forget\nquality", "ROUGE\nforget", "ROUGE\nretain", "model\nutility", "deviation\nscore", "fluency")
    table = Table("method", *columns, title=f"TOFU forget10 ({rows})")
    for method, cells in {**figures["methods"], "reference": figures["reference"]}.items():
        table.add_row(
            method,
            f"{cells['forget_quality']:.2g}",
            *(f"{cells[name]:.3f}" for name in ("forget_rouge", "retain_rouge", "model_utility")),
            f"{cells['deviation_score']:.1f}",
            f"{cells['fluency']:.3f}",
        )
    return table
