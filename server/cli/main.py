"""Finds the command that was asked for. Each lives in the module of its name and is imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
import sys
from importlib.metadata import version

from rich.console import Console
from rich.table import Table

#: command -> (module, one line for ``lethe --help``)
_COMMANDS = {
    "serve": ("server.cli.serve", "Serve a model with guardrails: every flag of vllm serve, and --lethe-*."),
    "demo": ("server.cli.demo", "Play the demo scenario against a real server."),
    "demo-model": ("server.cli.demo_model", "Build and inspect the demo model and its invented world."),
    "target": ("server.cli.target", "Register and manage forget targets."),
    "tenant": ("server.cli.tenant", "Manage tenants, their keys, targets and guards."),
    "check": ("server.cli.check", "Judge a text without generating."),
    "audit": ("server.cli.audit", "Read what the guards did."),
    "sae": ("server.cli.sae", "Train sparse autoencoders and look at the features of targets."),
    "eval": ("server.cli.evaluate", "Measure the guards on benchmarks."),
}


def main() -> None:
    """Entry point of ``lethe``."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in _COMMANDS:
        module, _ = _COMMANDS[command]
        importlib.import_module(module).app(args=arguments, prog_name=f"lethe {command}")
    elif command in ("--help", "-h", "help"):
        _help(Console())
    elif command in ("--version", "-V"):
        Console().print(version("lethe"), highlight=False)
    else:
        near = difflib.get_close_matches(command, _COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "lethe --help lists the commands."
        Console(stderr=True).print(f"lethe: no command {command!r}; {hint}", highlight=False)
        sys.exit(2)


def _help(console: Console) -> None:
    console.print("Lethe makes a served language model forget: an inference-time guardrail server around vLLM.\n")
    console.print("Usage: lethe COMMAND [OPTIONS]; lethe COMMAND --help says more.\n", highlight=False)
    table = Table.grid(padding=(0, 3))
    for name, (_, summary) in _COMMANDS.items():
        table.add_row(f"  [bold]{name}[/bold]", summary)
    console.print(table)
