"""The control plane without a model: a real store, registry, audit and admin API, and a detector that finds names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx
from fastapi import FastAPI, Request

from guard.audit import AuditLog
from guard.caller import CALLER
from guard.registry import Registry
from guard.snapshot import Snapshot
from guard.store import Store
from guard.types import CheckResult, Finding, GuardName, TenantPolicy, Verdict
from server.admin import build_router
from server.auth import AuthMiddleware

ADMIN_KEY = "test-admin-key-0123456789"


@dataclass
class Service:
    """A service whose detector flags the targets whose names it reads."""

    store: Store
    registry: Registry
    audit: AuditLog
    prepared: list[Snapshot] = field(default_factory=list)

    async def check(self, policy: TenantPolicy, segments: list[str], completion: str | None = None) -> CheckResult:
        """Flag targets by name."""
        findings = tuple(
            Finding(active.target.id, active.target.revision, GuardName.LEXICON, 1.0, 0.5, segment, "name")
            for active in policy.targets.values()
            for segment in segments
            if active.target.spec.name.casefold() in segment.casefold()
        )
        blocked = completion is not None and any(
            active.target.spec.name.casefold() in completion.casefold() for active in policy.targets.values()
        )
        return CheckResult(Verdict(findings), blocked, 0.1)


@contextmanager
def control_plane(
    folder: Path, prepare: Callable[[Snapshot], None] | None = None, admin_key: str = ADMIN_KEY
) -> Iterator[Service]:
    """A started service on a SQLite database in ``folder``."""
    prepared: list[Snapshot] = []
    store = Store.open(f"sqlite:///{folder / 'lethe.db'}")
    registry = Registry(store, prepare or prepared.append, poll_interval=0.05)
    registry.bootstrap(admin_key)
    registry.start()
    audit = AuditLog(store)
    try:
        yield Service(store, registry, audit, prepared)
    finally:
        registry.close()
        audit.close()
        store.close()


def application(service: Service, *, open_metrics: bool = True, **options: object) -> FastAPI:
    """The admin API behind its middleware, and a stand-in for a route to the model that says who called it."""
    app = FastAPI()
    app.include_router(build_router(service, **options))

    @app.post("/v1/chat/completions", include_in_schema=False)
    @app.post("/v1/messages", include_in_schema=False)
    @app.get("/health", include_in_schema=False)
    @app.get("/metrics", include_in_schema=False)
    async def model(request: Request) -> dict[str, str | None]:
        caller = CALLER.get(None)
        return {"tenant": caller and caller.tenant_id, "key": caller and caller.key_id, "surface": request.url.path}

    settings = SimpleNamespace(open_metrics=open_metrics)
    app.add_middleware(AuthMiddleware, registry=service.registry, settings=settings)
    return app


def client(app: FastAPI, key: str | None = ADMIN_KEY) -> httpx.AsyncClient:
    """A client of ``app`` with this key."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lethe", headers=headers)
