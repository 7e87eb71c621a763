"""``lethe target compile`` and ``report``: fitting interventions to a target, and what was measured."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from server.cli.client import DEFAULT_URL, AdminClient, AdminKey, AsJson, Url, connect, note, print_list, print_object

Target = Annotated[str, typer.Argument(help="Name or id of a target.")]
Interventions = Annotated[
    list[str] | None,
    typer.Option(
        "--intervention",
        help="What to fit: eco, lunar, rocr, concept, features, auto; of a skill: skill. Repeatable; all by default.",
    ),
]


def compile_target(
    target: Target,
    intervention: Interventions = None,
    again: Annotated[bool, typer.Option("--again", help="Fit also what was fitted before.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job's end.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Fit what acts inside the model to a target, while the server goes on serving."""
    with connect(url, admin_key) as client:
        target_id = client.id_of("targets", target)
        body = {"interventions": intervention or None, "again": again}
        job = client.request("POST", f"/targets/{target_id}/compile", body=body)
        if detach:
            print_object(job, as_json=as_json)
            return
        job = _follow(client, job)
        if job["state"] != "done":
            note(f"lethe: the job was {job['state']}{': ' if job['error'] else ''}{job['error']}")
            raise typer.Exit(1)
        _print_report(client, target_id, as_json)


def report(target: Target, url: Url = DEFAULT_URL, admin_key: AdminKey = "", as_json: AsJson = False) -> None:
    """Show what was fitted for a target, and what was measured."""
    with connect(url, admin_key) as client:
        _print_report(client, client.id_of("targets", target), as_json)


def _follow(client: AdminClient, job: dict[str, Any]) -> dict[str, Any]:
    """Show a job's progress until it has ended; an interrupt cancels it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    path = f"/compile/jobs/{job['id']}"
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("compiling", total=1.0)
            for event in client.events(f"{path}/events"):
                job = json.loads(event)
                progress.update(task, completed=job["share"], description=job["stage"] or "compiling")
    except KeyboardInterrupt:
        job = client.request("DELETE", path)
        note("cancelled")
        raise typer.Exit(130) from None
    return job


def _print_report(client: AdminClient, target_id: str, as_json: bool) -> None:
    fitted = client.request("GET", f"/targets/{target_id}/report")["data"]
    print_list(fitted, ("intervention", "settings", "report"), as_json=as_json)
