"""``lethe serve``: ``vllm serve`` with guardrails."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any

import typer

app = typer.Typer(add_completion=False)

_USAGE = "lethe serve [MODEL] [any vllm serve flag] [--lethe-* flags]"


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def serve(ctx: typer.Context) -> None:
    """Serve MODEL with every flag of ``vllm serve``; Lethe's own begin with --lethe- (LETHE_* in the environment)."""
    args, settings_overrides = _parse(ctx.args)

    import uvloop
    from pydantic import ValidationError
    from vllm.entrypoints.cli.serve import ServeSubcommand

    from server.settings import Settings

    if args.headless:  # a worker node of a larger engine: it takes no requests, so there is nothing to guard
        ServeSubcommand.cmd(args)
        return
    for flag, value in (
        ("--grpc", getattr(args, "grpc", False)),
        ("--api-server-count", (args.api_server_count or 1) > 1),
    ):
        if value:
            _fail(f"{flag} is not supported: it would open a way to the model that is not guarded.")
    try:
        settings = Settings(**settings_overrides)
    except ValidationError as error:
        first = error.errors()[0]
        _fail(f"--lethe-{'-'.join(map(str, first['loc']))}: {first['msg']}".replace("_", "-"))
    args.api_server_count = None
    _add_taps(args)

    from sae_features.autoencoder import AutoencoderError
    from server.app import run

    try:
        uvloop.run(run(args, settings))
    except (AutoencoderError, FileNotFoundError) as error:
        if settings.sae is None:
            raise
        _fail(" ".join(str(error).split()))


def _parse(argv: list[str]) -> tuple[Namespace, dict[str, Any]]:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import VLLM_SUBCMD_PARSER_EPILOG, cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from server.settings import Settings

    cli_env_setup()
    parser = make_arg_parser(FlexibleArgumentParser(prog="lethe serve", usage=_USAGE))
    parser.epilog = VLLM_SUBCMD_PARSER_EPILOG.format(subcmd="serve").replace("vllm serve", "lethe serve")
    group = parser.add_argument_group("Lethe", "Guardrail settings; each can be given as LETHE_* too.")
    names = {}
    for name, field in Settings.model_fields.items():
        flag = f"--lethe-{name.replace('_', '-')}"
        short = ["--sae"] if name == "sae" else []
        names[group.add_argument(flag, *short, dest=f"lethe_{name}", default=None, help=field.description).dest] = name
    args = parser.parse_args(argv)
    configure_logging_from_args(args)
    if getattr(args, "model_tag", None) is not None:
        args.model = args.model_tag
    validate_parsed_serve_args(args)
    overrides = {name: value for dest, name in names.items() if (value := vars(args).pop(dest)) is not None}
    return args, overrides


def _add_taps(args: Namespace) -> None:
    """Have the workers carry Lethe's taps, without which nothing can be forgotten inside the model."""
    from vllm.platforms import current_platform

    from guard.worker import RUNNER, take_worker

    unsupported = {
        "a --worker-cls of your own": args.worker_cls != "auto",
        "--speculative-config": args.speculative_config is not None,  # drafted tokens would be counted
        "--pipeline-parallel-size": args.pipeline_parallel_size > 1,  # a verdict is read at one stage only
        "--data-parallel-size": args.data_parallel_size > 1,  # and of one engine only
        "vLLM's V2 model runner": os.environ.get(RUNNER, "0") != "0",
    }
    if reasons := [name for name, given in unsupported.items() if given]:
        told = "what acts inside the model is a refusal, and what is always on there does not act."
        typer.echo(f"lethe serve: with {' and '.join(reasons)}, {told}", err=True)
    elif current_platform.is_cpu():
        take_worker(args)
    else:
        told = (
            "on this device every action but prefix is a refusal, and what is always on inside the model does not act."
        )
        typer.echo(f"lethe serve: {told}", err=True)


def _fail(message: str) -> None:
    typer.echo(f"lethe serve: {message}", err=True)
    sys.exit(2)
