"""Progress of a build: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from server.demo.model import Progress

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """A callback for :func:`server.demo.model.build` that shows on ``console`` how far it is."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=console) as bars:
        tasks = {}

        def report(stage: str, step: int, steps: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=steps)
            bars.update(tasks[stage], completed=step)

        yield report


def _lines(console: Console) -> Progress:
    started = last = time.monotonic()

    def report(stage: str, step: int, steps: int) -> None:
        nonlocal last
        now = time.monotonic()
        if step == steps or now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            console.print(f"{stage}: {step} of {steps} ({now - started:.0f} s)", highlight=False)

    return report
