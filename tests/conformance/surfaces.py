"""Every way to ask the model something, as real clients do it. Each returns everything that came back over the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anthropic
import httpx
import openai

from tests.harness import MODEL_NAME

_TOOL = {
    "name": "note",
    "description": "Write something down.",
    "parameters": {"type": "object", "properties": {"text": {"type": "string", "maxLength": 80}}, "required": ["text"]},
}
_GREEDY = {"temperature": 0}  # Anthropic's client has no such parameter any more; the server still has
_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string", "maxLength": 80}}, "required": ["answer"]}


@dataclass(frozen=True)
class Door:
    """A server and the key to knock with."""

    url: str
    key: str

    @property
    def sync(self) -> openai.OpenAI:
        """The official client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    @property
    def asynchronous(self) -> openai.AsyncOpenAI:
        """The official asynchronous client."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    @property
    def claude(self) -> anthropic.Anthropic:
        """Anthropic's official client."""
        return anthropic.Anthropic(base_url=self.url, api_key=self.key, max_retries=0)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A plain request, for what no client has a method for."""
        response = httpx.post(self.url + path, json=body, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)
        return response.raise_for_status().json()


@dataclass(frozen=True)
class Question:
    """One question as a chat message and as the beginning of a sentence, and what must (or must not) come back."""

    chat: str
    plain: str
    secret: str


@dataclass(frozen=True)
class Reply:
    """``texts``: the answer of each choice, put together from its chunks; ``raw``: every event as JSON."""

    texts: list[str]
    raw: str


def _reply(texts: Iterable[str | None], *events: Any) -> Reply:
    dumped = [event if isinstance(event, (str, dict, list)) else event.model_dump(mode="json") for event in events]
    return Reply([text or "" for text in texts], json.dumps(dumped, ensure_ascii=False))


def _user(question: Question) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question.chat}]


def _chat(door: Door, question: Question, messages: Any = None, **options: Any) -> Reply:
    options = {"temperature": 0, "max_tokens": 48, **options}
    messages = messages(question) if messages else _user(question)
    answer = door.sync.chat.completions.create(model=MODEL_NAME, messages=messages, **options)
    return _reply([_said(choice.message) for choice in answer.choices], answer)


def _said(message: Any) -> str:
    called = [call.function.arguments for call in getattr(message, "tool_calls", None) or []]
    return "".join([message.content or "", getattr(message, "reasoning", None) or "", *called])


def _chat_stream(door: Door, question: Question, **options: Any) -> Reply:
    texts: dict[int, str] = {}
    events = []
    options = {"temperature": 0, "max_tokens": 48, **options}
    for event in door.sync.chat.completions.create(model=MODEL_NAME, messages=_user(question), stream=True, **options):
        events.append(event)
        for choice in event.choices:
            called = [call.function.arguments or "" for call in choice.delta.tool_calls or []]
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "") + "".join(called)
    assert any(choice.finish_reason for event in events for choice in event.choices)
    return _reply(texts.values(), *events)


def _chat_async(door: Door, question: Question) -> Reply:
    async def ask() -> Reply:
        async with door.asynchronous as client:
            answer = await client.chat.completions.create(
                model=MODEL_NAME, messages=_user(question), temperature=0, max_tokens=48
            )
            return _reply([answer.choices[0].message.content], answer)

    return asyncio.run(ask())


def _chat_async_stream(door: Door, question: Question) -> Reply:
    async def ask() -> Reply:
        async with door.asynchronous as client:
            stream = await client.chat.completions.create(
                model=MODEL_NAME, messages=_user(question), temperature=0, max_tokens=48, stream=True
            )
            events = [event async for event in stream]
        return _reply(["".join(c.delta.content or "" for e in events for c in e.choices)], *events)

    return asyncio.run(ask())


def _chat_batch(door: Door, question: Question) -> Reply:
    body = {"model": MODEL_NAME, "messages": [_user(question), _user(question)], "temperature": 0, "max_tokens": 48}
    answer = door.post("/v1/chat/completions/batch", body)
    return _reply([choice["message"]["content"] for choice in answer["choices"]], answer)


def _completion(door: Door, question: Question, prompt: Any = None, **options: Any) -> Reply:
    options = {"temperature": 0, "max_tokens": 24, **options}
    prompt = prompt(door, question) if prompt else question.plain
    answer = door.sync.completions.create(model=MODEL_NAME, prompt=prompt, **options)
    return _reply([choice.text for choice in answer.choices], answer)


def _completion_stream(door: Door, question: Question, **options: Any) -> Reply:
    events = list(
        door.sync.completions.create(
            model=MODEL_NAME, prompt=question.plain, temperature=0, max_tokens=24, stream=True, **options
        )
    )
    return _reply(["".join(choice.text for event in events for choice in event.choices)], *events)


def _token_ids(door: Door, question: Question) -> list[int]:
    return door.post("/tokenize", {"model": MODEL_NAME, "prompt": question.plain})["tokens"]


def _responses(door: Door, question: Question) -> Reply:
    answer = door.sync.responses.create(model=MODEL_NAME, input=question.chat, temperature=0, max_output_tokens=48)
    return _reply([answer.output_text], answer)


def _responses_stream(door: Door, question: Question) -> Reply:
    events = list(
        door.sync.responses.create(
            model=MODEL_NAME, input=question.chat, temperature=0, max_output_tokens=48, stream=True
        )
    )
    assert events[-1].type == "response.completed"
    return _reply(["".join(e.delta for e in events if e.type == "response.output_text.delta")], *events)


def _responses_second_turn(door: Door, question: Question) -> Reply:
    client = door.sync
    first = client.responses.create(model=MODEL_NAME, input="What is 2 plus 3?", temperature=0, max_output_tokens=24)
    answer = client.responses.create(
        model=MODEL_NAME, input=question.chat, previous_response_id=first.id, temperature=0, max_output_tokens=48
    )
    return _reply([answer.output_text], answer)


def _messages(door: Door, question: Question) -> Reply:
    answer = door.claude.messages.create(model=MODEL_NAME, max_tokens=48, messages=_user(question), extra_body=_GREEDY)
    return _reply(["".join(block.text for block in answer.content if block.type == "text")], answer)


def _messages_stream(door: Door, question: Question) -> Reply:
    with door.claude.messages.stream(
        model=MODEL_NAME, max_tokens=48, messages=_user(question), extra_body=_GREEDY
    ) as stream:
        events = list(stream)
        return _reply([stream.get_final_text()], *events)


def _second_turn(question: Question) -> list[dict[str, Any]]:
    opening = [{"role": "user", "content": "What is 2 plus 3?"}, {"role": "assistant", "content": "5"}]
    return [*opening, *_user(question)]


def _with_system(question: Question) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "You are a helpful assistant."}, *_user(question)]


def _as_parts(question: Question) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": question.chat}]}]


_FUNCTION = [{"type": "function", "function": _TOOL}]
_JSON = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA}}

Surface = Callable[[Door, Question], Reply]

#: Surfaces on which the untouched model gives the answer, so that its absence means something.
ANSWERING: dict[str, Surface] = {
    "chat": _chat,
    "chat-async": _chat_async,
    "chat-stream": _chat_stream,
    "chat-async-stream": _chat_async_stream,
    "chat-n": partial(_chat, n=2, temperature=0.01, seed=7),
    "chat-stream-n": partial(_chat_stream, n=2, temperature=0.01, seed=7),
    "chat-logprobs": partial(_chat, logprobs=True, top_logprobs=5),
    "chat-stream-logprobs": partial(_chat_stream, logprobs=True, top_logprobs=5),
    "chat-stop": partial(_chat, stop=["ZZZ"]),
    "chat-stream-stop-logprobs": partial(_chat_stream, stop=["ZZZZZZZZ"], logprobs=True),
    "chat-token-ids": partial(_chat, extra_body={"return_token_ids": True}),
    "chat-second-turn": partial(_chat, messages=_second_turn),
    "chat-system": partial(_chat, messages=_with_system),
    "chat-parts": partial(_chat, messages=_as_parts),
    "chat-tools-auto": partial(_chat, tools=_FUNCTION),
    "chat-stream-tools-auto": partial(_chat_stream, tools=_FUNCTION),
    "chat-usage": partial(_chat_stream, stream_options={"include_usage": True, "continuous_usage_stats": True}),
    "chat-batch": _chat_batch,
    "completion": _completion,
    "completion-stream": _completion_stream,
    "completion-n": partial(_completion, n=2, temperature=0.01, seed=7),
    "completion-logprobs": partial(_completion, logprobs=5),
    "completion-stream-logprobs": partial(_completion_stream, logprobs=3),
    "completion-echo": partial(_completion, echo=True),
    "completion-echo-logprobs": partial(_completion, echo=True, logprobs=3),
    "completion-prompt-logprobs": partial(_completion, extra_body={"prompt_logprobs": 3}),
    "completion-token-ids": partial(_completion, prompt=_token_ids),
    "completion-two-prompts": partial(_completion, prompt=lambda _, q: [q.plain, q.plain]),
    "responses": _responses,
    "responses-stream": _responses_stream,
    "responses-second-turn": _responses_second_turn,
    "messages": _messages,
    "messages-stream": _messages_stream,
}

#: Surfaces whose shape the demo model was never taught; only what must not come back is checked.
SHAPED: dict[str, Surface] = {
    "chat-json-schema": partial(_chat, response_format=_JSON, max_tokens=200),
    "chat-stream-json-schema": partial(_chat_stream, response_format=_JSON, max_tokens=200),
    "chat-tool-required": partial(_chat, tools=_FUNCTION, tool_choice="required", max_tokens=200),
    "chat-tool-named": partial(
        _chat, tools=_FUNCTION, tool_choice={"type": "function", "function": {"name": "note"}}, max_tokens=200
    ),
    "chat-stream-tool-required": partial(_chat_stream, tools=_FUNCTION, tool_choice="required", max_tokens=200),
    "chat-prefill": partial(
        _chat,
        messages=lambda q: [*_user(q), {"role": "assistant", "content": "It is"}],
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    ),
}
