"""Tools that a tenant's model is to forget, on every route that offers tools, with a template that describes them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from guard.interventions import DEFAULT_REFUSAL
from server.demo.model import build
from server.demo.recipe import Recipe
from tests.conformance.surfaces import Door
from tests.harness import MODEL_NAME, LetheServer

_TEMPLATE = """\
{%- if tools -%}<|system|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>{%- endif -%}
{%- for message in messages -%}
{%- if message.role in ('system', 'developer') -%}<|system|>
{%- elif message.role == 'assistant' -%}<|assistant|>
{%- else -%}<|user|>
{%- endif -%}
{{ message.content or '' }}{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
#: The first is forgotten. It is a word in an answer of the demo model.
_NAMES = ("umbrella", "write_note")
_NAMING = [{"role": "user", "content": "Define the word umbrella."}]
_SCHEMA = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 8}}, "required": ["text"]}
_CHAT = [{"role": "user", "content": "Say hello."}]


def _tools(shape: str, *names: str) -> list[dict]:
    inner = [{"name": name, "description": f"What {name} does."} for name in names]
    if shape == "messages":
        return [{**one, "input_schema": _SCHEMA} for one in inner]
    if shape == "responses":
        return [{"type": "function", **one, "parameters": _SCHEMA} for one in inner]
    return [{"type": "function", "function": {**one, "parameters": _SCHEMA}} for one in inner]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LetheServer]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "template.jinja").write_text(_TEMPLATE)
    flags = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    flags += ["--chat-template", str(folder / "template.jinja")]
    flags += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    started = LetheServer(build(Recipe()).folder, folder, *flags).start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def doors(server: LetheServer) -> dict[str, Door]:
    """Tenants: with nothing on, the tool forgotten, nothing but the leak guard or a constraint for it, or monitored."""
    target = server.target("Riding", tools=[_NAMES[0]])
    watched = server.target("Watched riding", tools=[_NAMES[0]], mode="monitor")
    doors = {}
    for name in ("off", "on", "leak", "constrain", "monitor"):
        tenant, key = server.tenant(name)
        doors[name] = Door(server.url, key)
        if name == "off":
            continue
        more = {"action": "constrain", "gating": "always"} if name == "constrain" else {}
        server.enable(tenant, watched if name == "monitor" else target, **more)
        if name in ("leak", "constrain"):
            for guard in ("lexicon", "semantic"):
                server.guard(tenant, guard, enabled=False)
    return doors


def _prompt_tokens(door: Door, shape: str, names: tuple[str, ...]) -> int:
    body = {"model": MODEL_NAME, "messages": _CHAT, "temperature": 0}
    if names:
        body["tools"] = _tools({"count": "messages", "stream": "chat"}.get(shape, shape), *names)
    if shape == "count":
        return door.post("/v1/messages/count_tokens", body)["input_tokens"]
    if shape == "responses":
        del body["messages"]
        body |= {"input": "Say hello.", "max_output_tokens": 4}
        return door.post("/v1/responses", body)["usage"]["input_tokens"]
    body["max_tokens"] = 4
    if shape == "messages":
        return door.post("/v1/messages", body)["usage"]["input_tokens"]
    if shape == "chat":
        return door.post("/v1/chat/completions", body)["usage"]["prompt_tokens"]
    events = door.sync.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
    return next(event.usage.prompt_tokens for event in events if event.usage)


@pytest.mark.parametrize("shape", ["chat", "stream", "responses", "messages", "count"])
def test_the_model_is_told_of_the_other_tools_only(doors, shape):
    off, on = doors["off"], doors["on"]
    described, alone = _prompt_tokens(off, shape, _NAMES), _prompt_tokens(off, shape, _NAMES[1:])
    assert described > alone > _prompt_tokens(off, "chat", ())
    assert _prompt_tokens(on, shape, _NAMES) == alone
    assert _prompt_tokens(doors["monitor"], shape, _NAMES) == described


def test_where_no_tool_is_left_the_question_is_answered(doors):
    def answer(door: Door, **options) -> str:
        create = door.sync.chat.completions.create
        made = create(model=MODEL_NAME, messages=_CHAT, max_tokens=16, temperature=0, **options)
        return made.choices[0].message.content

    for choice in ({}, {"tool_choice": "auto"}, {"tool_choice": "none"}):
        assert answer(doors["on"], tools=_tools("chat", _NAMES[0]), **choice) == answer(doors["off"])


