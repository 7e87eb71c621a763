"""What the commands that talk to a running server share: the connection, its errors, names for ids, output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NoReturn

import httpx
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Url = Annotated[str, typer.Option("--url", envvar="LETHE_URL", help="Where the server is.")]
AdminKey = Annotated[str, typer.Option("--admin-key", envvar="LETHE_ADMIN_KEY", help="An admin key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

DEFAULT_URL = "http://127.0.0.1:8000"

#: Registering a long document takes a while, and a busy CPU serves the model first.
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)

Kind = Literal["targets", "tenants"]
_ID_PREFIX: Mapping[Kind, str] = {"targets": "tgt_", "tenants": "ten_"}


class CommandError(Exception):
    """Something to tell the user in one line."""


class AdminClient:
    """The admin API of one server. Every method raises :class:`CommandError` when the server says no."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def request(self, method: str, path: str, *, body: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Send a request to ``/v1/guard`` + ``path``; the decoded answer, None if it is empty."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        response = self._http.request(method, f"/v1/guard{path}", json=body, params=given)
        if response.is_error:
            raise CommandError(_message(response))
        return response.json() if response.content else None

    def events(self, path: str) -> Iterator[str]:
        """The data of the server-sent events of ``/v1/guard`` + ``path``, until the server ends them."""
        with self._http.stream("GET", f"/v1/guard{path}", timeout=None) as response:
            if response.is_error:
                response.read()
                raise CommandError(_message(response))
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield line.removeprefix("data: ")

    def all_of(self, kind: Kind) -> Iterator[Any]:
        """All targets or tenants, page by page as they are taken."""
        after: str | None = None
        while True:
            page = self.request("GET", f"/{kind}", params={"limit": 1000, "after": after})
            yield from page["data"]
            after = page["next"]
            if after is None:
                return

    def id_of(self, kind: Kind, reference: str) -> str:
        """The id of the target or tenant that has this id or name."""
        if reference.startswith(_ID_PREFIX[kind]):
            return reference
        found = self.request("GET", f"/{kind}", params={"name": reference})["data"]
        if not found:
            raise CommandError(f"there is no {kind.removesuffix('s')} named {reference!r}")
        return str(found[0]["id"])


def merged(current: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, and where that is None what is so already, if anything is."""
    known = {**current, **{name: value for name, value in given.items() if value is not None}}
    return {name: known[name] for name in given if name in known}


@contextmanager
def connect(url: str, admin_key: str) -> Iterator[AdminClient]:
    """A client of the server at ``url``. Errors inside the block end the command: one line on stderr, exit status 2."""
    headers = {"Authorization": f"Bearer {admin_key}"} if admin_key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT) as http:
            yield AdminClient(http)
    except CommandError as error:
        fail(str(error))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fail(f"cannot talk to {url}: {error or type(error).__name__}")
    except UnicodeEncodeError:
        fail("the admin key must be plain ASCII")


def fail(message: str) -> NoReturn:
    """End the command with one line on stderr and exit status 2."""
    typer.echo(f"lethe: {' '.join(message.split())}", err=True)
    raise typer.Exit(2)


def print_json(data: Any) -> None:
    """Print ``data`` as indented JSON."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_list(items: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print items as a JSON list, or these columns of them as a table."""
    if as_json:
        print_json(list(items))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper().replace("_", " "), overflow="fold")
    for item in items:
        table.add_row(*(Text(_cell(item.get(column))) for column in columns))
    _console().print(table)


def print_object(data: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one object as JSON, or its fields one per line."""
    if as_json:
        print_json(data)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in data.items():
        table.add_row(name, Text(_cell(value)))
    _console().print(table)


def note(message: str) -> None:
    """Say something to people, beside the output proper."""
    typer.echo(message, err=True)


def _console() -> Console:
    # Into a file or a pipe, lines must not break at the 80 columns that rich would assume.
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False) if value else "-"
    return str(value)


def _message(response: httpx.Response) -> str:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {response.status_code} {response.reason_phrase}"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return f"{message} Give an admin key by --admin-key or LETHE_ADMIN_KEY."
    return message
