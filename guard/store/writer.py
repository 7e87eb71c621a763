"""Every change that can be made to the state, inside one transaction that bumps the global revision once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from guard.store import records, schema
from guard.store.errors import InvalidChangeError, NameTakenError, NotFoundError, RevisionMismatchError
from guard.store.keys import display_prefix, hash_key, new_id
from guard.store.reader import Reader
from guard.types import (
    ApiKey,
    ForgetTarget,
    GuardName,
    GuardToggle,
    Scope,
    Spec,
    TargetSpec,
    TargetToggle,
    Tenant,
    TenantSpec,
)

#: The tenant that is served without a key until there is a real one.
DEFAULT_TENANT_ID = "ten_default"


class Writer(Reader):
    """Changes to the state. Nothing is visible to others until the transaction ends, and nothing is if it fails.

    Methods with ``expected`` compare it to the object's revision first and raise
    :class:`~guard.store.errors.RevisionMismatchError` when another came before.
    """

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        # Writers pass one at a time (SQLite began with its write lock already). So whoever reads revision N sees
        # every change up to N, and no check made here is outdated when the transaction commits.
        self._base = connection.execute(sa.select(schema.meta.c.revision).with_for_update()).scalar_one()
        self._now = datetime.now(UTC)
        self._bumped = False

    # --- targets -----------------------------------------------------------------------------------------------

    def create_target(self, spec: TargetSpec) -> ForgetTarget:
        """Register a target.

        Raises:
            NameTakenError: another target has this name.
        """
        target = ForgetTarget(new_id("tgt"), 1, spec, self._now, self._now)
        self._insert_named(schema.targets, "target", target.id, spec)
        return target

    def update_target(self, target_id: str, spec: TargetSpec, *, expected: int | None = None) -> ForgetTarget:
        """Replace a target's spec. The same spec again changes nothing.

        Raises:
            NotFoundError: there is no such target.
            RevisionMismatchError: it is not at revision ``expected``.
            NameTakenError: another target has the new name.
        """
        current = self.target(target_id)
        _check_revision("target", expected, current.revision)
        if spec == current.spec:
            return current
        self._update_named(schema.targets, "target", target_id, current.revision + 1, spec)
        return ForgetTarget(target_id, current.revision + 1, spec, current.created_at, self._now)

    def delete_target(self, target_id: str, *, expected: int | None = None) -> None:
        """Forget the target itself, with its toggles and compiled parts.

        Raises:
            NotFoundError: there is no such target.
            RevisionMismatchError: it is not at revision ``expected``.
        """
        _check_revision("target", expected, self.target(target_id).revision)
        self._delete(schema.targets, schema.targets.c.id == target_id)
        self._bury("target", target_id)

    # --- tenants -----------------------------------------------------------------------------------------------

    def create_tenant(self, spec: TenantSpec, *, tenant_id: str | None = None) -> Tenant:
        """Add a tenant. The first beside the default one ends serving without a key.

        Raises:
            NameTakenError: another tenant has this name.
            InvalidChangeError: ``spec.anonymous`` on any tenant but the default one.
        """
        tenant = Tenant(tenant_id or new_id("ten"), 1, spec, self._now, self._now)
        _check_anonymous(tenant)
        if tenant.id != DEFAULT_TENANT_ID:
            self._close_default_tenant()
        self._insert_named(schema.tenants, "tenant", tenant.id, spec)
        return tenant

    def update_tenant(self, tenant_id: str, spec: TenantSpec, *, expected: int | None = None) -> Tenant:
        """Replace a tenant's spec. The same spec again changes nothing.

        Raises:
            NotFoundError: there is no such tenant.
            RevisionMismatchError: it is not at revision ``expected``.
            NameTakenError: another tenant has the new name.
            InvalidChangeError: ``spec.anonymous`` on any tenant but the default one.
        """
        current = self.tenant(tenant_id)
        _check_revision("tenant", expected, current.revision)
        if spec == current.spec:
            return current
        tenant = Tenant(tenant_id, current.revision + 1, spec, current.created_at, self._now)
        _check_anonymous(tenant)
        self._update_named(schema.tenants, "tenant", tenant_id, tenant.revision, spec)
        return tenant

    def delete_tenant(self, tenant_id: str, *, expected: int | None = None) -> None:
        """Remove a tenant with its keys and toggles. Its audit stays.

        Raises:
            NotFoundError: there is no such tenant.
            RevisionMismatchError: it is not at revision ``expected``.
        """
        _check_revision("tenant", expected, self.tenant(tenant_id).revision)
        self._delete(schema.tenants, schema.tenants.c.id == tenant_id)
        self._bury("tenant", tenant_id)

    def _close_default_tenant(self) -> None:
        others = sa.select(sa.func.count()).where(schema.tenants.c.id != DEFAULT_TENANT_ID)
        if self.connection.execute(others).scalar_one():
            return  # not the first: whoever opened the default tenant again since meant it
        for default in self.tenants(limit=1):
            if default.spec.anonymous:
                self.update_tenant(default.id, default.spec.model_copy(update={"anonymous": False}))

    # --- keys --------------------------------------------------------------------------------------------------

    def add_key(self, key: str, scope: Scope, tenant_id: str | None, *, from_settings: bool = False) -> ApiKey:
        """Make ``key`` valid. Only its hash is kept.

        Raises:
            NotFoundError: there is no such tenant.
            InvalidChangeError: an admin key with a tenant, a tenant key without, or a key in use already.
        """
        if (scope is Scope.TENANT) != (tenant_id is not None):
            raise InvalidChangeError("a tenant key belongs to a tenant, an admin key to none")
        if tenant_id is not None:
            self.tenant(tenant_id)
        record = ApiKey(new_id("key"), scope, tenant_id, hash_key(key), display_prefix(key), self._now)
        table = schema.api_keys
        if self.connection.execute(sa.select(table.c.id).where(table.c.hash == record.hash)).first() is not None:
            raise InvalidChangeError("this key was used before")
        self.connection.execute(
            sa.insert(table).values(
                id=record.id,
                tenant_id=tenant_id,
                scope=scope.value,
                hash=record.hash,
                prefix=record.prefix,
                from_settings=from_settings,
                created_at=self._now,
                changed_at=self._bump(),
            )
        )
        return record

    def revoke_key(self, key_id: str, tenant_id: str | None) -> None:
        """End the validity of a key of this tenant (None: of an admin key).

        Raises:
            NotFoundError: there is no such valid key here.
            InvalidChangeError: it is the last valid admin key.
        """
        valid = [key.id for key in self.keys(tenant_id) if key.revoked_at is None]
        if key_id not in valid:
            raise NotFoundError("valid key", key_id)
        if tenant_id is None and len(valid) == 1:
            raise InvalidChangeError("the last admin key cannot be revoked")
        self._revoke(schema.api_keys.c.id == key_id)

    def revoke_keys(self, tenant_id: str) -> int:
        """End the validity of all keys of one tenant; how many there were."""
        return self._revoke(schema.api_keys.c.tenant_id == tenant_id)

    def replace_settings_key(self, key: str) -> None:
        """Make ``key`` the one admin key that comes from the settings, ending the validity of the one before.

        An admin key that was made otherwise becomes the one of the settings, and ends with the next.

        Raises:
            InvalidChangeError: it is a tenant's key.
        """
        table = schema.api_keys
        row = self.connection.execute(sa.select(table).where(table.c.hash == hash_key(key))).one_or_none()
        if row is None:
            self._revoke(table.c.from_settings)
            self.add_key(key, Scope.ADMIN, None, from_settings=True)
        elif row.scope != Scope.ADMIN.value:
            raise InvalidChangeError("the admin key of the settings is a tenant's key")
        elif row.revoked_at is not None or not row.from_settings:
            self._revoke(table.c.from_settings)
            values = {"revoked_at": None, "from_settings": True, "changed_at": self._bump()}
            self.connection.execute(sa.update(table).where(table.c.id == row.id).values(values))

    def _revoke(self, which: sa.ColumnElement[bool]) -> int:
        table = schema.api_keys
        valid = sa.select(table.c.id).where(which, table.c.revoked_at.is_(None))
        ids = self.connection.execute(valid).scalars().all()
        if ids:
            values = {"revoked_at": self._now, "changed_at": self._bump()}
            self.connection.execute(sa.update(table).where(table.c.id.in_(ids)).values(values))
        return len(ids)

    # --- toggles -----------------------------------------------------------------------------------------------

    def put_target_toggle(
        self, tenant_id: str, target_id: str, toggle: TargetToggle, *, expected: int | None = None
    ) -> records.ToggleRow[TargetToggle]:
        """Set how a tenant uses a target.

        Raises:
            NotFoundError: there is no such tenant or target.
            RevisionMismatchError: the toggle is not at revision ``expected``.
        """
        self.tenant(tenant_id)
        self.target(target_id)
        current = self.target_toggle(tenant_id, target_id)
        _check_revision("toggle", expected, None if current is None else current.revision)
        if current is not None and current.toggle == toggle:
            return current
        where = {"tenant_id": tenant_id, "target_id": target_id}
        self._put_toggle(schema.tenant_targets, where, toggle, exists=current is not None)
        return records.ToggleRow(tenant_id, target_id, toggle, self._bump())

    def delete_target_toggle(self, tenant_id: str, target_id: str, *, expected: int | None = None) -> None:
        """Return to the target's own default for this tenant.

        Raises:
            NotFoundError: there is no such toggle.
            RevisionMismatchError: it is not at revision ``expected``.
        """
        current = self.target_toggle(tenant_id, target_id)
        if current is None:
            raise NotFoundError("toggle", target_id)
        _check_revision("toggle", expected, current.revision)
        table = schema.tenant_targets
        self._delete(table, table.c.tenant_id == tenant_id, table.c.target_id == target_id)
        self._bury("target_toggle", f"{tenant_id}/{target_id}")

    def put_guard_toggle(
        self, tenant_id: str, guard: GuardName, toggle: GuardToggle, *, expected: int | None = None
    ) -> records.ToggleRow[GuardToggle]:
        """Set how a tenant uses a guard.

        Raises:
            NotFoundError: there is no such tenant.
            RevisionMismatchError: the toggle is not at revision ``expected``.
        """
        self.tenant(tenant_id)
        current = self.guard_toggle(tenant_id, guard)
        _check_revision("toggle", expected, None if current is None else current.revision)
        if current is not None and current.toggle == toggle:
            return current
        where = {"tenant_id": tenant_id, "guard": guard.value}
        self._put_toggle(schema.tenant_guards, where, toggle, exists=current is not None)
        return records.ToggleRow(tenant_id, guard.value, toggle, self._bump())

    def delete_guard_toggle(self, tenant_id: str, guard: GuardName, *, expected: int | None = None) -> None:
        """Return to the default of this guard for this tenant.

        Raises:
            NotFoundError: there is no such toggle.
            RevisionMismatchError: it is not at revision ``expected``.
        """
        current = self.guard_toggle(tenant_id, guard)
        if current is None:
            raise NotFoundError("toggle", guard.value)
        _check_revision("toggle", expected, current.revision)
        table = schema.tenant_guards
        self._delete(table, table.c.tenant_id == tenant_id, table.c.guard == guard.value)
        self._bury("guard_toggle", f"{tenant_id}/{guard.value}")

    # --- shared ------------------------------------------------------------------------------------------------

    def _bump(self) -> int:
        """The global revision that this transaction makes, taken at its first change."""
        if not self._bumped:
            self.connection.execute(sa.update(schema.meta).values(revision=self._base + 1))
            self._bumped = True
        return self._base + 1

    def _insert_named(self, table: sa.Table, kind: str, new: str, spec: TargetSpec | TenantSpec) -> None:
        values = self._named(table, kind, new, 1, spec)
        self.connection.execute(sa.insert(table).values(id=new, created_at=self._now, **values))

    def _update_named(self, table: sa.Table, kind: str, old: str, revision: int, spec: TargetSpec | TenantSpec) -> None:
        values = self._named(table, kind, old, revision, spec)
        self.connection.execute(sa.update(table).where(table.c.id == old).values(**values))

    def _named(
        self, table: sa.Table, kind: str, own_id: str, revision: int, spec: TargetSpec | TenantSpec
    ) -> dict[str, Any]:
        key = records.name_key(spec.name)
        holder = sa.select(table.c.id).where(table.c.name_key == key, table.c.id != own_id)
        if self.connection.execute(holder).first() is not None:
            raise NameTakenError(kind)
        return {
            "revision": revision,
            "name_key": key,
            "spec": spec.model_dump_json(),
            "updated_at": self._now,
            "changed_at": self._bump(),
        }

    def _put_toggle(self, table: sa.Table, where: dict[str, str], toggle: Spec, *, exists: bool) -> None:
        values = {"toggle": toggle.model_dump_json(), "changed_at": self._bump()}
        if exists:
            self.connection.execute(sa.update(table).filter_by(**where).values(**values))
        else:
            self.connection.execute(sa.insert(table).values(**where, **values))

    def _delete(self, table: sa.Table, *which: sa.ColumnElement[bool]) -> None:
        self.connection.execute(sa.delete(table).where(*which))

    def _bury(self, kind: str, deleted: str) -> None:
        self.connection.execute(sa.insert(schema.tombstones).values(changed_at=self._bump(), kind=kind, id=deleted))


def _check_revision(kind: str, expected: int | None, actual: int | None) -> None:
    if expected is not None and expected != actual:
        raise RevisionMismatchError(kind, expected, actual)


def _check_anonymous(tenant: Tenant) -> None:
    if tenant.spec.anonymous and tenant.id != DEFAULT_TENANT_ID:
        raise InvalidChangeError("only the default tenant can be served without a key")
