"""What all suites of ``lethe eval`` share on the command line: options, progress bars, and files of figures."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from server.child import ServerFailed, ending_on_sigterm
from server.evaluation.admin import Endpoint, ServedError, admin

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many rows of each kind, for a quick look.")]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="A running server of the model; targets and tenants are added to it and taken away again."),
]
AdminKey = Annotated[str, typer.Option(envvar="LETHE_ADMIN_KEY", help="An admin key of that server.")]
Work = Annotated[
    Path | None,
    typer.Option(
        help="Keep raw results here, for later runs to go on with; by default in the cache. Of a running server they "
        "are told apart by its URL, vLLM's version and its model's path: another model at the same path, or other "
        "settings, need another folder."
    ),
]
Data = Annotated[Path, typer.Option(help="Folder of the suite's files.")]


#: What tells one served model from another.
_OF_A_MODEL = ("id", "root", "max_model_len")
_TIMEOUT = 30.0  # seconds

#: Options whose values nobody may read in a file of figures.
_KEYS = ("--admin-key", "--tenant-key")

#: The arguments of the command that one command runs on behalf of its user.
COMMAND: ContextVar[Sequence[str] | None] = ContextVar("command", default=None)


def command_line() -> Sequence[str]:
    """The arguments of ``lethe`` by which a figure is measured again, without the keys: figures are handed on."""
    given = COMMAND.get() or sys.argv[1:]
    return [_shown(before, argument) for before, argument in zip(["", *given], given, strict=False)]


def _shown(before: str, argument: str) -> str:
    """An argument as it may be seen by anybody; ``before`` is the one in front of it."""
    option, equals, _ = argument.partition("=")
    if equals and option in _KEYS:
        return f"{option}=…"
    return "…" if before in _KEYS else argument


@contextmanager
def bars(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A callback that shows a bar for each label."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as shown:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = shown.add_task(label, total=total)
            shown.update(tasks[label], completed=done)

        yield report


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(figures, indent=2) + "\n")
    temporary.replace(path)


def finish(json_file: Path | None, figures: dict[str, Any], *tables: Table) -> None:
    """Write the figures where a file was named, with the command that makes them again, and print tables of them."""
    figures["command"] = shlex.join(["lethe", *command_line()])
    if json_file is not None:
        write(json_file, figures)
    for table in tables:
        Console().print(table)


def chosen(names: str | None, known: Collection[str], default: Sequence[str] | None = None) -> list[str]:
    """The names in a list with commas between them, which must be known; by default all that are.

    Raises:
        ValueError: there is no such one.
    """
    if names is None:
        return list(known if default is None else default)
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise ValueError(f"there is no {name!r}; there are {', '.join(known)}")
    return wanted


def listed(names: Collection[str]) -> str:
    """What is to be said of an option that takes some of them."""
    return f"Some of these, with commas between them: {', '.join(names)}."


def endpoint(url: str, admin_key: str) -> Endpoint:
    """A running server, with or without ``/v1`` at the end of its URL."""
    return Endpoint(url.rstrip("/").removesuffix("/v1"), admin_key)


def rate(value: float | None) -> str:
    """A rate as it stands in tables."""
    return "" if value is None else f"{value:.3f}"


def server_of(
    model: Path, base_url: str | None, admin_key: str
) -> tuple[Callable[[], AbstractContextManager[Any]], str]:
    """What gives a server of a model, one of our own or one that runs; and the latter's :func:`place_of`.

    Raises:
        ServedError, httpx.HTTPError: the server that runs does not say what it is.
    """
    from server.evaluation.child import child

    if base_url is None:
        return partial(child, model), ""
    running = endpoint(base_url, admin_key)
    return lambda: nullcontext(running), place_of(running)


def place_of(running: Endpoint) -> str:
    """Names a server that runs, for what is kept of its answers: its URL, vLLM's version, and the models it serves.

    Raises:
        ServedError, httpx.HTTPError: it does not answer, or refuses.
    """
    version = httpx.get(f"{running.url}/version", timeout=_TIMEOUT)
    with admin(running) as api:  # an admin key is not told of models
        made = api.make("/tenants", {"name": f"lethe-eval-{secrets.token_hex(4)}"})
        headers = {"Authorization": f"Bearer {made['api_key']}"}
        served = httpx.get(f"{running.url}/v1/models", headers=headers, timeout=_TIMEOUT)
    served.raise_for_status()
    models = [[one.get(name) for name in _OF_A_MODEL] for one in served.json()["data"]]
    return json.dumps([running.url, version.text if version.is_success else "", models])


@contextmanager
def measuring(suite: str) -> Iterator[Callable[[str, int, int], None]]:
    """Bars for a suite; what goes wrong becomes one line and exit status 2, SIGTERM ends its servers too."""
    console = Console(stderr=True)
    try:
        with ending_on_sigterm(), bars(console) as progress:
            yield progress
    except (OSError, ValueError, KeyError, ServedError, ServerFailed, httpx.HTTPError) as error:
        what = f"there is no {error} in the data" if isinstance(error, KeyError) else error or type(error).__name__
        console.print(f"lethe eval {suite}: {what}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
