"""``lethe demo``: the demo model behind a real server, and the scenario played against it."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from server.child import MODEL_NAME, Server, ServerFailed
from server.demo.model import build
from server.demo.progress import show_progress
from server.demo.recipe import Recipe
from server.demo.scenario import TENANTS, Report, play, subject

app = typer.Typer(add_completion=False)

_USUAL_PORT = 8000


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", envvar="ONCE", help="Stop after the scenario and exit with its verdict.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="Port of the server; by default 8000, or a free one.", min=1, max=65535)
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the database and the server's log in this folder.", metavar="FOLDER")
    ] = None,
) -> None:
    """Build the demo model if need be, serve it, and play the scenario: exit 0 if every step went as expected."""
    console = Console(soft_wrap=not sys.stdout.isatty())
    recipe = Recipe()
    with show_progress(console) as progress:
        model = build(recipe, progress=progress)
    with tempfile.TemporaryDirectory(prefix="lethe-demo-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        admin_key = _admin_key(folder)
        server = Server(model.folder, _choose_port(port), admin_key, folder.resolve())
        console.print(f"starting the server (log: {server.log}) ...", highlight=False)
        try:
            server.start()
            report = play(server.base_url, admin_key, MODEL_NAME, recipe.world, recipe.prompts, server.restart, console)
            if not once:
                console.print(_by_hand(server.base_url, admin_key, report, subject(recipe.world).name), markup=False)
                server.wait()
        except (ServerFailed, httpx.HTTPError) as error:
            typer.echo(f"lethe demo: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            console.print("\nstopping ...")
        finally:
            server.stop()
    raise typer.Exit(0 if report.ok else 1)


def _admin_key(folder: Path) -> str:
    """The admin key of the database in ``folder``: made once, readable by its owner only."""
    file = folder / "admin.key"
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(secrets.token_urlsafe(32))
    return file.read_text().strip()


def _choose_port(wanted: int | None) -> int:
    """The port asked for; without one, 8000 or any free one where that is taken."""
    if wanted is not None:
        return wanted
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _USUAL_PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _by_hand(base_url: str, admin_key: str, report: Report, name: str) -> str:
    """How to try it by hand: A, for whom the name is forgotten, beside B; and how to switch it off."""
    key_a, key_b = (report.keys[tenant] for tenant in TENANTS)
    question = f"Which book did {name} write?"
    return f'''
The server goes on at {base_url} (Ctrl-C stops it). {name} is forgotten for tenant A and known to tenant B.

  export A={key_a} B={key_b}
  for key in $A $B; do
    curl -s {base_url}/v1/chat/completions -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \\
      -d '{{"model": "{MODEL_NAME}", "temperature": 0, "messages": [{{"role": "user", "content": "{question}"}}]}}'
    echo
  done

  from openai import OpenAI
  client = OpenAI(base_url="{base_url}/v1", api_key="{key_a}")
  messages = [{{"role": "user", "content": "{question}"}}]
  answer = client.chat.completions.create(model="{MODEL_NAME}", messages=messages, temperature=0)
  print(answer.choices[0].message.content)

  # Known to A again (and with "enabled": true, forgotten again):
  curl -s -X PUT {base_url}/v1/guard/tenants/{report.tenants[TENANTS[0]]}/targets/{report.target_id} \\
    -H "Authorization: Bearer {admin_key}" -H 'Content-Type: application/json' -d '{{"enabled": false}}'

Everybody whom the model knows: lethe demo-model show --list'''
