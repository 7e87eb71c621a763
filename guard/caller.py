"""Who a request comes from, carried from the HTTP middleware to the guarded engine."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant that sent a request, and where it came in."""

    tenant_id: str
    key_id: str | None  # None: the anonymous tenant
    surface: str  # the route's path, such as "/v1/chat/completions"


#: Set for the duration of every request that may reach the model.
CALLER: ContextVar[Caller] = ContextVar("lethe_caller")
