"""``lethe eval``: the suites beside RWKU and TOFU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table

from server.cli.measuring import AdminKey, BaseUrl, JsonFile, Limit, Work, bars, write

app = typer.Typer()

Seed = Annotated[int, typer.Option(min=0, help="Seed of the demo world and of its model.")]


@app.command()
def demo(
    json_file: JsonFile = None,
    methods: Annotated[str | None, typer.Option(help="Names with commas between them; all by default.")] = None,
    sequential: Annotated[
        int, typer.Option(min=0, help="Forget up to so many people one after the other, and measure on the way.")
    ] = 0,
    limit: Limit = None,
    base_url: BaseUrl = None,
    admin_key: AdminKey = "",
    work: Work = None,
    seed: Seed = 0,
) -> None:
    """The demo world: is every form of a question forgotten, and nothing else?

    The ten people that the demo world has to forget are registered with name, description and document, and are on for
    one tenant per method. Asked is about them and about everybody else in every form, those that the model was trained
    on and those kept back, and about things that have nothing to do with anybody.
    """
    from server.demo.model import build
    from server.demo.recipe import Recipe
    from server.evaluation.suites.demo.methods import METHODS
    from server.evaluation.suites.demo.protocol import evaluate

    recipe = Recipe(seed=seed)
    with _measuring("demo") as progress:
        chosen = _chosen(methods, tuple(METHODS))
        build(recipe, progress=progress)
        serve, place = _server(recipe.folder, base_url, admin_key)
        figures = evaluate(
            recipe,
            serve,
            work or user_cache_path("lethe") / "eval-demo",
            place=place,
            methods=chosen,
            sequential=sequential,
            limit=limit,
            progress=progress,
        )
    if json_file is not None:
        write(json_file, figures)
    Console().print(_demo_table(figures["methods"]))
    if figures["sequential"]:
        Console().print(_sequential_table(figures["sequential"]))


def _demo_table(methods: dict[str, Any]) -> Table:
    columns = ("forget", "held out", "told", "worst form", "retain", "drop", "mixed", "general", "unknown")
    table = Table("method", *columns, title="Demo world: share of right answers")
    for method, parts in methods.items():
        forget = parts["forget"]
        table.add_row(
            method,
            *(_rate(forget[name]) for name in ("recall", "held_out", "told")),
            f"{forget['worst_recall']:.3f} {forget['worst_form']}",
            _rate(parts["retain"]["recall"]),
            _rate(parts["retain_drop"]),
            *(_rate(parts[part]["recall"]) for part in ("mixed", "general", "unknown")),
        )
    return table


def _sequential_table(methods: dict[str, Any]) -> Table:
    table = Table("method", "targets", "forget", "told", "retain", "general", title="One target after the other")
    for method, steps in methods.items():
        for step, parts in steps.items():
            cells = (parts["forget"]["recall"], parts["forget"]["told"], parts["retain"]["recall"])
            table.add_row(method, str(step), *map(_rate, (*cells, parts["general"]["recall"])))
    return table


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _chosen(names: str | None, known: tuple[str, ...]) -> list[str]:
    """The methods that were named, all of them if none was. Raises ``ValueError`` for one that there is not."""
    chosen = list(known) if names is None else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise ValueError(f"no method {name!r}; there are {', '.join(known)}")
    return chosen


def _server(model: Path, base_url: str | None, admin_key: str) -> tuple[Callable[[], AbstractContextManager[Any]], str]:
    """What gives a server of a model, one of our own or one that runs; and the URL of the latter."""
    from server.evaluation.admin import Endpoint
    from server.evaluation.child import child

    if base_url is None:
        return partial(child, model), ""
    url = base_url.rstrip("/").removesuffix("/v1")
    return lambda: nullcontext(Endpoint(url, admin_key)), url


@contextmanager
def _measuring(suite: str) -> Iterator[Callable[[str, int, int], None]]:
    """Bars for a suite; what goes wrong becomes one line and exit status 2."""
    from server.child import ServerFailed
    from server.evaluation.admin import ServedError

    console = Console(stderr=True)
    try:
        with bars(console) as progress:
            yield progress
    except (OSError, ValueError, KeyError, ServedError, ServerFailed, httpx.HTTPError) as error:
        console.print(f"lethe eval {suite}: {error or type(error).__name__}", highlight=False, markup=False)
        raise typer.Exit(2) from None
