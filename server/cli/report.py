"""``lethe eval report``: the results as a page and as a document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer()


@app.command()
def report(
    results: Annotated[Path, typer.Option(help="Folder of the JSON files.")] = Path("benchmarks/results"),
    html: Annotated[Path | None, typer.Option(help="Write one HTML page here, and its plots as PNG beside it.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables here.")] = Path("docs/results.md"),
) -> None:
    """Make one page, with plots, and docs/results.md of the JSON files that the benchmarks left."""
    from server.evaluation.report import Results, document, page, plots

    console = Console()
    try:
        found = Results.read(results)
        if markdown is not None:
            _write(markdown, document(found, markdown.parent).encode(), console)
        if html is not None:
            drawn = list(plots(found))
            for plot in drawn:
                if plot.png is not None:
                    _write(html.with_name(f"{html.stem}-{plot.name}.png"), plot.png, console)
            _write(html, page(found, drawn).encode(), console)
    except OSError as error:
        Console(stderr=True).print(f"lethe eval report: {error}", highlight=False, markup=False)
        raise typer.Exit(2) from None


def _write(path: Path, content: bytes, console: Console) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    console.print(path, highlight=False)
