"""``lethe eval``: suites that ask the guards without a model; what is blocked of a model that knows every answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from server.cli.measuring import Data, JsonFile, Limit, finish, measuring

app = typer.Typer()

AllData = Annotated[Path, typer.Option(help="Folder that holds the folders rwku, tofu and benign.")]


@app.command()
def overrefusal(data: AllData, json_file: JsonFile = None, limit: Limit = None) -> None:
    """False alarms: what is wrongly blocked of ordinary questions, and of questions close to what is forgotten.

    The people of RWKU, the authors of TOFU's forget10 and those whom the demo world has to forget are on at once.
    """
    from server.evaluation.suites.overrefusal import evaluate

    with measuring("overrefusal") as progress:
        figures = evaluate(data, limit=limit, progress=progress)
    finish(json_file, figures, _rates_table("Wrongly blocked", {"": figures["groups"]}))


@app.command()
def pistol(data: Data, json_file: JsonFile = None, limit: Limit = None) -> None:
    """PISTOL: is one contract forgotten, and not those that are linked with it?

    Measured are the guards on a model that knows every answer. Each contract is forgotten in turn, by the names of its
    parties and by examples.
    """
    from server.evaluation.suites.pistol import WAYS, evaluate

    with measuring("pistol") as progress:
        figures = evaluate(data, limit=limit, progress=progress)
    scores = ", ".join(f"{way} {figures['deviation_score'][way]}" for way in WAYS)
    table = _rates_table(f"PISTOL: blocked; deviation score: {scores}", {way: figures[way] for way in WAYS})
    finish(json_file, figures, table)


@app.command()
def knowundo(data: Data, json_file: JsonFile = None, limit: Limit = None) -> None:
    """KnowUnDo, privacy: is what is private about people forgotten, and what is public kept?

    Measured are the guards on a model that knows every answer; people are registered by name, and by examples.
    """
    from server.evaluation.suites.knowundo import WAYS, evaluate

    with measuring("knowundo") as progress:
        figures = evaluate(data, limit=limit, progress=progress)
    finish(json_file, figures, _rates_table("KnowUnDo: blocked", {way: figures[way] for way in WAYS}))


def _rates_table(title: str, ways: dict[str, dict[str, Any]]) -> Table:
    names = ("flagged", "leaked", "blocked")
    table = Table("registered by", "questions", *names, "n", title=title)
    for way, groups in ways.items():
        for group, rates in groups.items():
            table.add_row(way, group, *(f"{rates[name]:.4f}" for name in names), str(rates["n"]))
    return table
