"""``lethe tenant``: manage tenants, their keys and guards."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli.client import (
    DEFAULT_URL,
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

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Manage tenants, their keys and guards.")

_COLUMNS = ("id", "name", "anonymous", "self_service", "audit_prompts", "revision")
_GUARD_COLUMNS = ("guard", "enabled", "on_error", "deadline_ms", "locked", "revision")

Tenant = Annotated[str, typer.Argument(help="Name or id of a tenant.")]
SelfService = Annotated[
    bool | None, typer.Option("--self-service/--no-self-service", help="Its own key may loosen what is not locked.")
]
AuditPrompts = Annotated[
    bool | None, typer.Option("--audit-prompts/--no-audit-prompts", help="Keep its prompts in the audit in clear.")
]
Refusal = Annotated[str | None, typer.Option(help="What it is told instead of an answer.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The tenant's name.")],
    self_service: SelfService = None,
    audit_prompts: AuditPrompts = None,
    refusal: Refusal = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Add a tenant. Its key is shown this once."""
    with connect(url, admin_key) as client:
        body = {"name": name, **_fields(self_service, audit_prompts, refusal)}
        print_object(client.request("POST", "/tenants", body=body), as_json=as_json)


@app.command("list")
def list_tenants(url: Url = DEFAULT_URL, admin_key: AdminKey = "", as_json: AsJson = False) -> None:
    """List all tenants."""
    with connect(url, admin_key) as client:
        tenants = list(client.all_of("tenants"))
        print_list(tenants, _COLUMNS, as_json=as_json)


@app.command()
def show(tenant: Tenant, url: Url = DEFAULT_URL, admin_key: AdminKey = "", as_json: AsJson = False) -> None:
    """Show a tenant, with its keys, targets and guards."""
    with connect(url, admin_key) as client:
        path = f"/tenants/{client.id_of('tenants', tenant)}"
        data = client.request("GET", path)
        parts = {part: list(client.request("GET", f"{path}/{part}")["data"]) for part in ("keys", "targets", "guards")}
        if as_json:
            print_json({**data, **parts})
            return
        print_object(data, as_json=False)
        for part, columns in (
            ("keys", ("id", "prefix", "created_at", "revoked_at")),
            ("targets", ("target_id", "enabled", "action", "gating", "threshold", "locked", "revision")),
            ("guards", _GUARD_COLUMNS),
        ):
            if parts[part]:
                typer.echo()
                print_list(parts[part], columns, as_json=False)


@app.command()
def update(
    tenant: Tenant,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    self_service: SelfService = None,
    audit_prompts: AuditPrompts = None,
    refusal: Refusal = None,
    anonymous: Annotated[
        bool | None,
        typer.Option("--anonymous/--no-anonymous", help="Served without a key; the default tenant only."),
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Change what is given."""
    with connect(url, admin_key) as client:
        fields = _fields(self_service, audit_prompts, refusal)
        fields |= {key: value for key, value in {"name": name, "anonymous": anonymous}.items() if value is not None}
        path = f"/tenants/{client.id_of('tenants', tenant)}"
        print_object(client.request("PATCH", path, body=fields), as_json=as_json)


@app.command()
def delete(tenant: Tenant, url: Url = DEFAULT_URL, admin_key: AdminKey = "") -> None:
    """Delete a tenant with its keys and toggles. Its audit stays."""
    with connect(url, admin_key) as client:
        client.request("DELETE", f"/tenants/{client.id_of('tenants', tenant)}")
        note("deleted")


@app.command("rotate-key")
def rotate_key(
    tenant: Tenant,
    keep_others: Annotated[bool, typer.Option("--keep-others", help="Leave its other keys valid.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """Make a new key, shown this once, and end the old ones."""
    with connect(url, admin_key) as client:
        path = f"/tenants/{client.id_of('tenants', tenant)}/keys"
        print_object(client.request("POST", path, body={"revoke_others": not keep_others}), as_json=as_json)


@app.command("revoke-key")
def revoke_key(
    tenant: Tenant,
    key_id: Annotated[str | None, typer.Argument(help="Id of the key, as in lethe tenant show.")] = None,
    all_keys: Annotated[bool, typer.Option("--all", help="All keys of the tenant.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
) -> None:
    """End the validity of a key."""
    with connect(url, admin_key) as client:
        if (key_id is None) != all_keys:
            raise CommandError("give either the id of a key or --all")
        path = f"/tenants/{client.id_of('tenants', tenant)}/keys"
        client.request("DELETE", path if key_id is None else f"{path}/{key_id}")
        note("revoked")


@app.command()
def guard(
    tenant: Tenant,
    name: Annotated[str | None, typer.Argument(help="The guard to set; without it, all are listed.")] = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether it works.")] = None,
    on_error: Annotated[str | None, typer.Option(help="What counts when it cannot judge: open or closed.")] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="How long it may take, in milliseconds.")] = None,
    locked: Annotated[bool | None, typer.Option("--locked/--no-locked", help="The tenant cannot loosen it.")] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """List a tenant's guards, or change what is given of one."""
    given = {"enabled": enabled, "on_error": on_error, "deadline_ms": deadline_ms, "locked": locked}
    with connect(url, admin_key) as client:
        path = f"/tenants/{client.id_of('tenants', tenant)}/guards"
        guards = client.request("GET", path)["data"]
        if name is None:
            print_list(guards, _GUARD_COLUMNS, as_json=as_json)
            return
        current = next((one for one in guards if one["guard"] == name), None)
        if current is None:
            raise CommandError(f"guard must be one of {', '.join(one['guard'] for one in guards)}")
        print_object(client.request("PUT", f"{path}/{name}", body=merged(current, given)), as_json=as_json)


def _fields(self_service: bool | None, audit_prompts: bool | None, refusal: str | None) -> dict[str, Any]:
    fields = {"self_service": self_service, "audit_prompts": audit_prompts, "refusal": refusal}
    return {key: value for key, value in fields.items() if value is not None}