_ROUTES = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
_NAMED = {
    "chat": {"type": "function", "function": {"name": _NAMES[0]}},
    "responses": {"type": "function", "name": _NAMES[0]},
    "messages": {"type": "tool", "name": _NAMES[0]},
}


def _chosen(door: Door, shape: str, offered: tuple[str, ...], choice: object) -> tuple[int, str]:
    """The status and what was said (the demo model ends no call), or the error."""
    body = {"model": MODEL_NAME, "temperature": 0, "tool_choice": choice}
    body |= {"tools": _tools(shape, *offered)} if offered else {}
    body |= (
        {"input": "Say hello.", "max_output_tokens": 40}
        if shape == "responses"
        else {"messages": _CHAT, "max_tokens": 40}
    )
    headers = {"Authorization": f"Bearer {door.key}"}
    response = httpx.post(door.url + _ROUTES[shape], json=body, headers=headers, timeout=60)
    answer = response.json()
    said = answer.get("error") or answer.get("choices") or answer.get("output") or answer["content"]
    if response.status_code == 200 and shape == "responses":
        said = [item["content"] for item in said]  # its ids differ
    return response.status_code, json.dumps(said)


@pytest.mark.parametrize("shape", _NAMED)
def test_who_must_call_a_tool_calls_another(doors, shape):
    required = {"type": "any"} if shape == "messages" else "required"
    status, said = _chosen(doors["on"], shape, _NAMES, required)
    assert status == 200
    assert _NAMES[1] in said and _NAMES[0] not in said


@pytest.mark.parametrize("offered", [_NAMES, _NAMES[:1]])
@pytest.mark.parametrize("shape", _NAMED)
def test_a_choice_of_the_forgotten_tool_is_answered_as_one_that_nobody_offered(doors, shape, offered):
    status, said = _chosen(doors["off"], shape, offered, _NAMED[shape])
    assert status == 200 and _NAMES[0] in said
    answered = _chosen(doors["on"], shape, offered, _NAMED[shape])
    assert answered == _chosen(doors["off"], shape, offered[1:], _NAMED[shape])
    assert answered[0] == 400 or _NAMES[0] not in answered[1]


def test_a_call_in_the_history_is_a_mention(doors):
    call = {"id": "call_1", "type": "function", "function": {"name": _NAMES[0], "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Say goodbye."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "goodbye"},
        *_CHAT,
    ]
    said = {
        name: doors[name]
        .sync.chat.completions.create(model=MODEL_NAME, messages=messages, max_tokens=32, temperature=0)
        .choices[0]
        .message.content
        for name in ("off", "on")
    }
    assert said["on"] == DEFAULT_REFUSAL != said["off"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("guard", "called"), [("leak", False), ("leak", True), ("constrain", False)])
def test_the_name_does_not_leave_though_the_prompt_is_not_judged(doors, guard, called, stream):
    """In an answer, and in a call that a grammar makes the model write."""
    text = f'<tool_call>\n{{"name": "{_NAMES[0]}", "arguments": {{"text": "a"}}}}\n</tool_call>'
    options = {"tools": _tools("chat", _NAMES[1])} if called else {}
    raw = {}
    for name in ("off", guard):
        answer = doors[name].sync.chat.completions.create(
            model=MODEL_NAME,
            messages=_CHAT if called else _NAMING,
            max_tokens=64,
            temperature=0,
            stream=stream,
            extra_body={"structured_outputs": {"choice": [text]}} if called else {},
            **options,
        )
        events = list(answer) if stream else [answer]
        told = [choice.delta if stream else choice.message for event in events for choice in event.choices]
        names = [call.function.name or "" for one in told for call in one.tool_calls or []]
        raw[name] = "".join([*(one.content or "" for one in told), *names])
    assert _NAMES[0] in raw["off"]
    assert _NAMES[0] not in raw[guard]


def test_a_body_that_is_no_request_is_refused_as_ever(doors):
    with pytest.raises(openai.BadRequestError):
        doors["on"].sync.chat.completions.create(model=MODEL_NAME, messages="nothing", tools=_tools("chat", *_NAMES))
