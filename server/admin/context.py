"""What all admin routes share: their service, who may use them, revisions in headers, errors in one shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.types import Message

from guard.audit import AuditLog
from guard.registry import PrepareError, Registry
from guard.store import (
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
    Reader,
    RevisionMismatchError,
    Store,
    Writer,
)
from guard.types import CheckResult, Principal, Scope, TenantPolicy
from server.errors import ApiError, ErrorBody, error_response, validation_error_response

T = TypeVar("T")

_ID = r"^[A-Za-z0-9_-]{1,64}$"

TargetId = Annotated[str, Path(pattern=_ID, description="Id of a target.")]
TenantId = Annotated[str, Path(pattern=_ID, description="Id of a tenant.")]
KeyId = Annotated[str, Path(pattern=_ID, description="Id of a key.")]
IdFilter = Annotated[str | None, Query(pattern=_ID)]
After = Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{0,64}$", description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
NameFilter = Annotated[str | None, Query(max_length=200, description="Only the one with this name.")]
DryRun = Annotated[bool, Query(description="Check, and say what would be, without changing anything.")]
IfMatch = Annotated[str | None, Header(description="The ETag that the object must still have.")]

_ETAG = re.compile(r'"(\d{1,18})"')


class AdminService(Protocol):
    """What the admin API needs of the service behind it."""

    @property
    def registry(self) -> Registry:
        """The state."""

    @property
    def store(self) -> Store:
        """The database."""

    @property
    def audit(self) -> AuditLog:
        """The audit."""

    async def check(self, policy: TenantPolicy, segments: list[str], completion: str | None = None, /) -> CheckResult:
        """The verdict on a conversation, and on an answer to it."""


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The service and the options that the routes were built with."""

    service: AdminService
    max_body_bytes: int
    require_if_match: bool

    def router(self, tag: str, *, tenants_too: bool = False) -> APIRouter:
        """A router with everything that its routes have in common.

        Args:
            tag: groups the routes in the documentation.
            tenants_too: tenant keys get in as well; each route must then look at :func:`own_tenant`.
        """
        return APIRouter(
            tags=[tag],
            route_class=_route_class(self.max_body_bytes),
            dependencies=[Depends(HTTPBearer(auto_error=False)), *([] if tenants_too else [Depends(admin_only)])],
            responses={
                "4XX": {"model": ErrorBody, "description": "The request is wrong, not allowed or out of date"},
                "5XX": {"model": ErrorBody, "description": "The server is at fault; nothing was changed"},
            },
        )

    async def read(self, question: Callable[[Reader], T]) -> T:
        """Ask the database, in a thread."""

        def ask() -> T:
            with self.service.store.read() as reader:
                return question(reader)

        return await run_in_threadpool(ask)

    async def write(self, change: Callable[[Writer], T], *, dry_run: bool = False) -> T:
        """Change the state, in a thread. In force when this returns."""
        return await run_in_threadpool(lambda: self.service.registry.write(change, dry_run=dry_run))

    def expected(self, if_match: str | None) -> int | None:
        """The revision that ``If-Match`` names; None when any will do.

        Raises:
            ApiError: 428 where one is required, 400 for more than one entity tag.
        """
        if if_match is None:
            if self.require_if_match:
                raise ApiError(428, "This server wants changes to name a revision (If-Match)", code="if_match_required")
            return None
        if if_match.strip() == "*":
            return None
        if "," in if_match:
            raise ApiError(400, "If-Match must be one entity tag", code="invalid_value", param="if-match")
        match = _ETAG.fullmatch(if_match.strip())
        return int(match[1]) if match else -1  # a tag that is not ours matches no revision

    def check_action(self, action: str | None) -> None:
        """Refuse actions that no intervention carries out.

        Raises:
            ApiError: 400.
        """
        known = ("auto", *self.service.registry.defaults.strictness)
        if action is not None and action not in known:
            raise ApiError(400, f"action must be one of {', '.join(known)}", code="invalid_value", param="action")


def set_etag(response: Response, revision: int) -> None:
    """Name the revision of what is returned."""
    response.headers["ETag"] = f'"{revision}"'


def principal_of(request: Request) -> Principal:
    """Who sends the request.

    Raises:
        ApiError: 401 when no middleware said.
    """
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None:
        raise ApiError(401, "A valid API key is needed", code="invalid_api_key")
    return principal


async def admin_only(request: Request) -> None:
    """Let only admin keys in.

    Raises:
        ApiError: 403 for tenant keys.
    """
    if principal_of(request).scope is not Scope.ADMIN:
        raise ApiError(403, "This needs an admin key", code="admin_key_required")


async def own_tenant(request: Request, tenant_id: TenantId) -> Principal:
    """Let admin keys in, and the keys of the tenant that the path names.

    Raises:
        ApiError: 403 for keys of other tenants.
    """
    principal = principal_of(request)
    if principal.scope is not Scope.ADMIN and principal.tenant_id != tenant_id:
        raise ApiError(403, "This needs an admin key, or a key of this tenant", code="admin_key_required")
    return principal


OwnTenant = Annotated[Principal, Depends(own_tenant)]


def _route_class(max_body_bytes: int) -> type[APIRoute]:
    class AdminRoute(APIRoute):
        """Bounds the request's body and answers every error in one shape, whatever application it is mounted in."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_admin(request: Request) -> Response:
                try:
                    return await handle(_bounded(request, max_body_bytes))
                except Exception as error:
                    response = _answer(error)
                    if response is None:
                        raise
                    return response

            return handle_admin

    return AdminRoute


def _bounded(request: Request, max_bytes: int) -> Request:
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise ApiError(413, f"The body must not exceed {max_bytes} bytes", code="body_too_large")
        return message

    return Request(request.scope, receive)


def _answer(error: Exception) -> Response | None:
    """The response that an expected error is worth; None for others."""
    match error:
        case ApiError():
            return error.response()
        case RequestValidationError() | ValidationError():
            return validation_error_response(error.errors())
        case NotFoundError():
            return error_response(404, str(error), code="not_found")
        case NameTakenError():
            return error_response(409, str(error), code="name_taken", param="name")
        case RevisionMismatchError():
            current = {} if error.actual is None else {"ETag": f'"{error.actual}"'}
            return error_response(412, str(error), code="revision_mismatch", headers=current)
        case InvalidChangeError():
            return error_response(409, str(error), code="not_allowed")
        case PrepareError():
            return error_response(500, f"{error}; nothing was changed", code="not_ready")
        case OperationalError():
            return error_response(503, "The database is unavailable", code="database_unavailable")
    return None
