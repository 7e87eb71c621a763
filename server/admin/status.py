"""The route that says what this process serves by."""

from __future__ import annotations

from fastapi import APIRouter

from guard.types import GuardName
from server.admin.context import AdminContext
from server.admin.schemas import StatusOut


def build(context: AdminContext) -> APIRouter:
    """The route ``/status``."""
    router = context.router("status")
    registry = context.service.registry

    @router.get("/status", summary="Show the state of this process")
    async def status() -> StatusOut:
        """Its revision, whether it follows the database, and how much there is."""
        snapshot = registry.snapshot
        return StatusOut(
            revision=snapshot.revision,
            healthy=registry.healthy,
            targets=len(snapshot.targets),
            tenants=len(snapshot.policies),
            anonymous=snapshot.anonymous_tenant_id is not None,
            actions=["auto", *registry.defaults.strictness],
            guards=list(GuardName),
        )

    return router
