"""One question on each route of the server, with the official client of that route."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
from openai import OpenAI

from server.demo.world import Prompt

try:
    from anthropic import Anthropic
except ImportError:  # a development dependency
    Anthropic = None  # type: ignore[assignment, misc]

Surface = Callable[[str, str, str, Prompt, bool], str]
"""Asks a prompt: base URL, API key, model name, prompt, whether to stream; returns the text of the answer."""

_MAX_TOKENS = 64


def chat(base_url: str, key: str, model: str, prompt: Prompt, stream: bool) -> str:
    """``/v1/chat/completions``."""
    create = _openai(base_url, key).chat.completions.create
    if not stream:
        reply = create(model=model, messages=_messages(prompt), temperature=0, max_tokens=_MAX_TOKENS)
        return reply.choices[0].message.content or ""
    chunks = create(model=model, messages=_messages(prompt), temperature=0, max_tokens=_MAX_TOKENS, stream=True)
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def completions(base_url: str, key: str, model: str, prompt: Prompt, stream: bool) -> str:
    """``/v1/completions``; the prompt is plain text."""
    create = _openai(base_url, key).completions.create
    text = prompt.messages[0].content
    if not stream:
        return create(model=model, prompt=text, temperature=0, max_tokens=_MAX_TOKENS).choices[0].text
    chunks = create(model=model, prompt=text, temperature=0, max_tokens=_MAX_TOKENS, stream=True)
    return "".join(choice.text for chunk in chunks for choice in chunk.choices)


def responses(base_url: str, key: str, model: str, prompt: Prompt, stream: bool) -> str:
    """``/v1/responses``."""
    create = _openai(base_url, key).responses.create
    common: dict[str, Any] = {"model": model, "input": _messages(prompt), "temperature": 0, "store": False}
    if not stream:
        return create(**common, max_output_tokens=_MAX_TOKENS).output_text
    events = create(**common, max_output_tokens=_MAX_TOKENS, stream=True)
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def messages(base_url: str, key: str, model: str, prompt: Prompt, stream: bool) -> str:
    """``/v1/messages``, the Anthropic API; with plain HTTP where its client is not installed."""
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(prompt),
        "max_tokens": _MAX_TOKENS,
        "temperature": 0,
        "stream": stream,
    }
    if Anthropic is None:
        return _messages_by_http(base_url, key, body)
    # The client has no ``temperature`` any more; the server has.
    body["extra_body"] = {"temperature": body.pop("temperature")}
    create = _anthropic(base_url, key).messages.create
    if not stream:
        return "".join(block.text for block in create(**body).content if block.type == "text")
    deltas = (event.delta for event in create(**body) if event.type == "content_block_delta")
    return "".join(delta.text for delta in deltas if delta.type == "text_delta")


SURFACES: tuple[Surface, ...] = (chat, completions, responses, messages)


def _messages(prompt: Prompt) -> list[Any]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


@cache
def _openai(base_url: str, key: str) -> OpenAI:
    return OpenAI(base_url=f"{base_url}/v1", api_key=key)


@cache
def _anthropic(base_url: str, key: str) -> Any:
    return Anthropic(base_url=base_url, api_key=key)


def _messages_by_http(base_url: str, key: str, body: dict[str, Any]) -> str:
    response = httpx.post(
        f"{base_url}/v1/messages", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60.0
    )
    response.raise_for_status()
    if not body["stream"]:
        return "".join(block["text"] for block in response.json()["content"] if block["type"] == "text")
    lines = (line.removeprefix("data:").strip() for line in response.text.splitlines() if line.startswith("data:"))
    events = (json.loads(line) for line in lines if line.startswith("{"))
    deltas = (event["delta"] for event in events if event["type"] == "content_block_delta")
    return "".join(delta["text"] for delta in deltas if delta["type"] == "text_delta")
