"""The route to the audit."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from guard.audit import AuditFilter
from guard.types import Action, GuardName
from server.admin.context import AdminContext, IdFilter, Limit
from server.admin.schemas import AuditEntryOut, Moment, Page

Cursor = Annotated[int | None, Query(ge=0, lt=2**63, description="`next` of the page before, or an entry's id.")]


def build(context: AdminContext) -> APIRouter:
    """The route ``/audit``."""
    router = context.router("audit")
    audit = context.service.audit

    @router.get("/audit", summary="List what the guards did")
    async def list_audit(
        tenant: IdFilter = None,
        target: IdFilter = None,
        guard: GuardName | None = None,
        action: Annotated[Action | None, Query()] = None,
        since: Annotated[Moment | None, Query(description="The earliest time, included.")] = None,
        until: Annotated[Moment | None, Query(description="The latest time, excluded.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
        order: Annotated[Literal["newest", "oldest"], Query(description="Which come first.")] = "newest",
    ) -> Page[AuditEntryOut]:
        """Who asked, which targets and guards were involved, what was done and how long it took.

        Target and guard must meet in one finding. To follow the audit, ask for the oldest first with the id of the
        last entry seen as `cursor`.
        """
        filters = AuditFilter(tenant, target, guard, action, since, until)
        page = await run_in_threadpool(audit.query, filters, cursor=cursor, limit=limit, oldest_first=order == "oldest")
        data = [AuditEntryOut.of(entry) for entry in page.entries]
        return Page(data=data, next=None if page.cursor is None else str(page.cursor))

    return router
