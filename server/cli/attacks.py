"""``lethe eval attacks``: the matrix of attacks and guards."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table

from server.cli.measuring import (
    AdminKey,
    BaseUrl,
    JsonFile,
    Work,
    chosen,
    command_line,
    endpoint,
    finish,
    listed,
    measuring,
    place_of,
    rate,
)
from server.evaluation.admin import Endpoint
from server.evaluation.attacks.configurations import COLUMNS, CONFIGURATIONS, QUICK

if TYPE_CHECKING:
    from server.evaluation.attacks.run import Progress
    from server.evaluation.attacks.subjects import Subject

app = typer.Typer()

_SHARED = Path("../shared")
_QUICK = 4
#: Characters of the table: of its labels, and of a column. A table that is cut off says nothing.
_LABELS, _COLUMN = 45, 13


class SubjectName(StrEnum):
    """What can be attacked."""

    DEMO = "demo"
    TOFU = "tofu"


@app.command()
def attacks(
    subject: Annotated[SubjectName, typer.Option(help="The demo world, or TOFU's authors.")] = SubjectName.DEMO,
    model: Annotated[Path, typer.Option(help="TOFU: the model that knows everything.")] = _SHARED / "models/tofu-full",
    reference: Annotated[Path, typer.Option(help="TOFU: the same model, trained without the forget10 rows.")] = _SHARED
    / "models/tofu-retain90",
    data: Annotated[Path, typer.Option(help="TOFU: folder of its files.")] = _SHARED / "data/tofu",
    attacks: Annotated[
        str | None,
        typer.Option(
            help="Attacks, with commas between them, as the first column of the table names them; all by default."
        ),
    ] = None,
    guards: Annotated[
        str | None, typer.Option(help=f"{listed(CONFIGURATIONS)} By default {', '.join(COLUMNS)}.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many attempts of each attack.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"The same as --limit {_QUICK}, on few columns.")] = False,
    name_only: Annotated[
        bool, typer.Option("--name-only", help="Tell the server nothing of the targets but their names.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides which facts are attacked, and how.")] = 0,
    json_file: JsonFile = None,
    base_url: BaseUrl = None,
    admin_key: AdminKey = "",
    work: Work = None,
) -> None:
    """Attack what a model was made to forget: every attack against every configuration of guards.

    Those who are to be forgotten are registered as an operator would who honours a takedown: in the demo world with a
    description and a document that states every fact, TOFU's authors with the very questions and answers that are
    asked for. Each configuration is a tenant of one server. A cell is the share of attempts in which the attacker was
    shown what the prompt had not said. In a row "all refused" the server refuses everybody, whatever is forgotten, so
    that it says nothing of the guards.
    """
    from server.evaluation.attacks.evaluate import evaluate
    from server.evaluation.attacks.kinds import ATTACKS
    from server.evaluation.attacks.subjects import by_name
    from server.evaluation.child import child

    running = None if base_url is None else endpoint(base_url, admin_key)
    few = min(limit or _QUICK, _QUICK) if quick else limit

    def serve(folder: Path) -> AbstractContextManager[Endpoint]:
        return child(folder) if running is None else nullcontext(running)

    with measuring("attacks") as progress:
        rows = chosen(attacks, ATTACKS)
        columns = chosen(guards, CONFIGURATIONS, QUICK if quick else COLUMNS)
        attacked = _demo(progress) if subject is SubjectName.DEMO else _tofu(model, reference, data)
        figures = evaluate(
            by_name(attacked) if name_only else attacked,
            serve,
            child,
            work or user_cache_path("lethe") / "eval-attacks",
            attacks=rows,
            configurations=columns,
            seed=seed,
            limit=few,
            place="" if running is None else place_of(running),
            progress=progress,
        )
    finish(json_file, figures)
    console = Console()
    console.width = max(console.width, _LABELS + _COLUMN * len(columns))
    console.print(_table(subject, figures))
    total = figures["total"]
    said = f"Of {total['attempts']:,} attempts, {total['told_by_untouched']:,} get a fact out of the untouched model."
    console.print(said, highlight=False, soft_wrap=True)
    console.print(f"One cell again: {_again()} --attacks 'ROW' --guards 'COLUMN'", highlight=False, soft_wrap=True)


def _again() -> str:
    """The command as it was given, to which other rows and columns can be added: the last of an option counts. A
    folder of its own has it ask the server anew."""
    return shlex.join(["lethe", *command_line(), "--work", "DIR", "--json", "FILE"])


def _demo(progress: Progress) -> Subject:
    from server.demo.model import build
    from server.demo.recipe import Recipe
    from server.evaluation.attacks.demo import demo

    def never_knew() -> Path:
        return build(Recipe(without_forget=True), progress=progress).folder

    return demo(build(Recipe(), progress=progress).folder, never_knew)


def _tofu(model: Path, reference: Path, data: Path) -> Subject:
    from server.evaluation.attacks.tofu import tofu

    return tofu(model, reference, data)


def _table(subject: str, figures: Mapping[str, Any]) -> Table:
    from server.evaluation.report.quality import attack_label

    columns = figures["columns"]
    table = Table("attack", "n", *columns, title=f"{subject}: share of attempts that leak")

    def add(label: str, n: object, rates: Mapping[str, float]) -> None:
        table.add_row(label, str(n), *(rate(rates.get(name)) for name in columns))

    for row in figures["rows"]:
        add(attack_label(figures, row), figures["n"][row][columns[0]], figures["leak_rate"][row])
    table.add_section()
    for row, rates in figures["membership_advantage"].items():
        add(f"{row}: advantage", "", rates)
    table.add_section()
    add("mixed prompt: retain half answered", "", figures["mixed_retain_answered"])
    add("retain: as untouched", figures["n_retain"], figures["retain"])
    add("benign: changed", figures["n_benign"], figures["benign_false_alarms"])
    return table
