"""``lethe audit``: what the guards did."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from guard.types import GuardName
from server.cli.client import DEFAULT_URL, AdminClient, AdminKey, AsJson, CommandError, Url, connect, print_list

app = typer.Typer(add_completion=False)

_COLUMNS = ("time", "tenant_id", "surface", "action", "guards", "targets", "score", "unavailable", "total_ms")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FOLLOW_EVERY_S = 1.0


@app.command()
def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's requests; name or id.")] = None,
    target: Annotated[str | None, typer.Option(help="Only findings on this target; name or id.")] = None,
    guard: Annotated[str | None, typer.Option(help=f"Only findings of this guard: {', '.join(GuardName)}.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only requests dealt with in this way: an action, or partial.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="A time (ISO 8601), or how long ago: 30m, 6h, 7d.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new entries as they come.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    as_json: AsJson = False,
) -> None:
    """List what the guards did, oldest first. With --json, one object per line."""
    with connect(url, admin_key) as client:
        filters = {
            "tenant": tenant and client.id_of("tenants", tenant),
            "target": target and client.id_of("targets", target),
            "guard": guard,
            "action": action,
            "since": since and _moment(since).isoformat(),
        }
        page = client.request("GET", "/audit", params={**filters, "limit": limit})
        entries = page["data"][::-1]
        _print(entries, as_json)
        if follow:
            _follow(client, filters, entries[-1]["id"] if entries else 0, as_json)


def _follow(client: AdminClient, filters: dict[str, Any], seen: int, as_json: bool) -> None:
    try:
        while True:
            time.sleep(_FOLLOW_EVERY_S)
            params = {**filters, "order": "oldest", "cursor": seen, "limit": 1000}
            new = client.request("GET", "/audit", params=params)["data"]
            if new:
                seen = new[-1]["id"]
                _print(new, as_json)
    except KeyboardInterrupt:
        return


def _print(entries: Iterable[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(entry, ensure_ascii=False))
    else:
        print_list(map(_row, entries), _COLUMNS, as_json=False)


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    findings = entry["findings"]
    return {
        **entry,
        "action": entry["action"] or "none",
        "guards": " ".join(dict.fromkeys(finding["guard"] for finding in findings)),
        "targets": " ".join(dict.fromkeys(finding["target_id"] for finding in findings)),
        "score": max((finding["score"] for finding in findings), default=None),
        "unavailable": " ".join(entry["unavailable"]),
    }


def _moment(text: str) -> datetime:
    """A point in time, or so long ago."""
    try:
        if text[-1:] in _UNITS and text[:-1].isdigit():
            return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CommandError(f"--since must be an ISO 8601 time or like 30m, 6h, 7d, not {text!r}") from error
