"""Routes for tenants."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from guard.store import Writer
from guard.store.keys import new_key
from guard.types import ApiKey, Scope, Tenant, TenantSpec
from server.admin.context import (
    AdminContext,
    After,
    DryRun,
    IfMatch,
    Limit,
    NameFilter,
    OwnTenant,
    TenantId,
    admin_only,
    set_etag,
)
from server.admin.schemas import Page, TenantCreated, TenantOut, TenantPatch


def build(context: AdminContext) -> APIRouter:
    """The routes under ``/tenants``."""
    router = context.router("tenants", tenants_too=True)
    admins = [Depends(admin_only)]

    @router.post("/tenants", status_code=201, summary="Add a tenant", dependencies=admins)
    async def create_tenant(spec: TenantSpec, response: Response, dry_run: DryRun = False) -> TenantCreated:
        """Add a tenant and make its first key, which is shown this once.

        The first tenant ends serving requests without a key. A dry run answers 200.
        """
        key = new_key(Scope.TENANT)

        def change(writer: Writer) -> tuple[Tenant, ApiKey]:
            tenant = writer.create_tenant(spec)
            return tenant, writer.add_key(key, Scope.TENANT, tenant.id)

        tenant, record = await context.write(change, dry_run=dry_run)
        set_etag(response, tenant.revision)
        if dry_run:
            response.status_code = 200
            return TenantCreated.of(tenant, status="dry_run", api_key=None, key_id=None)
        return TenantCreated.of(tenant, status="active", api_key=key, key_id=record.id)

    @router.get("/tenants", summary="List tenants", dependencies=admins)
    async def list_tenants(after: After = "", limit: Limit = 100, name: NameFilter = None) -> Page[TenantOut]:
        """Tenants in the order in which they were added."""
        tenants = await context.read(lambda reader: reader.tenants(after=after, limit=limit + 1, name=name))
        page = [TenantOut.of(tenant) for tenant in tenants[:limit]]
        return Page(data=page, next=page[-1].id if len(tenants) > limit else None)

    @router.get("/tenants/{tenant_id}", summary="Show a tenant")
    async def get_tenant(tenant_id: TenantId, _principal: OwnTenant, response: Response) -> TenantOut:
        """One tenant. A tenant's own key may ask too."""
        tenant = await context.read(lambda reader: reader.tenant(tenant_id))
        set_etag(response, tenant.revision)
        return TenantOut.of(tenant)

    @router.patch("/tenants/{tenant_id}", summary="Change a tenant", dependencies=admins)
    async def update_tenant(
        tenant_id: TenantId, patch: TenantPatch, response: Response, dry_run: DryRun = False, if_match: IfMatch = None
    ) -> TenantOut:
        """Change the fields that are given (JSON merge patch)."""
        expected = context.expected(if_match)

        def change(writer: Writer) -> Tenant:
            spec = TenantSpec.model_validate(patch.merged(writer.tenant(tenant_id).spec))
            return writer.update_tenant(tenant_id, spec, expected=expected)

        tenant = await context.write(change, dry_run=dry_run)
        set_etag(response, tenant.revision)
        return TenantOut.of(tenant)

    @router.delete("/tenants/{tenant_id}", status_code=204, summary="Delete a tenant", dependencies=admins)
    async def delete_tenant(tenant_id: TenantId, dry_run: DryRun = False, if_match: IfMatch = None) -> None:
        """Remove a tenant, its keys and its toggles. Its audit stays."""
        expected = context.expected(if_match)
        await context.write(lambda writer: writer.delete_tenant(tenant_id, expected=expected), dry_run=dry_run)

    return router
