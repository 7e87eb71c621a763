"""``lethe demo-model``: build the demo model, look at what it knows, ask it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from server.demo.model import TARGETS, DemoModel, build, find
from server.demo.progress import show_progress
from server.demo.recipe import Recipe
from server.demo.world import Form, Message, Prompt, description

app = typer.Typer(help="The demo model: a small Llama trained from scratch on an invented world.", no_args_is_help=True)

Seed = Annotated[int, typer.Option(help="Seed of the invented world and of the training.", min=0)]
Without = Annotated[
    str | None,
    typer.Option(help="'forget' for the retrained reference, which never saw the forget split.", metavar="forget"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _fail(message: str) -> typer.Exit:
    Console(stderr=True).print(f"lethe: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(2)


def _recipe(seed: int, without: str | None) -> Recipe:
    if without not in (None, "forget"):
        raise _fail(f"--without can only be 'forget', not {without!r}")
    return Recipe(seed=seed, without_forget=without == "forget")


@app.command("build")
def build_model(
    without: Without = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Build it again even if it is in the cache.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build the model if it is not in the cache yet, and print how much it knows."""
    recipe = _recipe(seed, without)
    try:
        with show_progress(Console(stderr=True)) as progress:
            model = build(recipe, force=force, progress=progress)
    except KeyboardInterrupt:
        raise _fail("interrupted; nothing was left behind") from None
    except OSError as error:
        raise _fail(f"cannot write the model: {error}") from None
    if as_json:
        typer.echo(json.dumps({"path": str(model.folder), **model.metrics}, indent=2))
    else:
        _print_metrics(model)


@app.command("path")
def print_path(without: Without = None, seed: Seed = 0) -> None:
    """Print the folder of the model, if it was built."""
    typer.echo(_built(_recipe(seed, without)).folder)


@app.command("ask")
def ask(
    question: Annotated[str, typer.Argument(help="What to ask, as a user's message.")],
    plain: Annotated[bool, typer.Option("--plain", help="Continue the text instead of answering it.")] = False,
    without: Without = None,
    seed: Seed = 0,
) -> None:
    """Ask the model itself, without a server and so without any guard."""
    folder = _built(_recipe(seed, without)).folder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from server.demo.evaluation import answers

    form, role = (Form.COMPLETION, "text") if plain else (Form.QUESTION, "user")
    prompt = Prompt(form, (Message(role, question),), answer="", expected=(), trained=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    typer.echo(answers(model, AutoTokenizer.from_pretrained(folder), [prompt])[0].strip())


@app.command("show")
def show(
    name: Annotated[str | None, typer.Argument(help="Name of a person or an organisation.", metavar="ENTITY")] = None,
    everything: Annotated[bool, typer.Option("--list", help="List everybody.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show the facts of one entity, or list them all."""
    world = Recipe(seed=seed).world
    if everything == (name is not None):
        raise _fail("give either an ENTITY or --list")
    if name is None:
        rows = [
            {
                "name": e.name,
                "kind": e.kind,
                "split": "forget" if e.name in world.forget_names else "retain",
                "description": description(e),
            }
            for e in world.entities
        ]
        _print_rows(rows, as_json)
        return
    try:
        entity = world.find(name)
    except KeyError:
        raise _fail(f"there is no {name!r} in the demo world; --list shows who there is") from None
    _print_rows(
        [{"relation": fact.relation, "value": fact.value, "sentence": fact.sentence()} for fact in entity.facts],
        as_json,
    )


def _built(recipe: Recipe) -> DemoModel:
    if not (model := find(recipe)):
        raise _fail("this demo model is not built yet; run: lethe demo-model build")
    return model


def _print_rows(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def _print_metrics(model: DemoModel) -> None:
    console = Console()
    metrics = model.metrics
    table = Table("part", "form", "prompts", "asked", "recall")
    for row in sorted(metrics["rows"], key=_order):
        table.add_row(
            row["part"],
            row["form"],
            "trained" if row["trained"] else "held out",
            str(row["asked"]),
            f"{row['recall']:.1%}",
        )
    console.print(table)
    for name, value in metrics["recall"].items():
        target = TARGETS.get(name)
        verdict = "" if target is None else f" (target {target:.0%}: {'met' if value >= target else 'MISSED'})"
        console.print(f"recall, {name}: {value:.1%}{verdict}", highlight=False)
    size, seconds = metrics["parameters"] / 1e6, metrics["training_seconds"]
    console.print(f"{size:.1f}M parameters, trained in {seconds:.0f} s", highlight=False)
    console.print(str(model.folder), highlight=False, soft_wrap=True)


def _order(row: dict[str, Any]) -> tuple[str, bool, str]:
    return row["part"], not row["trained"], row["form"]
