"""Rows as domain objects, and the sets of rows that travel together."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from guard.types import (
    ApiKey,
    ForgetTarget,
    GuardName,
    GuardToggle,
    Scope,
    TargetSpec,
    TargetToggle,
    Tenant,
    TenantSpec,
)

ToggleT = TypeVar("ToggleT", TargetToggle, GuardToggle)


@dataclass(frozen=True, slots=True)
class ToggleRow(Generic[ToggleT]):
    """One tenant's toggle of one target or guard. ``revision``, the global one of its last change, never recurs."""

    tenant_id: str
    subject: str  # a target id or a guard name
    toggle: ToggleT
    revision: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Something that was deleted. ``id`` of a toggle is ``tenant/subject``."""

    kind: str  # target, tenant, target_toggle or guard_toggle
    id: str


@dataclass(frozen=True, slots=True)
class Changes:
    """All that changed after one revision, up to and including ``revision``. Apply ``deleted`` first."""

    revision: int
    deleted: tuple[Tombstone, ...] = ()
    targets: tuple[ForgetTarget, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    target_toggles: tuple[ToggleRow[TargetToggle], ...] = ()
    guard_toggles: tuple[ToggleRow[GuardToggle], ...] = ()


def name_key(name: str) -> str:
    """What two names that count as the same have in common: case, Unicode form and spacing do not tell them apart."""
    return " ".join(unicodedata.normalize("NFKC", name).replace("\0", "").casefold().split())


def to_target(row: sa.Row[Any]) -> ForgetTarget:
    """A row of ``targets``."""
    spec = TargetSpec.model_validate_json(row.spec)
    return ForgetTarget(row.id, row.revision, spec, row.created_at, row.updated_at)


def to_tenant(row: sa.Row[Any]) -> Tenant:
    """A row of ``tenants``."""
    return Tenant(row.id, row.revision, TenantSpec.model_validate_json(row.spec), row.created_at, row.updated_at)


def to_key(row: sa.Row[Any]) -> ApiKey:
    """A row of ``api_keys``."""
    return ApiKey(row.id, Scope(row.scope), row.tenant_id, row.hash, row.prefix, row.created_at, row.revoked_at)


def to_target_toggle(row: sa.Row[Any]) -> ToggleRow[TargetToggle]:
    """A row of ``tenant_targets``."""
    return ToggleRow(row.tenant_id, row.target_id, TargetToggle.model_validate_json(row.toggle), row.changed_at)


def to_guard_toggle(row: sa.Row[Any]) -> ToggleRow[GuardToggle]:
    """A row of ``tenant_guards``."""
    toggle = GuardToggle.model_validate_json(row.toggle)
    return ToggleRow(row.tenant_id, GuardName(row.guard).value, toggle, row.changed_at)
