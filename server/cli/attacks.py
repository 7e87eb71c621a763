"""``lethe eval attacks``: the matrix of attacks and guards."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table

from server.cli.measuring import AdminKey, BaseUrl, JsonFile, Work, bars, write

app = typer.Typer()

_SHARED = Path("../shared")
_QUICK = 8


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
    attacks: Annotated[str | None, typer.Option(help="Rows, with commas between them; all by default.")] = None,
    guards: Annotated[str | None, typer.Option(help="Columns, with commas between them; most by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many attempts of each attack.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"The same as --limit {_QUICK}, on few columns.")] = False,
    seed: Annotated[int, typer.Option(help="Decides which facts are attacked, and how.")] = 0,
    json_file: JsonFile = None,
    base_url: BaseUrl = None,
    admin_key: AdminKey = "",
    work: Work = None,
) -> None:
    """Attack what a model was made to forget: every attack against every configuration of guards.

    Those who are to be forgotten are registered as an operator would who honours a takedown: in the demo world with a
    description and a document, TOFU's authors with their own questions and answers. Each configuration is a tenant of
    one server. A cell is the share of attempts in which the attacker was shown what the prompt had not said.
    """
    from server.child import ServerFailed
    from server.evaluation.admin import Endpoint, ServedError
    from server.evaluation.attacks.configurations import COLUMNS, CONFIGURATIONS, QUICK
    from server.evaluation.attacks.evaluate import evaluate
    from server.evaluation.attacks.kinds import ATTACKS
    from server.evaluation.attacks.subjects import Subject
    from server.evaluation.child import child

    console = Console(stderr=True)
    rows = _chosen(console, attacks, ATTACKS, tuple(ATTACKS))
    columns = _chosen(console, guards, CONFIGURATIONS, QUICK if quick else COLUMNS)
    place = "" if base_url is None else base_url.rstrip("/").removesuffix("/v1")

    def build(progress: Any) -> Subject:
        if subject is SubjectName.DEMO:
            from server.evaluation.attacks.demo import demo

            return demo(progress)
        from server.evaluation.attacks.tofu import tofu

        return tofu(model, reference, data)

    def serve(folder: Path) -> AbstractContextManager[Endpoint]:
        return nullcontext(Endpoint(place, admin_key)) if place else child(folder, _ENVIRONMENT)

    with bars(console) as report:
        try:
            figures = evaluate(
                build(report),
                serve,
                lambda folder: child(folder, _ENVIRONMENT),
                work or user_cache_path("lethe") / "eval-attacks",
                attacks=rows,
                configurations=columns,
                seed=seed,
                limit=min(limit or _QUICK, _QUICK) if quick else limit,
                place=place,
                progress=report,
            )
        except (OSError, ValueError, KeyError, ServedError, ServerFailed, httpx.HTTPError) as error:
            console.print(f"lethe eval attacks: {error or type(error).__name__}", highlight=False, markup=False)
            raise typer.Exit(2) from None
    figures["command"] = shlex.join(["lethe", *sys.argv[1:]])
    if json_file is not None:
        write(json_file, figures)
    Console().print(_table(subject, figures))


#: Without it vLLM keeps no responses, and there would be none of another tenant's to ask for.
_ENVIRONMENT = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}


def _chosen(console: Console, wanted: str | None, known: Mapping[str, object], default: Sequence[str]) -> list[str]:
    chosen = list(default) if wanted is None else [name.strip() for name in wanted.split(",")]
    if unknown := [name for name in chosen if name not in known]:
        console.print(f"lethe eval attacks: no {unknown[0]!r}; there are {', '.join(known)}", highlight=False)
        raise typer.Exit(2)
    return chosen


def _table(subject: str, figures: Mapping[str, Any]) -> Table:
    columns = figures["columns"]
    table = Table("attack", "n", *columns, title=f"{subject}: share of attempts that leak")
    for row in figures["rows"]:
        rates = figures["leak_rate"][row]
        table.add_row(row, str(figures["n"][row]["none"]), *(f"{rates[name]:.3f}" for name in columns))
    table.add_section()
    for label, key in (("retain: as untouched", "retain"), ("benign: changed", "benign_false_alarms")):
        table.add_row(label, str(figures[f"n_{label.split(':')[0]}"]), *(_rate(figures[key], name) for name in columns))
    return table


def _rate(rates: Mapping[str, float], name: str) -> str:
    return f"{rates[name]:.3f}" if name in rates else ""
