"""``lethe eval``: how well the guards do on public benchmarks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure the guards on benchmarks.")


@app.callback()
def _several() -> None:
    """Measure the guards on benchmarks."""


@app.command()
def rwku(
    data: Annotated[Path, typer.Option(help="Folder of RWKU's files; ../benign is read beside it.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many rows of each file, for a quick look.")
    ] = None,
) -> None:
    """RWKU: are questions about forgotten people caught, and only those?

    Everybody in DATA is registered from `intro` and `passage` alone, and all are on at once. A forget row is protected
    when its prompt is flagged for its person or its gold answer would be stopped; a neighbour or benign row is wrongly
    blocked when its prompt is flagged for anybody or its gold answer is stopped.
    """
    from server.evaluation.rwku import evaluate

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done)

        try:
            figures = evaluate(data, limit=limit, progress=report)
        except (OSError, ValueError, KeyError) as error:
            console.print(f"lethe eval rwku: {error}", highlight=False)
            raise typer.Exit(2) from None
    if json_file is not None:
        _write(json_file, figures)
    Console().print(_table(figures))


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(figures, indent=2) + "\n")
    temporary.replace(path)


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
