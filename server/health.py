"""``/ready``: whether requests can be answered *and* judged."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from vllm.engine.protocol import EngineClient

from guard.service import GuardService

#: How long a self-test's result stands, in seconds: probes come often, and each test encodes a few sentences.
_SELF_TEST_TTL = 15.0


def build_health_router(engine: EngineClient, service: GuardService) -> APIRouter:
    """The readiness route. ``/health`` is vLLM's own: is the engine alive."""
    router = APIRouter(tags=["health"])
    cached: dict[str, Any] = {"at": float("-inf"), "detectors": {}}
    lock = asyncio.Lock()

    @router.get("/ready", summary="Ready to answer and to judge", responses={503: {"description": "Not ready"}})
    async def ready() -> JSONResponse:
        """Ready only when the engine lives, the registry is fresh, and every detector tells a known positive apart."""
        async with lock:
            if time.monotonic() - cached["at"] > _SELF_TEST_TTL:
                try:
                    cached["detectors"] = dict(await asyncio.to_thread(service.detection.self_test))
                except Exception:
                    cached["detectors"] = {"self_test": False}
                cached["at"] = time.monotonic()
        checks = {
            "engine": engine.is_running and not engine.errored,
            "registry": service.registry.healthy,
            **cached["detectors"],
        }
        is_ready = all(checks.values())
        return JSONResponse({"ready": is_ready, "checks": checks}, status_code=200 if is_ready else 503)

    return router
