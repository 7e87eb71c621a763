"""The admin API, ``/v1/guard``: targets, tenants, keys, toggles, verdicts without generating, audit."""

from __future__ import annotations

from fastapi import APIRouter

from server.admin import audit, check, compile, keys, status, targets, tenants, toggles
from server.admin.compile import Fitting
from server.admin.context import AdminContext, AdminService
from server.auth import ADMIN_PREFIX

__all__ = ["AdminService", "Fitting", "build_router"]


def build_router(
    service: AdminService,
    *,
    max_body_bytes: int = 64 * 2**20,
    require_if_match: bool = False,
    fitting: Fitting | None = None,
) -> APIRouter:
    """All routes of the admin API. They need :class:`server.auth.AuthMiddleware` in front, and deny all without it.

    Args:
        service: what they work on.
        max_body_bytes: larger request bodies are answered by 413.
        require_if_match: changes that name no revision are answered by 428.
        fitting: what compiles targets; None where the engine cannot.
    """
    context = AdminContext(service, max_body_bytes, require_if_match)
    router = APIRouter(prefix=ADMIN_PREFIX)
    for part in (targets, tenants, keys, toggles, check, audit, status):
        router.include_router(part.build(context))
    router.include_router(compile.build(context, fitting))
    return router
