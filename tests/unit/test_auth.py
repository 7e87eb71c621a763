"""Who gets in where, with which key, and what the others are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from control_plane import ADMIN_KEY, Service, application, client, control_plane
from fastapi import FastAPI

from guard.caller import CALLER, Caller
from guard.store.keys import new_key
from guard.types import Scope, TenantSpec
from server.auth import AuthMiddleware

CHAT = "/v1/chat/completions"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with control_plane(tmp_path) as running:
        yield running


@pytest.fixture
def app(service: Service) -> FastAPI:
    return application(service)


def add_tenant(service: Service, name: str = "a") -> tuple[str, str]:
    """A tenant's id and key."""
    key = new_key(Scope.TENANT)
    tenant = service.registry.write(lambda writer: writer.create_tenant(TenantSpec(name=name)))
    service.registry.write(lambda writer: writer.add_key(key, Scope.TENANT, tenant.id))
    return tenant.id, key


async def test_without_tenants_no_key_is_needed(app: FastAPI) -> None:
    async with client(app, None) as http:
        assert (await http.post(CHAT)).json() == {"tenant": "ten_default", "key": None, "surface": CHAT}
        assert (await http.post(CHAT, headers={"Authorization": "Bearer EMPTY"})).status_code == 200


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "authorization: bearer {}", "x-api-key: {}"])
async def test_a_tenants_key_says_who_calls(app: FastAPI, service: Service, header: str) -> None:
    tenant_id, key = add_tenant(service)
    name, _, value = header.format(key).partition(": ")
    async with client(app, None) as http:
        answer = (await http.post(CHAT, headers={name: value})).json()
    assert answer["tenant"] == tenant_id and answer["key"].startswith("key_")
    assert CALLER.get(None) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer sk-unknown"},
        {"Authorization": "Bearer " + new_key(Scope.TENANT)},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "ü"},
    ],
)
async def test_unknown_keys_are_refused_in_the_routes_own_shape(
    app: FastAPI, service: Service, headers: dict[str, str]
) -> None:
    add_tenant(service)
    raw = {name: value.encode() for name, value in headers.items()}
    async with client(app, None) as http:
        openai, anthropic = await http.post(CHAT, headers=raw), await http.post("/v1/messages", headers=raw)
        admin = await http.get("/v1/guard/targets", headers=raw)
        unknown = await http.get("/nowhere", headers=raw)
    assert {answer.status_code for answer in (openai, anthropic, admin, unknown)} == {401}
    assert openai.headers["WWW-Authenticate"] == "Bearer"
    assert openai.json()["error"]["code"] == "invalid_api_key" and openai.json()["error"]["param"] is None
    assert anthropic.json()["type"] == "error" and anthropic.json()["error"]["type"] == "authentication_error"


async def test_an_admin_key_is_not_a_tenant(app: FastAPI) -> None:
    async with client(app) as http:
        openai, anthropic = await http.post(CHAT), await http.post("/v1/messages")
        documentation = await http.get("/openapi.json")
    assert openai.status_code == anthropic.status_code == 403
    assert "admin key" in openai.json()["error"]["message"] and anthropic.json()["error"]["type"] == "permission_error"
    assert documentation.status_code == 200


async def test_the_admin_api_needs_an_admin_key_even_where_the_model_needs_none(app: FastAPI) -> None:
    async with client(app, None) as http:
        assert (await http.get("/v1/guard/targets")).status_code == 401
        assert (await http.get("/v1/guard/targets", headers={"x-api-key": "EMPTY"})).status_code == 401
        assert (await http.get("/v1/guard/tenants/ten_default")).status_code == 401


