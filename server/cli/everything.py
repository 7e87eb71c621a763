"""``lethe eval all``: the suites one after the other, and one report."""

from __future__ import annotations

import shlex
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from server.child import ending_on_sigterm
from server.cli.measuring import COMMAND

app = typer.Typer()

#: The files that the suites leave in the folder, of whatever plan.
_FILES = (
    *("forgetting", "attacks_demo", "rwku", "overrefusal", "pistol", "knowundo", "documents", "tofu", "attacks_tofu"),
)

#: The exit status of a command that Ctrl-C ended.
_INTERRUPTED = 130


@app.command(name="all")
def everything(
    out: Annotated[
        Path, typer.Option(help="Folder for the figures and the report; figures of an earlier call are deleted first.")
    ] = Path("eval-results"),
    data: Annotated[Path, typer.Option(help="Folder of data; suites that need it are left out without.")] = Path(
        "../shared/data"
    ),
    models: Annotated[Path, typer.Option(help="Folder of TOFU's models; left out without.")] = Path("../shared/models"),
    guards: Annotated[str, typer.Option(help="Columns of the attack matrix.")] = "none,reference,all",
    methods: Annotated[str, typer.Option(help="Methods on TOFU.")] = "none,eco,lunar_gated,constrain+semantic",
    quick: Annotated[bool, typer.Option("--quick", help="A look: a few rows of everything but documents.")] = False,
) -> None:
    """Run every suite but `choices` and `harness`, and make one report of them.

    A suite that fails is said and the others still run; what it measured is kept, and a second call goes on with it.
    Suites that ask the same model share a server, and servers start while other suites run.
    """
    from server.evaluation.child import kept_servers

    console = Console(stderr=True)
    table = Table("suite", "seconds", "")
    failed = 0
    for name in _FILES:  # or the report would show what this call did not measure
        (out / f"{name}.json").unlink(missing_ok=True)
    with ending_on_sigterm(), kept_servers(_models(data, models, quick)):
        for arguments in _plan(out, data, models, guards, methods, quick):
            console.print(f"$ lethe eval {shlex.join(arguments)}", highlight=False, markup=False, soft_wrap=True)
            began = time.monotonic()
            status = _run(arguments)
            if status == _INTERRUPTED:
                raise typer.Exit(status)
            failed += status != 0
            table.add_row(arguments[0], f"{time.monotonic() - began:.0f}", "failed" if status else "")
    report = ["report", "--results", str(out), "--html", str(out / "report.html")]
    failed += _run([*report, "--markdown", str(out / "results.md")]) != 0
    console.print(table)
    raise typer.Exit(1 if failed else 0)


def _plan(out: Path, data: Path, models: Path, guards: str, methods: str, quick: bool) -> list[list[str]]:
    """The commands of ``lethe eval``, those that share a model beside each other."""

    def rows(few: int, many: int | None = None) -> list[str]:
        limit = few if quick else many
        return [] if limit is None else ["--limit", str(limit)]

    few = ["--quick"] if quick else []
    # A look does without the demo world's reference, and fits nothing to its targets: TOFU's shows both.
    columns = ",".join(one for one in guards.split(",") if not (quick and one.strip() == "reference"))
    plan = [
        ["demo", *(["--methods", "none,refuse"] if quick else []), *rows(2, 8), *_json(out, "forgetting")],
        ["attacks", "--subject", "demo", "--guards", columns, *few, *_json(out, "attacks_demo")],
    ]
    if not data.is_dir():
        return plan
    plan += [
        ["rwku", "--data", str(data / "rwku"), *rows(12), *_json(out, "rwku")],
        ["overrefusal", "--data", str(data), *rows(6, 400), *_json(out, "overrefusal")],
        ["pistol", "--data", str(data / "pistol"), *rows(2, 6), *_json(out, "pistol")],
        ["knowundo", "--data", str(data / "knowundo"), *rows(8), *_json(out, "knowundo")],
    ]
    if not quick:  # its model is trained first
        plan.append(["documents", "--data", str(data / "text"), *_json(out, "documents")])
    if models.is_dir():
        both = ["--model", str(models / "tofu-full"), "--reference", str(models / "tofu-retain90")]
        tofu = [*both, "--data", str(data / "tofu")]
        chosen = ["--methods", "none,eco" if quick else methods]
        plan += [
            ["tofu", *tofu, *chosen, *rows(4, 20), *_json(out, "tofu")],
            ["attacks", "--subject", "tofu", *tofu, "--guards", guards, *few, *_json(out, "attacks_tofu")],
        ]
    return plan


def _models(data: Path, models: Path, quick: bool) -> list[Path]:
    """The models that are asked, as far as they are there, in the order in which the plan wants them."""
    from server.demo.recipe import Recipe

    demo = [Recipe().folder] if quick else [Recipe(without_forget=True).folder, Recipe().folder]
    tofu = [models / "tofu-retain90", models / "tofu-full"] if data.is_dir() else []
    return [model for model in (*demo, *tofu) if model.is_dir()]


def _json(out: Path, name: str) -> list[str]:
    return ["--json", str(out / f"{name}.json")]


def _run(arguments: Sequence[str]) -> int:
    """The exit status of one command, run in this process, so that it finds the servers that are up."""
    from server.cli.evaluate import app as commands

    token = COMMAND.set(["eval", *arguments])
    try:
        return int(commands(list(arguments), standalone_mode=False) or 0)
    except typer.Exit as ended:
        return ended.exit_code
    except Exception:  # whatever it is, the other suites are worth running
        traceback.print_exc()
        return 1
    finally:
        COMMAND.reset(token)
