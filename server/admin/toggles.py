"""Routes for what a tenant has switched on: targets and guards. A tenant's own key may use them within bounds."""

from __future__ import annotations

from fastapi import APIRouter, Response

from guard import policy
from guard.snapshot import Snapshot, advance
from guard.store import NotFoundError, Reader, ToggleRow, Writer
from guard.types import GuardName, GuardToggle, Principal, Scope, TargetToggle
from server.admin.context import AdminContext, DryRun, IfMatch, OwnTenant, TargetId, TenantId, set_etag
from server.admin.schemas import GuardToggleOut, Page, TargetToggleOut
from server.errors import ApiError


def build(context: AdminContext) -> APIRouter:
    """The routes under ``/tenants/{tenant_id}/targets`` and ``/tenants/{tenant_id}/guards``."""
    router = context.router("toggles", tenants_too=True)
    defaults = context.service.registry.defaults

    @router.get("/tenants/{tenant_id}/targets", summary="List a tenant's target toggles")
    async def list_target_toggles(tenant_id: TenantId, _principal: OwnTenant) -> Page[TargetToggleOut]:
        """The targets that were switched on or off for this tenant. Those on for all tenants are not among them."""

        def ask(reader: Reader) -> list[ToggleRow[TargetToggle]]:
            return reader.target_toggles(reader.tenant(tenant_id).id)

        return Page(data=[TargetToggleOut.of(row) for row in await context.read(ask)])

    @router.get("/tenants/{tenant_id}/targets/{target_id}", summary="Show a tenant's toggle of a target")
    async def get_target_toggle(
        tenant_id: TenantId, target_id: TargetId, _principal: OwnTenant, response: Response
    ) -> TargetToggleOut:
        """One toggle; 404 when the target's own default holds."""
        row = await context.read(lambda reader: reader.target_toggle(tenant_id, target_id))
        if row is None:
            raise NotFoundError("toggle", target_id)
        set_etag(response, row.revision)
        return TargetToggleOut.of(row)

    @router.put("/tenants/{tenant_id}/targets/{target_id}", summary="Switch a target on or off for a tenant")
    async def put_target_toggle(
        tenant_id: TenantId,
        target_id: TargetId,
        toggle: TargetToggle,
        principal: OwnTenant,
        response: Response,
        dry_run: DryRun = False,
        if_match: IfMatch = None,
    ) -> TargetToggleOut:
        """Say how the tenant uses the target. What is not given is the target's own.

        The tenant's own key may always tighten; it may loosen what the operator has not locked if the tenant has
        `self_service`; it may never lock or unlock. What would loosen were the target on for all tenants counts too.
        """
        context.check_action(toggle.action)
        expected = context.expected(if_match)

        def change(writer: Writer) -> ToggleRow[TargetToggle]:
            wanted = toggle
            if principal.scope is Scope.TENANT and "locked" not in toggle.model_fields_set:
                current = writer.target_toggle(tenant_id, target_id)
                wanted = toggle.model_copy(update={"locked": current is not None and current.toggle.locked})
            _check_target_change(writer, principal, tenant_id, target_id, wanted)
            return writer.put_target_toggle(tenant_id, target_id, wanted, expected=expected)

        row = await context.write(change, dry_run=dry_run)
        set_etag(response, row.revision)
        return TargetToggleOut.of(row)

    @router.delete(
        "/tenants/{tenant_id}/targets/{target_id}", status_code=204, summary="Return to a target's own default"
    )
    async def delete_target_toggle(
        tenant_id: TenantId,
        target_id: TargetId,
        principal: OwnTenant,
        dry_run: DryRun = False,
        if_match: IfMatch = None,
    ) -> None:
        """Remove the toggle. The bounds for a tenant's own key are those of PUT."""
        expected = context.expected(if_match)

        def change(writer: Writer) -> None:
            _check_target_change(writer, principal, tenant_id, target_id, None)
            writer.delete_target_toggle(tenant_id, target_id, expected=expected)

        await context.write(change, dry_run=dry_run)

    @router.get("/tenants/{tenant_id}/guards", summary="List a tenant's guards")
    async def list_guard_toggles(tenant_id: TenantId, _principal: OwnTenant) -> Page[GuardToggleOut]:
        """Every guard as it works for this tenant. Revision 0 marks defaults."""

        def ask(reader: Reader) -> list[ToggleRow[GuardToggle]]:
            own = {row.subject: row for row in reader.guard_toggles(reader.tenant(tenant_id).id)}
            return [own.get(guard.value, ToggleRow(tenant_id, guard.value, defaults.guard, 0)) for guard in GuardName]

        return Page(data=[GuardToggleOut.of(row) for row in await context.read(ask)])

    @router.put("/tenants/{tenant_id}/guards/{guard}", summary="Set a guard for a tenant")
    async def put_guard_toggle(
        tenant_id: TenantId,
        guard: GuardName,
        toggle: GuardToggle,
        principal: OwnTenant,
        response: Response,
        dry_run: DryRun = False,
        if_match: IfMatch = None,
    ) -> GuardToggleOut:
        """Say whether the guard works for the tenant, how long it may take and what counts when it cannot judge.

        The bounds for a tenant's own key are those of its targets; while a target that is on for it is locked, it may
        loosen no guard.
        """
        expected = context.expected(if_match)

        def change(writer: Writer) -> ToggleRow[GuardToggle]:
            wanted = toggle
            if principal.scope is Scope.TENANT and "locked" not in toggle.model_fields_set:
                current = writer.guard_toggle(tenant_id, guard)
                wanted = toggle.model_copy(update={"locked": current is not None and current.toggle.locked})
            _check_guard_change(writer, principal, tenant_id, guard, wanted)
            return writer.put_guard_toggle(tenant_id, guard, wanted, expected=expected)

        row = await context.write(change, dry_run=dry_run)
        set_etag(response, row.revision)
        return GuardToggleOut.of(row)

    @router.delete("/tenants/{tenant_id}/guards/{guard}", status_code=204, summary="Return to a guard's default")
    async def delete_guard_toggle(
        tenant_id: TenantId,
        guard: GuardName,
        principal: OwnTenant,
        dry_run: DryRun = False,
        if_match: IfMatch = None,
    ) -> None:
        """Remove the toggle. The bounds for a tenant's own key are those of PUT."""
        expected = context.expected(if_match)

        def change(writer: Writer) -> None:
            _check_guard_change(writer, principal, tenant_id, guard, None)
            writer.delete_guard_toggle(tenant_id, guard, expected=expected)

        await context.write(change, dry_run=dry_run)

    def _check_target_change(
        writer: Writer, principal: Principal, tenant_id: str, target_id: str, after: TargetToggle | None
    ) -> None:
        if principal.scope is Scope.ADMIN:
            return
        row = writer.target_toggle(tenant_id, target_id)
        before = None if row is None else row.toggle
        tenant, target = writer.tenant(tenant_id), writer.target(target_id)
        if not policy.tenant_may_set_target(tenant, target, before, after, defaults):
            raise _loosening()

    def _check_guard_change(
        writer: Writer, principal: Principal, tenant_id: str, guard: GuardName, after: GuardToggle | None
    ) -> None:
        if principal.scope is Scope.ADMIN:
            return
        row = writer.guard_toggle(tenant_id, guard)
        before = None if row is None else row.toggle
        state = _state(writer)
        toggles = state.toggles.get(writer.tenant(tenant_id).id, {})
        if not policy.tenant_may_set_guard(state.policies[tenant_id], toggles, before, after, defaults):
            raise _loosening()

    def _state(writer: Writer) -> Snapshot:
        """The state inside the transaction: another process may have locked a target that the snapshot has unlocked."""
        known = context.service.registry.snapshot
        if writer.revision() < known.revision:  # the database was put back to an earlier state
            known = Snapshot()
        return advance(known, writer.changes_since(known.revision), defaults)

    return router


def _loosening() -> ApiError:
    return ApiError(
        403, "A tenant's key may tighten this, but not loosen, lock or unlock it", code="not_yours_to_loosen"
    )
