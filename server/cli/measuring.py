"""What all suites of ``lethe eval`` share on the command line: options, progress bars, and files of figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many rows of each kind, for a quick look.")]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="A running server of the model; targets and tenants are added to it and taken away again."),
]
AdminKey = Annotated[str, typer.Option(envvar="LETHE_ADMIN_KEY", help="An admin key of that server.")]
Work = Annotated[
    Path | None, typer.Option(help="Keep raw results here, for later runs to go on with; by default in the cache.")
]


@contextmanager
def bars(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A callback that shows a bar for each label."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as shown:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = shown.add_task(label, total=total)
            shown.update(tasks[label], completed=done)

        yield report


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(figures, indent=2) + "\n")
    temporary.replace(path)
