"""``lethe target``: register and manage forget targets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.client import (
    DEFAULT_URL,
    AdminClient,
    AdminKey,
    AsJson,
    CommandError,
    Url,
    connect,
    merged,
    note,
    print_json,
    print_list,
    print_object,
)
from server.cli.compile import compile_target, report

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Register and manage forget targets.")
app.command("compile")(compile_target)
app.command()(report)

_COLUMNS = ("id", "name", "kind", "mode", "all_tenants", "locked", "action", "gating", "threshold", "revision")


class KindOption(StrEnum):
    """The kinds of a target."""

    knowledge = "knowledge"
    skill = "skill"


class ModeOption(StrEnum):
    """The modes of a target."""

    enforce = "enforce"
    monitor = "monitor"


class GatingOption(StrEnum):
    """Which requests an intervention inside the model applies to."""

    gated = "gated"
    always = "always"


class ListField(StrEnum):
    """What ``--clear`` can empty."""

    description = "description"
    aliases = "aliases"
    documents = "documents"
    forget_examples = "forget_examples"
    retain_examples = "retain_examples"
    protected_phrases = "protected_phrases"
    tools = "tools"
    threshold = "threshold"


Target = Annotated[str, typer.Argument(help="Name or id of a target.")]
Tenant = Annotated[str, typer.Option(help="Name or id of a tenant.")]
Description = Annotated[str | None, typer.Option(help="What it is, in a sentence or two.")]
Kind = Annotated[KindOption | None, typer.Option(help="Something known, or a skill, which examples are needed of.")]
Aliases = Annotated[list[str] | None, typer.Option("--alias", help="Another name of it. Repeatable.")]
Documents = Annotated[
    list[Path] | None,
    typer.Option("--document", exists=True, dir_okay=False, help="Text about it, from a file. Repeatable."),
]
Phrases = Annotated[
    list[str] | None, typer.Option("--phrase", help="What must never be said, word for word. Repeatable.")
]
ForgetPrompts = Annotated[
    Path | None,
    typer.Option(
        "--forget-prompts", exists=True, dir_okay=False, help="Prompts about it or in need of it, a line each."
    ),
]
RetainPrompts = Annotated[
    Path | None, typer.Option("--retain-prompts", exists=True, dir_okay=False, help="Prompts that are neither.")
]
Tools = Annotated[
    list[str] | None, typer.Option("--tool", help="A function that the model may not be offered. Repeatable.")
]
VerbatimRun = Annotated[
    int | None, typer.Option(min=3, max=200, help="How many words of a document an answer may have in a row; 10.")
]
ModeFlag = Annotated[ModeOption | None, typer.Option(help="Act on decisions, or only record them.")]
AllTenants = Annotated[bool | None, typer.Option("--all-tenants/--no-all-tenants", help="On unless a tenant says no.")]
Locked = Annotated[bool | None, typer.Option("--locked/--no-locked", help="Tenants' own keys cannot loosen it.")]
ActionFlag = Annotated[
    str | None,
    typer.Option(
        help="What to do when it is asked about: refuse, prefix, constrain, eco, lunar, rocr, concept or clamp. auto, "
        "the default, is the best that compiling measured, and the server's default until then."
    ),
]
GatingFlag = Annotated[
    GatingOption | None, typer.Option(help="Edit the model for flagged requests only (gated), or for all (always).")
]
Threshold = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Instead of the calibrated threshold.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check without changing anything.")]


@app.command()
def add(
    name: Annotated[str | None, typer.Argument(help="What to forget. The name alone is enough.")] = None,
    description: Description = None,
    alias: Aliases = None,
    document: Documents = None,
    phrase: Phrases = None,
    kind: Kind = None,
    forget_prompts: ForgetPrompts = None,
    retain_prompts: RetainPrompts = None,
    tool: Tools = None,
    verbatim_run: VerbatimRun = None,
    mode: ModeFlag = None,
    all_tenants: AllTenants = None,
    locked: Locked = None,
    action: ActionFlag = None,
    gating: GatingFlag = None,
    threshold: Threshold = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", exists=True, dir_okay=False, help="Register every target of a .json or .jsonl file."),
    ] = None,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Register a target, or with --from many."""
    given = locals()
    with connect(url, admin_key) as client:
        fields = _fields(given)
        if (name is None) == (from_file is None):
            raise CommandError("give either a NAME or --from FILE")
        if from_file is not None:
            _add_all(client, [{**spec, **fields} for spec in _specs(from_file)], dry_run, as_json)
            return
        target = client.request("POST", "/targets", body={"name": name, **fields}, params=_dry(dry_run))
        print_object(target, as_json=as_json)


