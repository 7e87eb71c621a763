"""Errors in the shape of OpenAI's API: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    412: "precondition_failed",
    428: "precondition_required",
    503: "service_unavailable",
}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An error to answer a request with."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code = code
        self.param = param

    def response(self) -> JSONResponse:
        """The error as a response."""
        return error_response(self.status_code, self.detail, code=self.code, param=self.param, headers=self.headers)


def error_response(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error response in OpenAI's shape."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))
    return JSONResponse(body.model_dump(), status, headers)


def anthropic_error_response(status: int, message: str) -> JSONResponse:
    """An error response in the shape of Anthropic's API."""
    kind = {401: "authentication_error", 403: "permission_error"}.get(status, "invalid_request_error")
    return JSONResponse({"type": "error", "error": {"type": kind, "message": message}}, status)


def validation_error_response(errors: Sequence[Mapping[str, Any]]) -> JSONResponse:
    """A 400 that names the first of pydantic's ``errors`` by its path, and does not repeat what was sent."""
    first = errors[0]
    path = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return error_response(400, f"{path or 'body'}: {first['msg']}{more}", code="invalid_value", param=path or None)
