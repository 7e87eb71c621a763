"""Routes for API keys, of tenants and of admins."""

from __future__ import annotations

from fastapi import APIRouter, Response

from guard.store import Reader, Writer
from guard.store.keys import new_key
from guard.types import ApiKey, Scope
from server.admin.context import AdminContext, DryRun, KeyId, TenantId
from server.admin.schemas import KeyCreated, KeyOut, KeyRequest, Page


def build(context: AdminContext) -> APIRouter:
    """The routes under ``/tenants/{tenant_id}/keys`` and ``/keys``."""
    router = context.router("keys")

    @router.post("/tenants/{tenant_id}/keys", status_code=201, summary="Rotate a tenant's key")
    async def rotate_tenant_key(
        tenant_id: TenantId, response: Response, how: KeyRequest | None = None, dry_run: DryRun = False
    ) -> KeyCreated:
        """Make a new key, shown this once. The old ones end at once unless `revoke_others` is false."""
        return await _make_key(Scope.TENANT, tenant_id, how or KeyRequest(), response, dry_run)

    @router.get("/tenants/{tenant_id}/keys", summary="List a tenant's keys")
    async def list_tenant_keys(tenant_id: TenantId) -> Page[KeyOut]:
        """All keys that the tenant ever had, oldest first."""

        def ask(reader: Reader) -> list[ApiKey]:
            return reader.keys(reader.tenant(tenant_id).id)

        return Page(data=[KeyOut.of(key) for key in await context.read(ask)])

    @router.delete("/tenants/{tenant_id}/keys", status_code=204, summary="Revoke all keys of a tenant")
    async def revoke_tenant_keys(tenant_id: TenantId, dry_run: DryRun = False) -> None:
        """The tenant can send no requests until a new key is made."""
        await context.write(lambda writer: writer.revoke_keys(writer.tenant(tenant_id).id), dry_run=dry_run)

    @router.delete("/tenants/{tenant_id}/keys/{key_id}", status_code=204, summary="Revoke a key of a tenant")
    async def revoke_tenant_key(tenant_id: TenantId, key_id: KeyId, dry_run: DryRun = False) -> None:
        """End the validity of one key."""
        await context.write(lambda writer: writer.revoke_key(key_id, tenant_id), dry_run=dry_run)

    @router.post("/keys", status_code=201, summary="Make an admin key")
    async def create_admin_key(response: Response, dry_run: DryRun = False) -> KeyCreated:
        """Make another admin key, shown this once. The old ones stay valid until each is revoked."""
        return await _make_key(Scope.ADMIN, None, KeyRequest(revoke_others=False), response, dry_run)

    @router.get("/keys", summary="List admin keys")
    async def list_admin_keys() -> Page[KeyOut]:
        """All admin keys that there ever were, oldest first."""
        return Page(data=[KeyOut.of(key) for key in await context.read(lambda reader: reader.keys(None))])

    @router.delete("/keys/{key_id}", status_code=204, summary="Revoke an admin key")
    async def revoke_admin_key(key_id: KeyId, dry_run: DryRun = False) -> None:
        """End the validity of one admin key; the last one must stay."""
        await context.write(lambda writer: writer.revoke_key(key_id, None), dry_run=dry_run)

    async def _make_key(
        scope: Scope, tenant_id: str | None, how: KeyRequest, response: Response, dry_run: bool
    ) -> KeyCreated:
        key = new_key(scope)

        def change(writer: Writer) -> tuple[int, ApiKey]:
            revoked = writer.revoke_keys(tenant_id) if tenant_id is not None and how.revoke_others else 0
            return revoked, writer.add_key(key, scope, tenant_id)

        revoked, record = await context.write(change, dry_run=dry_run)
        if dry_run:
            response.status_code = 200
        return KeyCreated(
            id=record.id,
            scope=scope,
            tenant_id=tenant_id,
            api_key=None if dry_run else key,
            status="dry_run" if dry_run else "active",
            revoked=revoked,
        )

    return router
