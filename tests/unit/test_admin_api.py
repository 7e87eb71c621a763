"""The admin API over its real store and registry: shapes, revisions, dry runs, and who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from control_plane import Service, application, client, control_plane
from fastapi import FastAPI


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with control_plane(tmp_path) as running:
        yield running


@pytest.fixture
def app(service: Service) -> FastAPI:
    return application(service)


@pytest.fixture
async def http(app: FastAPI):
    async with client(app) as http:
        yield http


async def _tenant(http: httpx.AsyncClient, name: str = "acme", **spec: Any) -> dict[str, Any]:
    answer = await http.post("/v1/guard/tenants", json={"name": name, **spec})
    assert answer.status_code == 201
    return answer.json()


async def _target(http: httpx.AsyncClient, name: str = "Zedo Frobi", **spec: Any) -> dict[str, Any]:
    answer = await http.post("/v1/guard/targets", json={"name": name, **spec})
    assert answer.status_code == 201
    return answer.json()


async def _flagged(http: httpx.AsyncClient, tenant: str, text: str = "Who is Zedo Frobi?") -> bool:
    answer = await http.post("/v1/guard/check", json={"tenant": tenant, "prompt": text})
    assert answer.status_code == 200
    return answer.json()["flagged"]


async def test_the_name_alone_is_enough_and_acts_at_once(http):
    target, tenant = await _target(http), await _tenant(http)
    assert target["revision"] == 1 and target["status"] == "active"
    assert not await _flagged(http, "acme")
    path = f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}"
    assert (await http.put(path, json={"enabled": True})).status_code == 200
    assert await _flagged(http, "acme")
    assert (await http.put(path, json={"enabled": False})).status_code == 200
    assert not await _flagged(http, "acme")


async def test_a_target_for_all_tenants_is_on_for_those_who_come_later(http):
    await _target(http, all_tenants=True)
    await _tenant(http)
    assert await _flagged(http, "acme")


async def test_monitor_mode_does_not_flag(http):
    await _target(http, all_tenants=True, mode="monitor")
    await _tenant(http)
    assert not await _flagged(http, "acme")


async def test_etags_guard_against_lost_updates(http):
    target = await _target(http)
    path = f"/v1/guard/targets/{target['id']}"
    etag = (await http.get(path)).headers["ETag"]
    first = await http.patch(path, json={"description": "one"}, headers={"If-Match": etag})
    assert first.status_code == 200 and first.headers["ETag"] != etag
    second = await http.patch(path, json={"description": "two"}, headers={"If-Match": etag})
    assert second.status_code == 412 and second.json()["error"]["code"] == "revision_mismatch"
    assert (await http.get(path)).json()["description"] == "one"


async def test_a_dry_run_checks_and_changes_nothing(http):
    answer = await http.post("/v1/guard/targets?dry_run=true", json={"name": "Zedo Frobi"})
    assert answer.status_code == 200 and answer.json()["status"] == "dry_run"
    assert (await http.get("/v1/guard/targets")).json()["data"] == []
    assert (await http.post("/v1/guard/targets?dry_run=true", json={"name": ""})).status_code == 400


async def test_lists_come_in_pages(http):
    for number in range(5):
        await _target(http, f"Target {number}")
    seen, after = [], ""
    while after is not None:
        page = (await http.get("/v1/guard/targets", params={"limit": 2, "after": after})).json()
        seen += [target["name"] for target in page["data"]]
        after = page["next"]
    assert seen == [f"Target {number}" for number in range(5)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "x", "colour": "red"}, "colour"),
        ({"name": "x", "mode": "sometimes"}, "mode"),
        ({"name": "x", "threshold": 2}, "threshold"),
        ({"name": "x", "action": "explode"}, "action"),
        ({"name": "x", "aliases": [1]}, "aliases.0"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(http, body, param):
    answer = await http.post("/v1/guard/targets", json=body)
    assert answer.status_code == 400
    assert param in (answer.json()["error"]["param"] or "")


async def test_broken_json_and_unknown_ids(http):
    assert (await http.post("/v1/guard/targets", content=b"{")).status_code == 400
    for method, path in (
        ("GET", "/v1/guard/targets/tgt_none"),
        ("DELETE", "/v1/guard/targets/tgt_none"),
        ("GET", "/v1/guard/tenants/ten_none"),
        ("PUT", "/v1/guard/tenants/ten_none/targets/tgt_none"),
    ):
        answer = await http.request(method, path, json={"enabled": True} if method == "PUT" else None)
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


async def test_names_are_taken_once(http):
    await _target(http)
    answer = await http.post("/v1/guard/targets", json={"name": "ZEDO FROBI"})
    assert answer.status_code == 409


async def test_a_body_that_is_too_large(service):
    app = application(service, max_body_bytes=1000)
    async with client(app) as http:
        answer = await http.post("/v1/guard/targets", json={"name": "x", "description": "y" * 2000})
    assert answer.status_code == 413


async def test_if_match_can_be_demanded(service):
    app = application(service, require_if_match=True)
    async with client(app) as http:
        target = await _target(http)
        path = f"/v1/guard/targets/{target['id']}"
        assert (await http.patch(path, json={"description": "x"})).status_code == 428
        assert (await http.delete(path, headers={"If-Match": '"1"'})).status_code == 204


class TestTenantKeys:
    """What a tenant may do with its own key."""

    @pytest.fixture
    async def setup(self, http, app):
        tenant, target = await _tenant(http), await _target(http)
        async with client(app, tenant["api_key"]) as own:
            yield tenant, target, own

    async def test_it_may_tighten(self, setup, http):
        tenant, target, own = setup
        path = f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}"
        assert (await own.put(path, json={"enabled": True})).status_code == 200
        assert await _flagged(http, "acme")

    async def test_it_may_not_loosen(self, setup, http):
        tenant, target, own = setup
        path = f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}"
        await http.put(path, json={"enabled": True})
        assert (await own.put(path, json={"enabled": False})).status_code == 403
        assert (await own.delete(path)).status_code == 403
        guard = f"/v1/guard/tenants/{tenant['id']}/guards/lexicon"
        assert (await own.put(guard, json={"enabled": False})).status_code == 403
        assert await _flagged(http, "acme")

    async def test_self_service_loosens_what_is_not_locked(self, setup, http):
        tenant, target, own = setup
        await http.patch(f"/v1/guard/tenants/{tenant['id']}", json={"self_service": True})
        path = f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}"
        await http.put(path, json={"enabled": True})
        assert (await own.put(path, json={"enabled": False})).status_code == 200
        await http.put(path, json={"enabled": True, "locked": True})
        assert (await own.put(path, json={"enabled": False})).status_code == 403

    async def test_it_sees_no_one_else(self, setup, http):
        other = await _tenant(http, "other")
        _, _, own = setup
        assert (await own.get(f"/v1/guard/tenants/{other['id']}")).status_code == 403
        for path in ("targets", "tenants", "audit"):
            assert (await own.get(f"/v1/guard/{path}")).status_code == 403
        assert (await own.post("/v1/guard/check", json={"tenant": "other", "prompt": "x"})).status_code == 403


async def test_rotation_ends_the_old_key_and_revocation_the_new(http, app):
    tenant = await _tenant(http)
    chat = "/v1/chat/completions"
    made = (await http.post(f"/v1/guard/tenants/{tenant['id']}/keys", json={})).json()
    async with client(app, tenant["api_key"]) as old, client(app, made["api_key"]) as new:
        assert (await old.post(chat)).status_code == 401
        assert (await new.post(chat)).status_code == 200
        assert (await http.delete(f"/v1/guard/tenants/{tenant['id']}/keys/{made['id']}")).status_code == 204
        assert (await new.post(chat)).status_code == 401


async def test_openapi_describes_every_route(app):
    paths = app.openapi()["paths"]
    assert {path for path in paths if path.startswith("/v1/guard")} == set(paths)
    for operations in paths.values():
        for operation in operations.values():
            assert operation["summary"] and operation["security"]
