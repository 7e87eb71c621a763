"""``lethe check``: the verdict on a text, without generating."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from server.cli.client import DEFAULT_URL, AdminKey, AsJson, Url, connect, print_json, print_list, print_object

app = typer.Typer(add_completion=False)

_COLUMNS = ("target_name", "guard", "score", "threshold", "window", "evidence")


@app.command()
def check(
    text: Annotated[str, typer.Argument(help="The prompt to judge; - reads it from standard input.")],
    tenant: Annotated[str, typer.Option(help="Name or id of the tenant on whose behalf to judge.")],
    completion: Annotated[str | None, typer.Option(help="An answer to it, to be judged as well.")] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Judge a text as the tenant's guards would, without generating."""
    with connect(url, admin_key) as client:
        prompt = sys.stdin.read() if text == "-" else text
        body = {"tenant": tenant, "prompt": prompt, "completion": completion}
        verdict = client.request("POST", "/check", body=body)
        if as_json:
            print_json(verdict)
            return
        findings = verdict.pop("findings")
        print_object(verdict, as_json=False)
        if findings:
            typer.echo()
            print_list(findings, _COLUMNS, as_json=False)