@app.command()
def request(
    instruction: Annotated[str, typer.Argument(help='In plain words: "please forget everything about ...".')],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Enforce what was understood without asking.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Register a target by an instruction; it is enforced once you confirm what was understood."""
    with connect(url, admin_key) as client:
        target = client.request("POST", "/targets", body={"instruction": instruction})
        print_object(target if as_json else target["understood"], as_json=as_json)
        if yes or (sys.stdin.isatty() and typer.confirm("Enforce this?", err=True)):
            client.request("POST", f"/targets/{target['id']}/confirm")
            note("in force")
        else:
            note(f"not in force; to enforce it: lethe target update {target['id']} --mode enforce")


@app.command("list")
def list_targets(url: Url = DEFAULT_URL, admin_key: AdminKey = "", as_json: AsJson = False) -> None:
    """List all targets."""
    with connect(url, admin_key) as client:
        targets = list(client.all_of("targets"))
        print_list(targets, _COLUMNS, as_json=as_json)


@app.command()
def show(target: Target, url: Url = DEFAULT_URL, admin_key: AdminKey = "", as_json: AsJson = False) -> None:
    """Show a target with everything that was said of it."""
    with connect(url, admin_key) as client:
        print_object(client.request("GET", f"/targets/{client.id_of('targets', target)}"), as_json=as_json)


@app.command()
def update(
    target: Target,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    description: Description = None,
    alias: Aliases = None,
    document: Documents = None,
    phrase: Phrases = None,
    kind: Kind = None,
    forget_prompts: ForgetPrompts = None,
    retain_prompts: RetainPrompts = None,
    tool: Tools = None,
    verbatim_run: VerbatimRun = None,
    mode: ModeFlag = None,
    all_tenants: AllTenants = None,
    locked: Locked = None,
    action: ActionFlag = None,
    gating: GatingFlag = None,
    threshold: Threshold = None,
    clear: Annotated[list[ListField] | None, typer.Option(help="A field to empty. Repeatable.")] = None,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Change what is given; lists are replaced as a whole."""
    given = locals()
    empty: dict[str, Any] = {"description": "", "threshold": None}
    with connect(url, admin_key) as client:
        fields = {field.value: empty.get(field, []) for field in clear or ()}
        fields |= _fields(given)
        fields |= {} if name is None else {"name": name}
        path = f"/targets/{client.id_of('targets', target)}"
        print_object(client.request("PATCH", path, body=fields, params=_dry(dry_run)), as_json=as_json)


@app.command()
def delete(target: Target, dry_run: DryRun = False, url: Url = DEFAULT_URL, admin_key: AdminKey = "") -> None:
    """Delete a target: the model may say it again."""
    with connect(url, admin_key) as client:
        client.request("DELETE", f"/targets/{client.id_of('targets', target)}", params=_dry(dry_run))
        note("would be deleted" if dry_run else "deleted")


@app.command()
def enable(
    target: Target,
    tenant: Tenant,
    action: ActionFlag = None,
    gating: GatingFlag = None,
    threshold: Threshold = None,
    locked: Annotated[
        bool | None, typer.Option("--locked/--no-locked", help="Whether the tenant's own key cannot loosen it.")
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Switch a target on for a tenant; what is not given stays as it was."""
    given = {"action": action, "gating": gating and gating.value, "threshold": threshold, "locked": locked}
    _toggle(target, tenant, {"enabled": True, **given}, url, admin_key, as_json)


@app.command()
def disable(
    target: Target,
    tenant: Tenant,
    locked: Annotated[
        bool | None, typer.Option("--locked/--no-locked", help="Whether the tenant's own key cannot change it back.")
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Switch a target off for a tenant; what is not given stays as it was."""
    given = {"action": None, "gating": None, "threshold": None, "locked": locked}
    _toggle(target, tenant, {"enabled": False, **given}, url, admin_key, as_json)


@app.command()
def reset(target: Target, tenant: Tenant, url: Url = DEFAULT_URL, admin_key: AdminKey = "") -> None:
    """Return to the target's own default for a tenant: nothing is switched on or off for it any more."""
    with connect(url, admin_key) as client:
        target_id, tenant_id = client.id_of("targets", target), client.id_of("tenants", tenant)
        client.request("DELETE", f"/tenants/{tenant_id}/targets/{target_id}")
        note("the target's own default holds")


def _toggle(target: str, tenant: str, given: Mapping[str, Any], url: str, admin_key: str, as_json: bool) -> None:
    with connect(url, admin_key) as client:
        target_id, path = client.id_of("targets", target), f"/tenants/{client.id_of('tenants', tenant)}/targets"
        toggles = client.request("GET", path)["data"]
        current: dict[str, Any] = next((one for one in toggles if one["target_id"] == target_id), {})
        print_object(client.request("PUT", f"{path}/{target_id}", body=merged(current, given)), as_json=as_json)


def _dry(dry_run: bool) -> dict[str, Any]:
    return {"dry_run": True} if dry_run else {}


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a target that the options name, and no others.

    Args:
        given: the options of ``add`` or ``update``, by the names of their parameters.
    """
    fields = {
        name: given[name] for name in ("description", "verbatim_run", "all_tenants", "locked", "action", "threshold")
    }
    for name, option in (("aliases", "alias"), ("protected_phrases", "phrase"), ("tools", "tool")):
        fields[name] = given[option] or None
    for name in ("kind", "mode", "gating"):
        fields[name] = given[name] and given[name].value
    fields["documents"] = [_text(path) for path in given["document"]] if given["document"] else None
    fields["forget_examples"], fields["retain_examples"] = map(
        _lines, (given["forget_prompts"], given["retain_prompts"])
    )
    return {name: value for name, value in fields.items() if value is not None}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read as UTF-8 text ({type(error).__name__})") from error


def _lines(path: Path | None) -> list[str] | None:
    return None if path is None else [line.strip() for line in _text(path).splitlines() if line.strip()]


def _specs(path: Path) -> Iterator[dict[str, Any]]:
    """The targets of a file: one JSON object per line, or a JSON list of objects."""
    text = _text(path)
    try:
        if path.suffix == ".jsonl":
            items = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            items = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise CommandError(f"{path} must hold a list of targets, each an object")
    yield from items


def _add_all(client: AdminClient, specs: list[dict[str, Any]], dry_run: bool, as_json: bool) -> None:
    added, failed = [], 0
    columns = (TextColumn("registering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for number, spec in enumerate(progress.track(specs), 1):
            try:
                added.append(client.request("POST", "/targets", body=spec, params=_dry(dry_run)))
            except CommandError as error:
                failed += 1
                note(f"lethe: target {number}: {error}")
    if as_json:
        print_json(added)
    note(f"{len(added)} of {len(specs)} {'valid' if dry_run else 'registered'}")
    if failed:
        raise CommandError(f"{failed} of {len(specs)} targets were not registered")
