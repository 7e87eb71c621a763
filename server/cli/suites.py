"""``lethe eval``: suites that ask a server."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from platformdirs import user_cache_path
from rich.box import SIMPLE
from rich.table import Column, Table

from server.cli.measuring import (
    AdminKey,
    BaseUrl,
    Data,
    JsonFile,
    Limit,
    Work,
    chosen,
    finish,
    listed,
    measuring,
    rate,
    server_of,
)
from server.evaluation.suites.demo.methods import METHODS, REFERENCE, Told

if TYPE_CHECKING:
    from server.evaluation.suites.guarded import Guarded

app = typer.Typer()

Seed = Annotated[int, typer.Option(min=0, help="Seed of the demo world and of its model.")]
Targets = Annotated[
    Path | None, typer.Option(help="Targets to register meanwhile: a JSON list of bodies of POST /targets.")
]
Action = Annotated[str, typer.Option(help="What is done about these targets.")]
TenantKey = Annotated[
    str, typer.Option(envvar="LETHE_TENANT_KEY", help="Measure the guards of this tenant of a running server.")
]


@app.command()
def demo(
    json_file: JsonFile = None,
    methods: Annotated[str | None, typer.Option(help=f"{listed([*METHODS, REFERENCE])} All by default.")] = None,
    told: Annotated[
        Told, typer.Option(help="What the server is told of each target, beside its name.")
    ] = Told.DOCUMENT,
    sequential: Annotated[
        int, typer.Option(min=0, help="Forget up to so many people one after the other, and measure on the way.")
    ] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many prompts of each part, form and kind.")] = 20,
    base_url: BaseUrl = None,
    admin_key: AdminKey = "",
    work: Work = None,
    seed: Seed = 0,
) -> None:
    """The demo world: is every form of a question forgotten, and nothing else?

    The ten people that the demo world has to forget are registered and are on for one tenant per method. Asked is
    about them and about everybody else, in every form, trained or kept back, and about things that concern nobody. The
    `reference`, trained without these people, is measured if it is there: `lethe demo-model build --without forget`.
    """
    from server.demo.model import build, find
    from server.demo.recipe import Recipe
    from server.evaluation.child import child
    from server.evaluation.suites.demo.protocol import evaluate

    recipe = Recipe(seed=seed)
    with measuring("demo") as progress:
        build(recipe, progress=progress)
        serve, place = server_of(recipe.folder, base_url, admin_key)
        wanted = chosen(methods, [*METHODS, REFERENCE])
        without = find(replace(recipe, without_forget=True)) if REFERENCE in wanted else None
        figures = evaluate(
            recipe,
            serve,
            work or user_cache_path("lethe") / "eval-demo",
            place=place,
            reference=None if without is None else partial(child, without.folder),
            methods=[method for method in wanted if method != REFERENCE],
            told=told,
            sequential=sequential,
            limit=limit,
            progress=progress,
        )
    tables = [_demo_table(figures["methods"])]
    if figures["sequential"]:
        tables.append(_sequential_table(figures["sequential"]))
    finish(json_file, figures, *tables)


@app.command()
def documents(
    data: Data,
    json_file: JsonFile = None,
    limit: Annotated[int, typer.Option(min=2, help="Passages of each text.")] = 30,
    work: Work = None,
) -> None:
    """Documents, after MUSE: is a text that a model knows by heart recited, told, or given away by probabilities?

    A small model is trained (some minutes, once) on two stretches of public-domain books; one of them is registered as
    a document. `leak` is the guard of the output alone, `default` are all guards.
    """
    from server.evaluation.child import child
    from server.evaluation.suites.documents.protocol import evaluate

    with measuring("documents") as progress:
        figures = evaluate(
            data, work or user_cache_path("lethe") / "eval-documents", child, limit=limit, progress=progress
        )
    finish(json_file, figures, _documents_table(figures["methods"]))


def _documents_table(methods: dict[str, Any]) -> Table:
    parts = ("forget", "retain")
    columns = [f"{name}\n{part}" for name in ("Verb", "chat", "run", "Know") for part in parts]
    title = "Documents known by heart: VerbMem, the same in chat, longest run of words, KnowMem, PrivLeak"
    table = Table(Column("method", no_wrap=True), *columns, "Priv", title=title)
    for method, found in methods.items():
        verbmem = [found["verbmem"][part] for part in parts]
        cells = [rate(shapes[shape]["rouge_l"]) for shape in ("plain", "chat") for shapes in verbmem]
        runs = [str(max(shape["longest_run"] for shape in shapes.values())) for shapes in verbmem]
        known = [rate(found["knowmem"][part]) for part in parts]
        table.add_row(method, *cells, *runs, *known, f"{found['privleak']:.1f}")
    return table


@app.command()
def choices(
    file: Annotated[Path, typer.Argument(help="Questions as JSON, a list or one a line: question, choices, answer.")],
    model: Annotated[Path, typer.Option(help="The model.")],
    targets: Targets = None,
    action: Action = "auto",
    tenant_key: TenantKey = "",
    json_file: JsonFile = None,
    limit: Limit = None,
    base_url: BaseUrl = None,
    admin_key: AdminKey = "",
    work: Work = None,
) -> None:
    """Multiple choice, as in WMDP: how accurate is a model with and without a tenant's guards?

    The answer is the letter that the model finds likeliest.
    """
    from server.evaluation.suites.choices import evaluate
    from server.evaluation.suites.guarded import GUARDED
    from server.evaluation.tofu.methods import NONE

    with measuring("choices") as progress:
        guarded = _guarded(targets, tenant_key, action, base_url)
        serve, place = server_of(model, base_url, admin_key)
        figures = evaluate(
            file,
            str(model),
            serve,
            work or user_cache_path("lethe") / "eval-choices",
            guarded,
            place=place,
            limit=limit,
            progress=progress,
        )
    table = Table("", "accuracy", "undecided", title=f"{figures['n']} questions, chance {figures['chance']:.3f}")
    for name in (NONE, GUARDED):
        table.add_row(name, *(rate(figures[name][column]) for column in ("accuracy", "undecided")))
    finish(json_file, figures, table)


@app.command()
def harness(
    tasks: Annotated[str, typer.Argument(help="Names of tasks or groups of tasks, with commas between them.")],
    model: Annotated[Path, typer.Option(help="The model; its tokenizer is read here too.")],
    include: Annotated[Path | None, typer.Option(help="Folder with tasks of your own, as YAML.")] = None,
    fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each question; the task's own.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask with the model's chat template.")] = False,
    targets: Targets = None,
    action: Action = "auto",
    tenant_key: TenantKey = "",
    json_file: JsonFile = None,
    limit: Limit = None,
    base_url: BaseUrl = None,
    admin_key: AdminKey = "",
    work: Work = None,
) -> None:
    """Tasks of lm-evaluation-harness, with and without a tenant's guards: what do the guards cost in general ability?

    The harness asks by its own client (`local-completions`) and reads its tasks' data from disk where
    HF_DATASETS_OFFLINE is set. Needs `pip install 'lethe[harness]'`.
    """
    from server.evaluation.suites.harness import evaluate

    with measuring("harness"):
        guarded = _guarded(targets, tenant_key, action, base_url)
        serve, place = server_of(model, base_url, admin_key)
        figures = evaluate(
            [name.strip() for name in tasks.split(",")],
            str(model),
            serve,
            work or user_cache_path("lethe") / "eval-harness",
            guarded,
            place=place,
            include=include,
            fewshot=fewshot,
            chat=chat,
            limit=limit,
        )
    finish(json_file, figures, _harness_table(figures))


def _harness_table(figures: dict[str, Any]) -> Table:
    from server.evaluation.suites.guarded import GUARDED
    from server.evaluation.tofu.methods import NONE

    table = Table("task", "n", "metric", NONE, GUARDED, "stderr", title="lm-evaluation-harness")
    for task, metrics in figures[NONE].items():
        for metric, (value, error) in metrics.items():
            cells = (rate(value), rate(figures[GUARDED][task][metric][0]), rate(error))
            table.add_row(task, str(figures["n"].get(task, "")), metric, *cells)
    return table


def _guarded(targets: Path | None, tenant_key: str, action: str, base_url: str | None) -> Guarded:
    """Whose guards are measured.

    Raises:
        ValueError: that is not said, or the targets are not a JSON list of objects.
        OSError: their file cannot be read.
    """
    from server.evaluation.reading import json_list
    from server.evaluation.suites.guarded import Guarded

    if (targets is None) is (not tenant_key) or (tenant_key and base_url is None):
        raise ValueError("say whose guards: --targets, or --tenant-key (LETHE_TENANT_KEY) together with --base-url")
    bodies = json_list(targets) if targets is not None else []
    return Guarded(tenant_key, tuple(bodies), action)


def _demo_table(methods: dict[str, Any]) -> Table:
    columns = ("forget", "held\nout", "told", "worst\nform", "retain", "drop", "general", "LS")
    table = Table(Column("method", no_wrap=True), *columns, box=SIMPLE, title="Demo world: share of right answers")
    for method, parts in methods.items():
        forget = parts["forget"]
        table.add_row(
            method,
            *(rate(forget[name]) for name in ("recall", "held_out", "told", "worst_recall")),
            *map(rate, (parts["retain"]["recall"], parts["retain_drop"], parts["general"]["recall"], parts["ls"])),
        )
    return table


def _sequential_table(methods: dict[str, Any]) -> Table:
    columns = ("targets", "forget", "the first", "told", "retain", "general")
    table = Table(Column("method", no_wrap=True), *columns, title="One target after the other")
    for method, steps in methods.items():
        for step, parts in steps.items():
            forget = parts["forget"]
            cells = (forget["recall"], parts["earliest"]["recall"], forget["told"], parts["retain"]["recall"])
            table.add_row(method, str(step), *map(rate, (*cells, parts["general"]["recall"])))
    return table
