"""Forget targets, policy, the guarded engine and its interventions.

The names below are what a program needs that uses Lethe without its server; they are imported on first use, because
:class:`GuardedEngine` brings vLLM with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guard.caller import CALLER, Caller
    from guard.engine import GuardedEngine
    from guard.service import GuardService
    from guard.types import Example, TargetSpec, TargetToggle, TenantSpec

__all__ = ["CALLER", "Caller", "Example", "GuardService", "GuardedEngine", "TargetSpec", "TargetToggle", "TenantSpec"]

_HOME = {
    "CALLER": "guard.caller",
    "Caller": "guard.caller",
    "GuardService": "guard.service",
    "GuardedEngine": "guard.engine",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "guard.types")), name)