async def test_a_tenants_key_opens_its_own_part_of_the_admin_api_only(app: FastAPI, service: Service) -> None:
    own, key = add_tenant(service, "a")
    other, _ = add_tenant(service, "b")
    async with client(app, key) as http:
        for path in ("", "/targets", "/guards"):
            assert (await http.get(f"/v1/guard/tenants/{own}{path}")).status_code == 200
            assert (await http.get(f"/v1/guard/tenants/{other}{path}")).status_code == 403
            assert (await http.get(f"/v1/guard/tenants/ten_unknown{path}")).status_code == 403
        for method, path in (
            ("GET", "/targets"),
            ("POST", "/targets"),
            ("GET", "/tenants"),
            ("POST", "/tenants"),
            ("PATCH", f"/tenants/{own}"),
            ("DELETE", f"/tenants/{own}"),
            ("GET", f"/tenants/{own}/keys"),
            ("POST", f"/tenants/{own}/keys"),
            ("DELETE", f"/tenants/{own}/keys"),
            ("GET", "/keys"),
            ("POST", "/keys"),
            ("POST", "/check"),
            ("GET", "/audit"),
            ("GET", "/status"),
        ):
            answer = await http.request(method, f"/v1/guard{path}", json={} if method in ("POST", "PATCH") else None)
            assert answer.status_code == 403, (method, path)
            assert answer.json()["error"]["type"] == "permission_error"


async def test_no_spelling_of_a_path_gets_around_the_scopes(app: FastAPI, service: Service) -> None:
    _, key = add_tenant(service)
    proxied = FastAPI(root_path="/proxy")
    proxied.router.routes.extend(app.router.routes)
    proxied.add_middleware(AuthMiddleware, registry=service.registry, settings=SimpleNamespace(open_metrics=True))
    for one, paths in (
        (app, ["//v1/guard/targets", "/v1//guard/targets", "/V1/guard/targets", "/v1/guard/targets/"]),
        (proxied, ["/proxy/v1/guard/targets", "/v1/guard/targets", "/proxy//v1/guard/targets"]),
    ):
        async with client(one, key) as http:
            for path in paths:
                assert (await http.get(path, follow_redirects=True)).status_code in (403, 404), path
        async with client(one, ADMIN_KEY) as http:
            assert (await http.get(paths[0].replace("//", "/"))).status_code == 200


async def test_without_the_middleware_the_admin_api_denies_all(service: Service) -> None:
    bare = application(service)
    bare.user_middleware.clear()
    async with client(bare) as http:
        assert (await http.get("/v1/guard/targets")).status_code == 401
        assert (await http.get("/v1/guard/tenants/ten_default")).status_code == 401


@pytest.mark.parametrize(("open_metrics", "expected"), [(True, 200), (False, 401)])
async def test_open_paths(service: Service, open_metrics: bool, expected: int) -> None:
    add_tenant(service)
    async with client(application(service, open_metrics=open_metrics), None) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/metrics")).status_code == expected
        assert (await http.get("/health/more")).status_code == 401


async def test_a_revoked_key_stops_at_once(app: FastAPI, service: Service) -> None:
    tenant_id, key = add_tenant(service)
    async with client(app, key) as http:
        assert (await http.post(CHAT)).status_code == 200
        service.registry.write(lambda writer: writer.revoke_keys(tenant_id))
        assert (await http.post(CHAT)).status_code == 401


async def test_websockets_are_refused(app: FastAPI) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app({"type": "websocket", "path": "/v1/realtime", "headers": [], "query_string": b""}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_concurrent_requests_do_not_mix_callers(service: Service) -> None:
    callers = dict(add_tenant(service, name) for name in "abcdefgh")
    seen: list[tuple[str, Caller]] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        expected = dict(scope["headers"])[b"x-expected"].decode()
        await asyncio.sleep(0.01)
        seen.append((expected, await asyncio.create_task(_caller())))

    middleware = AuthMiddleware(slow, service.registry, SimpleNamespace(open_metrics=True))  # type: ignore[arg-type]

    async def call(tenant_id: str, key: str) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode()), (b"x-expected", tenant_id.encode())]
        await middleware({"type": "http", "path": CHAT, "headers": headers}, None, None)  # type: ignore[arg-type]

    await asyncio.gather(*(call(*caller) for caller in callers.items()))
    assert len(seen) == len(callers) and all(expected == caller.tenant_id for expected, caller in seen)


async def _caller() -> Caller:
    return CALLER.get()
