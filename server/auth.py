"""Who may ask what: a middleware in front of every route, vLLM's and Lethe's alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from guard.caller import CALLER, Caller
from guard.registry import Registry
from server.errors import anthropic_error_response, error_response

if TYPE_CHECKING:
    from server.settings import Settings

#: Where the admin API lives. Its own routes look at the principal's scope once more (``server.admin.context``).
ADMIN_PREFIX = "/v1/guard"

_OPEN = frozenset({"/health", "/ready", "/version"})
_METRICS = "/metrics"
_DOCUMENTATION = frozenset({"/openapi.json", "/docs", "/redoc"})  # for admins too
_ANTHROPIC = "/v1/messages"


class AuthMiddleware:
    """Lets through whoever has a valid key for the route, and says for whom the request is.

    Requests to the model run with :data:`guard.caller.CALLER` set; those to the admin API find the
    :class:`~guard.types.Principal` in ``request.state.principal``. WebSocket connections are refused: none of the
    routes that use them passes the guard.

    Args:
        app: what to protect.
        registry: knows the keys.
        settings: whether ``/metrics`` is open.
    """

    def __init__(self, app: ASGIApp, registry: Registry, settings: Settings) -> None:
        self._app = app
        self._registry = registry
        self._open = _OPEN | {_METRICS} if settings.open_metrics else _OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "WebSocket is not supported"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        if path in self._open:
            await self._app(scope, receive, send)
            return
        administers = _is_below(path, ADMIN_PREFIX)
        principal = self._registry.authenticate(_key(Headers(scope=scope)))
        if principal is None or (administers and principal.key_id is None):
            await _unauthenticated(path)(scope, receive, send)
            return
        if principal.tenant_id is None and not administers and path not in _DOCUMENTATION:
            await _not_a_tenant(path)(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        if principal.tenant_id is None:
            await self._app(scope, receive, send)
            return
        token = CALLER.set(Caller(principal.tenant_id, principal.key_id, path))
        try:
            await self._app(scope, receive, send)
        finally:
            CALLER.reset(token)


def route_path(scope: Scope) -> str:
    """The path that routes are matched against: without the prefix under which a proxy serves the application."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path


def _key(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip() or None


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _not_a_tenant(path: str) -> JSONResponse:
    message = (
        "This is an admin key: it administers Lethe and sends no requests to the model. "
        f"Use a tenant's key, made by POST {ADMIN_PREFIX}/tenants."
    )
    if _is_below(path, _ANTHROPIC):
        return anthropic_error_response(403, message)
    return error_response(403, message, code="admin_key_not_allowed")


def _unauthenticated(path: str) -> JSONResponse:
    message = "A valid API key is needed, as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
    if _is_below(path, _ANTHROPIC):
        response = anthropic_error_response(401, message)
    else:
        response = error_response(401, message, code="invalid_api_key")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response
