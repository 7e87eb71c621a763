"""The audit in the database: written in groups, read in pages, deleted by age. It changes no state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from guard.store import schema
from guard.store.store import Store
from guard.types import GuardName, Mode

#: How many rows one delete takes, so that pruning a large audit never holds the write lock for long.
_PRUNE_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One flagged target of an entry. ``window`` is kept in clear only for tenants with ``audit_prompts``."""

    target_id: str
    target_revision: int
    guard: GuardName
    mode: Mode
    score: float
    threshold: float
    window_sha256: str
    window: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One request. Times in milliseconds; ``prompt`` is kept in clear only for tenants with ``audit_prompts``."""

    time: datetime
    request_id: str
    tenant_id: str
    key_id: str | None
    surface: str
    action: str | None  # None: served as it was
    findings: tuple[AuditFinding, ...]
    unavailable: tuple[GuardName, ...]
    prompt_sha256: str
    prompt: str | None
    detector_ms: float
    total_ms: float
    id: int | None = None  # given by the database; a cursor of :func:`select_audit`


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list; None means any. Target and guard must meet in one finding."""

    tenant: str | None = None
    target: str | None = None
    guard: GuardName | None = None
    action: str | None = None
    since: datetime | None = None  # included
    until: datetime | None = None  # excluded


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some entries, and the cursor that continues after them; None when there are no more."""

    entries: tuple[AuditEntry, ...]
    cursor: int | None


def insert_audit(store: Store, entries: Sequence[AuditEntry]) -> None:
    """Write entries in one transaction."""
    rows = [_to_rows(entry) for entry in entries]
    with store.transaction() as connection:
        ids = connection.execute(
            sa.insert(schema.audit).returning(schema.audit.c.id, sort_by_parameter_order=True), [row for row, _ in rows]
        ).scalars()
        findings = [
            {"audit_id": audit_id, "position": position, **finding}
            for audit_id, (_, found) in zip(ids.all(), rows, strict=True)
            for position, finding in enumerate(found)
        ]
        if findings:
            connection.execute(sa.insert(schema.audit_findings), findings)


def select_audit(
    store: Store, filters: AuditFilter, *, cursor: int | None, limit: int, oldest_first: bool
) -> list[AuditEntry]:
    """Up to ``limit`` entries beyond the one whose id is ``cursor``, in the asked order."""
    audit, findings = schema.audit, schema.audit_findings
    query = sa.select(audit).order_by(audit.c.id if oldest_first else audit.c.id.desc()).limit(limit)
    if cursor is not None:
        query = query.where(audit.c.id > cursor if oldest_first else audit.c.id < cursor)
    if filters.tenant is not None:
        query = query.where(audit.c.tenant_id == filters.tenant)
    if filters.action is not None:
        query = query.where(audit.c.action == filters.action)
    if filters.since is not None:
        query = query.where(audit.c.time >= filters.since)
    if filters.until is not None:
        query = query.where(audit.c.time < filters.until)
    if filters.target is not None or filters.guard is not None:
        finding = sa.exists().where(findings.c.audit_id == audit.c.id)
        if filters.target is not None:
            finding = finding.where(findings.c.target_id == filters.target)
        if filters.guard is not None:
            finding = finding.where(findings.c.guard == filters.guard.value)
        query = query.where(finding)
    with store.read() as reader:
        rows = reader.connection.execute(query).all()
        of_row: defaultdict[int, list[AuditFinding]] = defaultdict(list)
        found = sa.select(findings).where(findings.c.audit_id.in_([row.id for row in rows]))
        for row in reader.connection.execute(found.order_by(findings.c.audit_id, findings.c.position)):
            of_row[row.audit_id].append(_to_finding(row))
    return [_to_entry(row, of_row[row.id]) for row in rows]


def prune_audit(store: Store, before: datetime) -> int:
    """Delete the entries older than ``before``; how many there were."""
    audit = schema.audit
    total = 0
    while True:
        oldest = sa.select(audit.c.id).where(audit.c.time < before).order_by(audit.c.time).limit(_PRUNE_BATCH)
        with store.transaction() as connection:
            deleted = connection.execute(sa.delete(audit).where(audit.c.id.in_(oldest.scalar_subquery()))).rowcount
        total += deleted
        if deleted < _PRUNE_BATCH:
            return total


def _storable(text: str | None) -> str | None:
    """Text that every database takes: PostgreSQL refuses NUL, and both refuse lone surrogates."""
    return None if text is None else text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _to_rows(entry: AuditEntry) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    row = {
        "time": entry.time,
        "request_id": _storable(entry.request_id),
        "tenant_id": entry.tenant_id,
        "key_id": entry.key_id,
        "surface": _storable(entry.surface),
        "action": entry.action,
        "unavailable": ",".join(entry.unavailable),
        "prompt_sha256": entry.prompt_sha256,
        "prompt": _storable(entry.prompt),
        "detector_ms": entry.detector_ms,
        "total_ms": entry.total_ms,
    }
    findings = [
        {
            "target_id": finding.target_id,
            "target_revision": finding.target_revision,
            "guard": finding.guard.value,
            "mode": finding.mode.value,
            "score": float(finding.score),  # a detector may well hand over a numpy scalar
            "threshold": float(finding.threshold),
            "window_sha256": finding.window_sha256,
            "window": _storable(finding.window),
        }
        for finding in entry.findings
    ]
    return row, findings


def _to_entry(row: sa.Row[Any], findings: Sequence[AuditFinding]) -> AuditEntry:
    columns = dict(row._mapping)
    unavailable = tuple(map(GuardName, filter(None, columns.pop("unavailable").split(","))))
    return AuditEntry(**columns, unavailable=unavailable, findings=tuple(findings))


def _to_finding(row: sa.Row[Any]) -> AuditFinding:
    return AuditFinding(
        target_id=row.target_id,
        target_revision=row.target_revision,
        guard=GuardName(row.guard),
        mode=Mode(row.mode),
        score=row.score,
        threshold=row.threshold,
        window_sha256=row.window_sha256,
        window=row.window,
    )
