"""``lethe sae``: train a sparse autoencoder for a model that has none, and look at the features of a target."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.client import DEFAULT_URL, AdminKey, AsJson, CommandError, Url, connect, fail

if TYPE_CHECKING:
    from sae_features.quality import Quality
    from sae_features.training import TrainingSettings

app = typer.Typer(help="Sparse autoencoders: what the features of the model stand for.", no_args_is_help=True)

Files = list[Path] | None
#: The share of the texts that is kept back to measure the result on, and the most of them.
_KEPT_BACK, _MOST_KEPT = 20, 200


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def train(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The model, as lethe serve takes it. Flags of vllm serve may follow.")],
    layer: Annotated[int, typer.Option(help="Read the residual stream after this layer, counted from 0.", min=0)],
    output: Annotated[
        Path, typer.Option(help="Folder for the result; an interrupted training goes on from it.", file_okay=False)
    ],
    text: Annotated[
        Files, typer.Option(help="File of texts, one a line. Repeatable.", exists=True, dir_okay=False)
    ] = None,
    prompts: Annotated[
        Files,
        typer.Option(help="File of user messages, one a line; answered by the model.", exists=True, dir_okay=False),
    ] = None,
    width: Annotated[int, typer.Option(help="Features.", min=1)] = 4096,
    k: Annotated[int, typer.Option("--k", help="Active features of a token, on average.", min=1)] = 32,
    tokens: Annotated[int, typer.Option(help="Tokens to train on.", min=1)] = 400_000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 2e-3,
    longest: Annotated[int, typer.Option(help="Tokens after which a text is cut.", min=2)] = 256,
    as_json: AsJson = False,
) -> None:
    """Train an autoencoder on what the serving engine computes while it reads texts, and print how good it is."""
    from sae_features.training import TrainingSettings, check

    console = Console(stderr=True)
    if not text and not prompts:
        console.print("lethe: give --text or --prompts: something must be read", style="red", highlight=False)
        raise typer.Exit(2)
    settings = TrainingSettings(layer=layer, width=width, k=k, tokens=tokens, learning_rate=learning_rate)
    try:
        # Whatever can be wrong is said before the engine starts, which may take minutes.
        check(settings, output)
        said, asked = _lines(text or ()), _lines(prompts or ())
        if not said and not asked:
            raise ValueError("the files hold no texts")
        quality = asyncio.run(_train(model, ctx.args, settings, output, said, asked, longest, console))
    except KeyboardInterrupt:
        console.print(f"lethe: interrupted; the same command goes on from {output}", highlight=False)
        raise typer.Exit(130) from None
    except ValueError as error:
        fail(str(error))
    measured = asdict(quality)
    if as_json:
        typer.echo(json.dumps({"path": str(output), **measured}))
        return
    typer.echo(f"explained variance {quality.explained_variance:.4f}")
    typer.echo(f"active features a token (L0) {quality.l0:.1f}")
    typer.echo(f"dead features {quality.dead} of {width}, over {quality.tokens} tokens that were kept back")
    typer.echo(f"lethe serve {model} --sae {output}")


def _lines(files: Sequence[Path]) -> list[str]:
    """The lines of some files that hold anything.

    Raises:
        ValueError: one cannot be read, or is no text.
    """
    from server.autoencoders import read_lines

    lines = []
    for file in files:
        try:
            lines += read_lines([file])
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read as UTF-8 text ({type(error).__name__})") from error
    return lines


async def _train(
    model: str,
    flags: list[str],
    settings: TrainingSettings,
    output: Path,
    text: Sequence[str],
    prompts: Sequence[str],
    longest: int,
    console: Console,
) -> Quality:
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from guard.probe import EngineProbe
    from guard.worker import take_worker
    from sae_features.quality import measure
    from sae_features.training import Progress as Told
    from sae_features.training import train as train_autoencoder
    from server.autoencoders import Activations, conversations, pieces

    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", model, *flags])
    take_worker(args)
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(build_async_engine_client(args))
        except (RuntimeError, OSError) as error:  # vLLM has said more of it before
            raise ValueError(f"the engine does not start: {error}") from error
        probe = EngineProbe(engine)
        if settings.layer >= probe.layers:
            raise ValueError(f"the model has layers 0 to {probe.layers - 1}")
        longest = min(longest, engine.model_config.max_model_len - 1)
        texts = [piece for line in text for piece in pieces(probe.tokenizer, line, longest)]
        texts += [ids[:longest] for ids in await conversations(probe, prompts)]
        if len(texts) < 2:
            raise ValueError("there are fewer than two texts")
        kept = texts[:: max(_KEPT_BACK, len(texts) // _MOST_KEPT)]
        known = {id(one) for one in kept}
        # What was trained on before an interruption must not come first again.
        seed = sum(1 for _ in output.glob("checkpoint-*")) + int(output.exists())
        rest = [one for one in texts if id(one) not in known]
        activations = Activations(probe, settings.layer, rest, asyncio.get_running_loop(), seed)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("training", total=settings.tokens, told="")

            def show(told: Told) -> None:
                line = f"explained variance {told.explained_variance:.3f}, L0 {told.l0:.0f}, dead {told.dead}"
                progress.update(task, completed=told.tokens, told=line)
                if not console.is_terminal:
                    console.print(f"{told.tokens} of {told.total} tokens: {line}", highlight=False)

            trained = await asyncio.to_thread(train_autoencoder, iter(activations), settings, output, progress=show)
        return measure(trained, [await activations.read([one]) for one in kept])


@app.command()
def features(
    target: Annotated[str, typer.Argument(help="Name or id of a target.")],
    plot: Annotated[
        Path | None, typer.Option(help="Write how they separate the target from other text, as PNG.")
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Show the features that were chosen for a target, where they are most active, and how well they tell it."""
    with connect(url, admin_key) as client:
        target_id = client.id_of("targets", target)
        fitted = client.request("GET", f"/targets/{target_id}/report")["data"]
        found = next((one for one in fitted if one["intervention"] == "features"), None)
        if found is None:
            raise CommandError(f"no features are fitted for {target!r}: lethe target compile --intervention features")
    report = found["report"]
    if plot is not None:
        _plot(report["separation"], target, plot)
    if as_json:
        typer.echo(json.dumps(found))
        return
    recall = ", ".join(f"{name} {value:.0%}" for name, value in report["recall_held_out"].items())
    typer.echo(f"layer {found['settings']['layer']}, rule {report['rule']}; found of questions held back: {recall}")
    for one in report["features"]:
        typer.echo(f"feature {one['feature']}: {one['importance']:g} here, {one['elsewhere']:g} elsewhere")
        for snippet in one["snippets"]:
            typer.echo(f"    {' '.join(snippet.split())}")


def _plot(separation: dict[str, list[float]], target: str, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    low, high = min(map(min, separation.values())), max(map(max, separation.values()))
    for name, values in separation.items():
        axes.hist(values, bins=40, range=(low, high), density=True, alpha=0.6, label=f"{name} ({len(values)} prompts)")
    axes.set(xlabel="what the tokens of a prompt say on average", ylabel="density", title=target)
    axes.legend()
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:  # no such folder, or a suffix that stands for no kind of picture
        fail(f"{file} cannot be written: {error}")
