"""Taking tools out of requests: in every shape, nothing else changed, and nobody else's requests read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from guard import policy
from guard.caller import CALLER, Caller
from guard.types import ForgetTarget, TargetSpec, Tenant, TenantPolicy, TenantSpec
from server.tools import ToolMiddleware, without_tools

_CHAT = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
_RESPONSES = {"type": "function", "name": "get_weather", "parameters": {}}
_MESSAGES = {"name": "Get_Weather", "input_schema": {}}
_BUILT_IN = {"type": "code_interpreter", "container": {"type": "auto"}}
_OTHER = {"type": "function", "function": {"name": "get_weather_report"}}


@pytest.mark.parametrize("tool", [_CHAT, _RESPONSES, _MESSAGES, _BUILT_IN])
def test_every_shape_of_tool_goes_and_the_others_stay(tool: dict[str, Any]) -> None:
    request = {"model": "m", "tools": [tool, _OTHER, "odd"], "tool_choice": "required", "messages": [{"role": "user"}]}
    without_tools(request, {"get_weather", "code_interpreter"})
    kept = {"model": "m", "tools": [_OTHER, "odd"], "tool_choice": "required", "messages": [{"role": "user"}]}
    assert request == kept


@pytest.mark.parametrize("forgotten", ["get_weather", "skies__get_weather", "skies"])
def test_namespaces_are_looked_into(forgotten: str) -> None:
    inner = [{"type": "function", "name": "get_weather"}, {"type": "function", "name": "get_time"}]
    request = {"tools": [{"type": "namespace", "name": "skies", "tools": inner}, _OTHER]}
    without_tools(request, {forgotten})
    left = [] if forgotten == "skies" else [{"type": "namespace", "name": "skies", "tools": inner[1:]}]
    assert request == {"tools": [*left, _OTHER]}
    alone = {"tools": [{"type": "namespace", "name": "skies", "tools": inner[:1]}]}
    without_tools(alone, {forgotten})
    assert alone == {}


@pytest.mark.parametrize("choice", ["auto", "none", {"type": "auto"}])
def test_the_last_tool_takes_a_free_choice_along(choice: Any) -> None:
    request = {"tools": [_CHAT], "tool_choice": choice}
    without_tools(request, {"get_weather"})
    assert request == {}


@pytest.mark.parametrize("choice", [[], {}, ["auto"], {"type": []}, {"type": {}}, 3, None])
def test_a_choice_that_is_none_is_left_to_be_refused(choice: Any) -> None:
    request = {"tools": [_CHAT], "tool_choice": choice}
    without_tools(request, {"get_weather"})
    assert request == {"tool_choice": choice}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_choice_that_needs_a_tool_is_left_to_be_refused(choice: Any) -> None:
    request = {"tools": [_CHAT], "tool_choice": choice}
    without_tools(request, {"get_weather"})
    assert request == {"tool_choice": choice}


def test_tools_that_are_offered_within_a_conversation_go_too() -> None:
    definition = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": _MESSAGES}}
    reference = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "get_weather"}}
    text = {"type": "text", "text": "get_weather"}
    strange = [{"type": kind, "tool": _MESSAGES} for kind in ([], {}, None, 3)]
    request = {"messages": [{"role": "system", "content": [definition, text, reference, *strange]}, "odd"]}
    without_tools(request, {"get_weather"})
    assert request == {"messages": [{"role": "system", "content": [text, *strange]}, "odd"]}


@pytest.mark.parametrize("name", ["tools", "xml_tools"])
def test_tools_that_are_told_to_the_template_go_too(name: str) -> None:
    request = {"chat_template_kwargs": {name: [_CHAT, _OTHER], "enable_thinking": True}}
    without_tools(request, {"get_weather"})
    assert request == {"chat_template_kwargs": {name: [_OTHER], "enable_thinking": True}}


@pytest.mark.parametrize("odd", [{"tools": None}, {"tools": {}}, {"tools": [{"function": None}, 3]}, {"messages": "x"}])
def test_what_is_no_request_is_left_as_it_is(odd: dict[str, Any]) -> None:
    before = json.dumps(odd)
    without_tools(odd, {"get_weather"})
    assert json.dumps(odd) == before


class _Service:
    """Knows two tenants; for one of them ``get_weather`` is forgotten."""

    def policy_of(self, caller: Caller) -> TenantPolicy:
        if caller.tenant_id == "gone":
            raise KeyError(caller.tenant_id)
        now = datetime.now(UTC)
        spec = TargetSpec(name="the weather", all_tenants=caller.tenant_id == "forgets", tools=("get_weather",))
        tenant = Tenant(caller.tenant_id, 1, TenantSpec(name=caller.tenant_id), now, now)
        return policy.resolve(tenant, [ForgetTarget("tgt_1", 1, spec, now, now)], {}, {})


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends back the body, and the length that was announced."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message.get("more_body", False)
    announced = dict(scope["headers"]).get(b"content-length", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"announced", announced)]})
    await send({"type": "http.response.body", "body": body})


async def _sent(tenant: str, body: bytes, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
    token = CALLER.set(Caller(tenant, None, path))
    try:
        transport = httpx.ASGITransport(ToolMiddleware(_echo, _Service()), **more)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://lethe") as http:
            return await http.post(path, content=body)
    finally:
        CALLER.reset(token)


async def _through(tenant: str, body: bytes, path: str = "/v1/chat/completions", **more: Any) -> bytes:
    response = await _sent(tenant, body, path, **more)
    assert int(response.headers["announced"]) == len(response.content)
    return response.content


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/batch"])
async def test_a_tenants_requests_lose_its_forgotten_tools(path: str) -> None:
    body = json.dumps({"tools": [_CHAT, _OTHER], "text": "snow \u2603"}).encode()
    assert json.loads(await _through("forgets", body, path)) == {"tools": [_OTHER], "text": "snow \u2603"}
    proxied = await _through("forgets", body, "/api/v1/messages", root_path="/api")
    assert json.loads(proxied)["tools"] == [_OTHER]


@pytest.mark.parametrize(
    ("tenant", "path"),
    [("other", "/v1/chat/completions"), ("gone", "/v1/chat/completions"), ("forgets", "/v1/completions")],
)
async def test_other_requests_pass_byte_for_byte(tenant: str, path: str) -> None:
    body = b'{"tools" : [{"name":"get_weather"}] }'
    assert await _through(tenant, body, path) == body


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe"])
async def test_what_is_no_json_object_is_passed_on(body: bytes) -> None:
    assert await _through("forgets", body) == body


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"tools": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"])
async def test_a_body_that_is_too_deep_to_be_read_is_refused(deep: bytes, path: str) -> None:
    response = await _sent("forgets", deep, path)
    assert response.status_code == 400 and response.json()["error"]["message"]
    assert (response.json().get("type") == "error") is path.startswith("/v1/messages")


@pytest.mark.parametrize("levels", [3, *range(300, 600, 20)])
async def test_no_depth_hides_a_tool(levels: int) -> None:
    namespaces = '{"type": "namespace", "name": "n", "tools": [' * levels
    body = f'{{"tools": [{namespaces}{json.dumps(_RESPONSES)}{"]}" * levels}]}}'
    response = await _sent("forgets", body.encode())
    assert response.status_code == 400 or response.json() == {}
    assert response.status_code == 200 or levels > 100


async def test_a_client_that_leaves_while_it_sends_is_not_served() -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def never(*_: Any) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": []}
    token = CALLER.set(Caller("forgets", None, "/v1/messages"))
    try:
        await ToolMiddleware(never, _Service())(scope, receive, never)  # type: ignore[arg-type]
    finally:
        CALLER.reset(token)
