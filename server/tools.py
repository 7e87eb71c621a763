"""Tools that are to be forgotten: taken out of requests before vLLM renders them, as if nobody had offered them.

What is left of a request is answered by vLLM as ever, also where it is an error: a ``tool_choice`` that names a
forgotten function gets what it would get for one that was not in ``tools``. The names themselves are phrases that are
found in prompts and kept out of outputs like any name (:mod:`guard.detection`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guard.caller import CALLER
from guard.service import GuardService
from guard.types import Mode, TenantPolicy
from server.auth import route_path
from server.errors import anthropic_error_response, error_response

#: Routes whose requests may offer tools.
_OFFERING = frozenset(
    {
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/tokenize",
    }
)
#: Blocks of Anthropic's messages that offer a tool, or take it back, in the middle of a conversation.
_CHANGES = frozenset({"tool_addition", "tool_removal"})
#: Choices that need no tool.
_FREE = frozenset({"auto", "none"})


class ToolMiddleware:
    """Rewrites the requests of tenants for which tools are to be forgotten; no others are read.

    Args:
        app: what is behind it; :data:`guard.caller.CALLER` must be set before.
        service: knows the tenants' policies.
    """

    def __init__(self, app: ASGIApp, service: GuardService) -> None:
        self._app = app
        self._service = service
        self._known: dict[str, tuple[TenantPolicy, frozenset[str]]] = {}  # by tenant id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        offering = scope["type"] == "http" and scope["method"] == "POST" and route_path(scope) in _OFFERING
        forgotten = self._forgotten() if offering else frozenset()
        if not forgotten:
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:  # the client is gone
            return
        try:
            rewritten = _rewritten(body, forgotten)
        except RecursionError:  # whether vLLM would read it depends on how deep its own stack is by then
            await _unreadable(route_path(scope))(scope, receive, send)
            return
        headers = MutableHeaders(raw=list(scope["headers"]))
        if "content-length" in headers:
            headers["content-length"] = str(len(rewritten))
        await self._app({**scope, "headers": headers.raw}, _replaying(rewritten, receive), send)

    def _forgotten(self) -> frozenset[str]:
        try:
            policy = self._service.policy_of(CALLER.get())
        except LookupError:  # the tenant was deleted meanwhile, which the engine says
            return frozenset()
        known = self._known.get(policy.tenant.id)
        if known is None or known[0] is not policy:
            known = self._known[policy.tenant.id] = (policy, forgotten_tools(policy))
        return known[1]


def forgotten_tools(policy: TenantPolicy) -> frozenset[str]:
    """The functions that a tenant's model must not be offered."""
    enforced = (one.target.spec for one in policy.targets.values() if one.mode is Mode.ENFORCE)
    return frozenset(tool for spec in enforced for tool in spec.tools)


def without_tools(request: dict[str, Any], forgotten: Collection[str]) -> None:
    """Take tools out of a request, in place.

    Args:
        request: in the shape of OpenAI's chat completions or responses, or of Anthropic's messages.
        forgotten: names of functions; letter case does not matter.
    """
    names = {name.casefold() for name in forgotten}
    if isinstance(offered := request.get("tools"), list):
        request["tools"] = _kept(offered, names)
        if offered and not request["tools"]:
            del request["tools"]
            choice = request.get("tool_choice")
            if _is_among(choice.get("type") if isinstance(choice, dict) else choice, _FREE):
                del request["tool_choice"]
    template = request.get("chat_template_kwargs")  # goes before what vLLM tells the template, by whatever names
    if isinstance(template, dict):
        request["chat_template_kwargs"] = {
            name: _kept(value, names) if isinstance(value, list) else value for name, value in template.items()
        }
    for message in _dicts(request.get("messages")):
        if isinstance(content := message.get("content"), list):
            message["content"] = [block for block in content if not _changes(block, names)]


def _kept(offered: Iterable[Any], names: Collection[str], namespace: str = "") -> list[Any]:
    """The tools that are not forgotten, also within namespaces; one that holds nothing any more goes too."""
    kept = []
    for tool in offered:
        if isinstance(tool, dict):
            name = _name(tool)
            if name.casefold() in names or f"{namespace}__{name}".casefold() in names:
                continue
            if tool.get("type") == "namespace" and isinstance(inner := tool.get("tools"), list):
                tool = {**tool, "tools": _kept(inner, names, name)}
                if not tool["tools"]:
                    continue
        kept.append(tool)
    return kept


def _name(tool: dict[str, Any]) -> str:
    """By what a tool goes: its own name, its function's, or, where the server brings it along, its type."""
    function = tool.get("function")
    named = function if isinstance(function, dict) else tool
    return str(named.get("name") or named.get("type") or "")


def _changes(block: Any, names: Collection[str]) -> bool:
    """Whether a block offers or takes back a forgotten tool."""
    if not isinstance(block, dict) or not _is_among(block.get("type"), _CHANGES):
        return False
    if not isinstance(block.get("tool"), dict):
        return False
    tool = block["tool"]
    definition = tool.get("definition")
    return _name(definition if isinstance(definition, dict) else tool).casefold() in names


def _is_among(value: Any, names: Collection[str]) -> bool:
    """Whether a value that a client sent, which need not be a string nor hashable, is one of these."""
    return isinstance(value, str) and value in names


def _dicts(value: Any) -> Iterable[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _rewritten(body: bytes, forgotten: Collection[str]) -> bytes:
    try:
        request = json.loads(body)
    except ValueError:
        return body  # which vLLM refuses
    if not isinstance(request, dict):
        return body
    without_tools(request, forgotten)
    return json.dumps(request).encode()


def _unreadable(path: str) -> JSONResponse:
    """What FastAPI says of a body that is too deep for it, in the shape of the route."""
    message = "There was an error parsing the body"
    if path.startswith("/v1/messages"):
        return anthropic_error_response(400, message)
    return error_response(400, message, code="invalid_value")


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None where the client left before its end."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _replaying(body: bytes, receive: Receive) -> Receive:
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
