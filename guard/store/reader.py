"""Everything that can be asked of the store, inside one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from guard.store import records, schema
from guard.store.errors import NotFoundError
from guard.store.records import Changes, ToggleRow, Tombstone
from guard.types import ApiKey, ForgetTarget, GuardName, GuardToggle, TargetToggle, Tenant

T = TypeVar("T")


class Reader:
    """One moment of the database. Made by ``Store.read()``, and the base of what ``Store.write()`` gives."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def revision(self) -> int:
        """The global revision: the number of changes so far."""
        return self.connection.execute(sa.select(schema.meta.c.revision)).scalar_one()

    def target(self, target_id: str) -> ForgetTarget:
        """One target.

        Raises:
            NotFoundError: there is none with this id.
        """
        return self._one(schema.targets, "target", target_id, records.to_target)

    def targets(self, *, after: str = "", limit: int = 100, name: str | None = None) -> list[ForgetTarget]:
        """Up to ``limit`` targets in order of creation, those with an id beyond ``after``; by name if given."""
        return self._page(schema.targets, records.to_target, after, limit, name)

    def tenant(self, tenant_id: str) -> Tenant:
        """One tenant.

        Raises:
            NotFoundError: there is none with this id.
        """
        return self._one(schema.tenants, "tenant", tenant_id, records.to_tenant)

    def tenants(self, *, after: str = "", limit: int = 100, name: str | None = None) -> list[Tenant]:
        """Up to ``limit`` tenants in order of creation, those with an id beyond ``after``; by name if given."""
        return self._page(schema.tenants, records.to_tenant, after, limit, name)

    def keys(self, tenant_id: str | None) -> list[ApiKey]:
        """The keys of a tenant, or the admin keys for None, revoked ones included, oldest first."""
        table = schema.api_keys
        query = sa.select(table).where(table.c.tenant_id == tenant_id).order_by(table.c.id)
        return [records.to_key(row) for row in self.connection.execute(query)]

    def target_toggles(self, tenant_id: str) -> list[ToggleRow[TargetToggle]]:
        """All target toggles of one tenant."""
        table = schema.tenant_targets
        query = sa.select(table).where(table.c.tenant_id == tenant_id).order_by(table.c.target_id)
        return [records.to_target_toggle(row) for row in self.connection.execute(query)]

    def target_toggle(self, tenant_id: str, target_id: str) -> ToggleRow[TargetToggle] | None:
        """One target toggle; None when the tenant has none for this target."""
        table = schema.tenant_targets
        query = sa.select(table).where(table.c.tenant_id == tenant_id, table.c.target_id == target_id)
        row = self.connection.execute(query).one_or_none()
        return None if row is None else records.to_target_toggle(row)

    def guard_toggles(self, tenant_id: str) -> list[ToggleRow[GuardToggle]]:
        """All guard toggles of one tenant."""
        table = schema.tenant_guards
        query = sa.select(table).where(table.c.tenant_id == tenant_id).order_by(table.c.guard)
        return [records.to_guard_toggle(row) for row in self.connection.execute(query)]

    def guard_toggle(self, tenant_id: str, guard: GuardName) -> ToggleRow[GuardToggle] | None:
        """One guard toggle; None when the tenant has none for this guard."""
        table = schema.tenant_guards
        query = sa.select(table).where(table.c.tenant_id == tenant_id, table.c.guard == guard.value)
        row = self.connection.execute(query).one_or_none()
        return None if row is None else records.to_guard_toggle(row)

    def changes_since(self, revision: int) -> Changes:
        """What changed after ``revision``; everything for 0. Costs as many rows as changed, however many there are."""

        def newer(table: sa.Table) -> Sequence[sa.Row[Any]]:
            return self.connection.execute(sa.select(table).where(table.c.changed_at > revision)).all()

        return Changes(
            revision=self.revision(),
            deleted=tuple(Tombstone(row.kind, row.id) for row in newer(schema.tombstones)) if revision else (),
            targets=tuple(map(records.to_target, newer(schema.targets))),
            tenants=tuple(map(records.to_tenant, newer(schema.tenants))),
            keys=tuple(map(records.to_key, newer(schema.api_keys))),
            target_toggles=tuple(map(records.to_target_toggle, newer(schema.tenant_targets))),
            guard_toggles=tuple(map(records.to_guard_toggle, newer(schema.tenant_guards))),
        )

    def _one(self, table: sa.Table, kind: str, reference: str, convert: Callable[[sa.Row[Any]], T]) -> T:
        row = self.connection.execute(sa.select(table).where(table.c.id == reference)).one_or_none()
        if row is None:
            raise NotFoundError(kind, reference)
        return convert(row)

    def _page(
        self, table: sa.Table, convert: Callable[[sa.Row[Any]], T], after: str, limit: int, name: str | None
    ) -> list[T]:
        query = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if name is not None:
            query = query.where(table.c.name_key == records.name_key(name))
        return [convert(row) for row in self.connection.execute(query)]
