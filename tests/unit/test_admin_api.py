"""The admin API over its real store and registry: shapes, revisions, dry runs, and who may do what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from control_plane import Service, application, client, control_plane
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

from guard.audit import AuditEntry, AuditFinding
from guard.snapshot import Snapshot
from guard.types import GuardName, Mode


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
        ({"name": "x", "verbatim_run": 2}, "verbatim_run"),
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

    async def test_no_guard_is_switched_off_under_a_lock(self, setup, http):
        tenant, target, own = setup
        await http.patch(f"/v1/guard/tenants/{tenant['id']}", json={"self_service": True})
        toggle = f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}"
        guards = [f"/v1/guard/tenants/{tenant['id']}/guards/{guard.value}" for guard in GuardName]
        lock = {"enabled": True, "locked": True}
        for change, body, undo in (
            (f"/v1/guard/targets/{target['id']}", {"all_tenants": True, "locked": True}, {"all_tenants": False}),
            (toggle, lock, {"enabled": False}),
        ):
            send = http.put if change == toggle else http.patch
            assert (await send(change, json=body)).status_code == 200
            assert {(await own.put(guard, json={"enabled": False})).status_code for guard in guards} == {403}
            assert (await send(change, json=undo)).status_code == 200
            assert (await own.put(guards[0], json={"enabled": False})).status_code == 200
            assert (await own.delete(guards[0])).status_code == 204

    async def test_a_lock_of_another_process_counts_before_it_is_known_here(self, setup, http, service):
        tenant, target, own = setup
        await http.patch(f"/v1/guard/tenants/{tenant['id']}", json={"self_service": True})
        guard = f"/v1/guard/tenants/{tenant['id']}/guards/lexicon"
        service.registry.close()  # it follows the database no more
        with service.store.write() as writer:
            spec = writer.target(target["id"]).spec.model_copy(update={"all_tenants": True, "locked": True})
            writer.update_target(target["id"], spec)
        assert (await own.put(guard, json={"enabled": False})).status_code == 403

    async def test_nothing_is_switched_off_in_advance(self, setup, http):
        tenant, target, own = setup
        path = f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}"
        assert (await own.put(path, json={"enabled": False})).status_code == 403
        await http.patch(f"/v1/guard/targets/{target['id']}", json={"all_tenants": True})
        assert await _flagged(http, "acme")

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


async def test_a_merge_patch_changes_what_is_given_and_null_only_where_null_means_something(http):
    target = await _target(http, description="a", aliases=["b"], threshold=0.5, forget_examples=["c"])
    path = f"/v1/guard/targets/{target['id']}"
    changed = (await http.patch(path, json={"threshold": None, "aliases": []})).json()
    assert changed["threshold"] is None and changed["aliases"] == []
    assert changed["description"] == "a" and changed["forget_examples"] == target["forget_examples"]
    for body in ({"name": None}, {"name": " "}, {"aliases": None}, {"id": "tgt_other"}, {"action": "explode"}):
        assert (await http.patch(path, json=body)).status_code == 400, body
    same = await http.patch(path, json={"description": "a"})
    assert same.status_code == 200 and same.json()["revision"] == changed["revision"]


async def test_deleting_twice_is_a_404(http):
    target, tenant = await _target(http), await _tenant(http)
    toggle = f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}"
    guard = f"/v1/guard/tenants/{tenant['id']}/guards/leak"
    await http.put(toggle, json={"enabled": True})
    await http.put(guard, json={"enabled": True})
    key = f"/v1/guard/tenants/{tenant['id']}/keys/{tenant['key_id']}"
    for path in (toggle, guard, key, f"/v1/guard/targets/{target['id']}", f"/v1/guard/tenants/{tenant['id']}"):
        assert (await http.delete(f"{path}?dry_run=true")).status_code == 204
        assert (await http.delete(path)).status_code == 204
        assert (await http.delete(path)).status_code == 404


async def test_toggles_have_revisions_too(http):
    target, tenant = await _target(http), await _tenant(http)
    for path, body in (
        (f"/v1/guard/tenants/{tenant['id']}/targets/{target['id']}", {"enabled": True}),
        (f"/v1/guard/tenants/{tenant['id']}/guards/leak", {"on_error": "open"}),
    ):
        assert (await http.put(path, json=body, headers={"If-Match": '"1"'})).status_code == 412  # there is none yet
        etag = (await http.put(path, json=body)).headers["ETag"]
        changed = await http.put(path, json={"enabled": False}, headers={"If-Match": etag})
        assert changed.status_code == 200 and changed.headers["ETag"] != etag
        assert (await http.delete(path, headers={"If-Match": etag})).status_code == 412
        assert (await http.delete(path, headers={"If-Match": "*"})).status_code == 204


@pytest.mark.parametrize(("tag", "status"), [('"1"', 204), ("*", 204), ('W/"1"', 412), ("1", 412), ('"1", "2"', 400)])
async def test_spellings_of_if_match(http, tag, status):
    target = await _target(http)
    answer = await http.delete(f"/v1/guard/targets/{target['id']}", headers={"If-Match": tag})
    assert answer.status_code == status
    if status == 412:
        assert answer.headers["ETag"] == '"1"'


async def test_a_target_that_cannot_be_made_ready_is_not_registered(tmp_path):
    def prepare(snapshot: Snapshot) -> None:
        if snapshot.targets:
            raise ValueError("text of a target")

    with control_plane(tmp_path, prepare) as service:
        async with client(application(service)) as http:
            answer = await http.post("/v1/guard/targets", json={"name": "Zedo Frobi"})
            assert answer.status_code == 500 and answer.json()["error"]["code"] == "not_ready"
            assert "text of a target" not in answer.text
            assert (await http.get("/v1/guard/targets")).json()["data"] == []


async def test_a_database_that_is_away_is_a_503(http, service, monkeypatch):
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("secret"))

    monkeypatch.setattr(service.store, "read", away)
    answer = await http.get("/v1/guard/targets")
    assert answer.status_code == 503 and "secret" not in answer.text


async def test_a_body_in_pieces_is_bounded_too(service):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    async with client(application(service, max_body_bytes=1000)) as http:
        headers = {"Content-Type": "application/json"}
        assert (await http.post("/v1/guard/targets", content=pieces(), headers=headers)).status_code == 413


async def test_a_dry_run_makes_no_keys(http, service):
    answer = await http.post("/v1/guard/tenants?dry_run=true", json={"name": "acme"})
    assert answer.status_code == 200 and answer.json()["api_key"] is None
    assert service.registry.snapshot.anonymous_tenant_id == "ten_default"
    tenant = await _tenant(http)
    keys = f"/v1/guard/tenants/{tenant['id']}/keys"
    answer = await http.post(f"{keys}?dry_run=true")
    assert answer.status_code == 200 and (answer.json()["api_key"], answer.json()["revoked"]) == (None, 1)
    assert [key["revoked_at"] for key in (await http.get(keys)).json()["data"]] == [None]


async def test_admin_keys_come_and_go_but_the_last_stays(http, app):
    first = (await http.get("/v1/guard/keys")).json()["data"][0]
    assert (await http.delete(f"/v1/guard/keys/{first['id']}")).status_code == 409
    made = (await http.post("/v1/guard/keys")).json()
    async with client(app, made["api_key"]) as other:
        assert (await other.delete(f"/v1/guard/keys/{first['id']}")).status_code == 204
        assert (await http.get("/v1/guard/keys")).status_code == 401
        listed = (await other.get("/v1/guard/keys")).json()["data"]
    assert [key["revoked_at"] is None for key in listed] == [False, True]
    assert made["api_key"] not in str(listed) and all("hash" not in key for key in listed)


async def test_only_the_default_tenant_goes_without_a_key(http, app):
    assert (await http.post("/v1/guard/tenants", json={"name": "x", "anonymous": True})).status_code == 409
    await _tenant(http)
    async with client(app, None) as nobody:
        assert (await nobody.post("/v1/chat/completions")).status_code == 401
        await http.patch("/v1/guard/tenants/ten_default", json={"anonymous": True})
        assert (await nobody.post("/v1/chat/completions")).status_code == 200


async def test_check_takes_messages_in_every_shape(http):
    await _target(http, all_tenants=True)
    parts = [{"type": "text", "text": "Who is"}, {"type": "text", "text": "Zedo Frobi?"}]
    for messages, flagged in (
        ([{"role": "user", "content": "Zedo Frobi"}], True),
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Zedo Frobi", "name": "x"}], True),
        ([{"role": "user", "content": parts}], True),
        ([{"role": "assistant", "content": None}, {"role": "user", "content": "hello"}], False),
    ):
        body = {"tenant": "default", "messages": messages, "completion": "It is Zedo Frobi."}
        answer = (await http.post("/v1/guard/check", json=body)).json()
        assert answer["flagged"] is flagged and answer["completion_blocked"]
    for body in ({"tenant": "default"}, {"tenant": "default", "prompt": "x", "messages": messages}, {"prompt": "x"}):
        assert (await http.post("/v1/guard/check", json=body)).status_code == 400


async def test_the_audit_is_filtered_and_paged(http, service):
    finding = AuditFinding("tgt_1", 1, GuardName.LEXICON, Mode.ENFORCE, 0.9, 0.5, "0" * 64)
    now = datetime.now(UTC)
    entry = AuditEntry(
        now, "r", "ten_default", None, "/v1/completions", "refuse", (finding,), (), "0" * 64, None, 1.0, 2.0
    )
    for number in range(5):
        service.audit.record(replace(entry, request_id=str(number), time=now + timedelta(hours=number))).result(5)
    seen, cursor = "", None
    while True:
        params = {"limit": 2, "target": "tgt_1", "order": "oldest"} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/v1/guard/audit", params=params)).json()
        seen += "".join(one["request_id"] for one in page["data"])
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == "01234"
    since = {"since": (now + timedelta(hours=3)).isoformat()}
    assert [one["request_id"] for one in (await http.get("/v1/guard/audit", params=since)).json()["data"]] == ["4", "3"]
    for wrong in ({"since": "0001-01-01T00:00:00+14:00"}, {"since": "2026-01-01T00:00:00"}, {"cursor": 2**63}):
        assert (await http.get("/v1/guard/audit", params=wrong)).status_code == 400, wrong


@pytest.mark.parametrize("body", [b'{"name": "\\ud800"}', b'{"name": "\\u0000"}', b"[" * 100_000, b"\xff", b""])
async def test_strange_bodies_are_no_server_errors(http, body):
    headers = {"Content-Type": "application/json"}
    answer = await http.post("/v1/guard/targets", content=body, headers=headers)
    assert answer.status_code < 500


async def test_status(http):
    await _target(http)
    status = (await http.get("/v1/guard/status")).json()
    assert status["healthy"] and status["targets"] == status["tenants"] == 1 and status["anonymous"]
    assert "refuse" in status["actions"] and set(status["guards"]) == set(GuardName)


async def test_an_instruction_is_understood_and_enforced_once_confirmed(http):
    await _tenant(http)
    said = {"instruction": "Please forget everything about Zedo Frobi.", "all_tenants": True}
    answer = await http.post("/v1/guard/targets", json=said)
    assert answer.status_code == 201
    target = answer.json()
    assert (target["name"], target["mode"]) == ("Zedo Frobi", "monitor")
    understood = target["understood"]
    assert understood["name"] == "Zedo Frobi" and any("Zedo Frobi" in question for question in understood["questions"])
    for _ in range(2):
        confirmed = await http.post(understood["confirm"])
        assert confirmed.status_code == 200 and confirmed.json()["mode"] == "enforce"
    assert await _flagged(http, "acme")


@pytest.mark.parametrize(
    "body", [{"instruction": "What is the weather?"}, {"instruction": "forget Ann", "name": "Ben"}, {"instruction": 5}]
)
async def test_an_instruction_that_cannot_be_followed_is_a_400(http, body):
    answer = await http.post("/v1/guard/targets", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["message"]
    assert (await http.get("/v1/guard/targets")).json()["data"] == []
