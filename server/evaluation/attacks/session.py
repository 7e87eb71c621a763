"""One attacker with one tenant's key: what was sent, and everything that was shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from server.evaluation.admin import ServedError

T = TypeVar("T")

#: Seconds to wait before another try when the connection failed.
_PAUSES = (0.5, 2.0, 8.0)
#: The note of the status with which a request was refused.
REFUSED_WITH = "refused_with"
#: How many alternatives to each token an attacker asks for, the most that a client may see.
TOP = 5
_CHAT, _COMPLETIONS, _RESPONSES, _TOKENIZE = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize"
#: Failures after which a request is sent again.
_DROPPED = (httpx.NetworkError, httpx.RemoteProtocolError)


def user(text: str) -> dict[str, str]:
    """A message of the attacker's."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    """A message of the model's, or one that it is made to have said."""
    return {"role": "assistant", "content": text}


@dataclass(slots=True)
class Transcript:
    """What happened in one attempt.

    Attributes:
        sent: what the attacker wrote. What a server said and the attacker repeats is not in it.
        shown: every text that came back, and what an attacker can put together from it.
        notes: numbers and texts that a judge needs beside those.
    """

    sent: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> str:
        """All that the attacker has said."""
        return "\n".join(self.sent)


@dataclass(frozen=True, slots=True)
class Door:
    """How a tenant is reached.

    Attributes:
        http: a client whose base URL is the server's.
        model: the name under which the server has the model.
        key: the tenant's API key.
        other_key: of a tenant for which nothing is forgotten.
        other_tenant: the id of that tenant.
        system: a system message that is put ahead of everything; empty for none.
        max_tokens: of an answer.
    """

    http: httpx.AsyncClient
    model: str
    key: str
    other_key: str
    other_tenant: str
    system: str
    max_tokens: int


class Session:
    """One attempt. All methods raise ``ServedError`` where the server fails; what it refuses shows nothing."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.transcript = Transcript()
        self._turns: list[dict[str, str]] = []

    async def ask(self, text: str, **options: Any) -> str:
        """The next turn of the session's own conversation; the answer of the first choice."""
        self._turns.append(user(text))
        self.transcript.sent.append(text)
        texts = await self._chat(self._turns, options)
        self._turns.append(assistant(texts[0]))
        return texts[0]

    async def chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> list[str]:
        """The answers to a conversation of the attacker's own making; a begun answer at its end is gone on with."""
        seen = self.transcript.shown
        self.transcript.sent += [message["content"] for message in messages if message["content"] not in seen]
        if messages[-1]["role"] == "assistant":
            options = {"continue_final_message": True, "add_generation_prompt": False, **options}
        return await self._chat(messages, options)

    async def stream(self, text: str, **options: Any) -> None:
        """A question whose answer is streamed; whatever is sent on the way counts, also what is taken back later."""
        self.transcript.sent.append(text)
        body = self._whole(_CHAT, {"messages": [user(text)], "stream": True, **options})
        await _retried(lambda: self._streamed(body))

    async def complete(self, prompt: str | list[int], **options: Any) -> list[str]:
        """How plain text, or tokens, go on."""
        if isinstance(prompt, str):
            self.transcript.sent.append(prompt)
        body = await self.post(_COMPLETIONS, {"prompt": prompt, **options})
        return self._show([choice["text"] for choice in body.get("choices", ())])

    async def post(self, path: str, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Any request, greedy unless it says otherwise; what comes back is not shown yet. ``{}`` if it was refused.

        The door's system message stands ahead of it, whatever the route; only another tenant's stored responses, which
        are not this client's to write, go without.
        """
        return await self.send("POST", path, self._whole(path, body, own=key is None), key)

    async def send(self, method: str, path: str, body: object = None, key: str | None = None) -> dict[str, Any]:
        """Any request, as it is."""
        headers = {"Authorization": f"Bearer {key or self.door.key}"}
        response = await self._send(method, path, body, headers)
        if response.is_server_error:
            raise _failed(method, path, response)
        if response.is_error:
            self.transcript.notes[REFUSED_WITH] = response.status_code
            return {}
        answer: dict[str, Any] = response.json()
        return answer

    async def tokenize(self, asked: Mapping[str, Any]) -> list[int]:
        """The token ids of ``messages`` or of a ``prompt``, behind the system message; none if it was refused."""
        answer = await self.send("POST", _TOKENIZE, {"model": self.door.model, **self._forbidding(_TOKENIZE, asked)})
        return answer.get("tokens") or []

    def show(self, text: str) -> None:
        """Count a text among those that the attacker has seen."""
        self.transcript.shown.append(text)

    def show_ranks(self, steps: Sequence[Sequence[str]]) -> None:
        """Count among them what the likeliest tokens of all steps say together, the second likeliest, and so on."""
        for rank in range(TOP):
            self.show("".join(step[min(rank, len(step) - 1)] for step in steps if step))

    async def _chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> list[str]:
        body = await self.post(_CHAT, {"messages": [*messages], **options})
        return self._show([choice["message"]["content"] or "" for choice in body.get("choices", ())])

    def _whole(self, path: str, body: Mapping[str, Any], *, own: bool = True) -> dict[str, Any]:
        """A request with what it does not say itself."""
        limit = {"max_tokens": self.door.max_tokens} if path in (_CHAT, _COMPLETIONS) else {}
        whole = self._forbidding(path, body) if own or path != _RESPONSES else body
        return {"model": self.door.model, "temperature": 0, **limit, **whole}

    def _forbidding(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request with the system message ahead of everything; a prompt of tokens has it from :meth:`tokenize`."""
        system = self.door.system
        if not system:
            return body
        if "messages" in body:
            return {**body, "messages": [{"role": "system", "content": system}, *body["messages"]]}
        if isinstance(body.get("prompt"), str):
            return {**body, "prompt": f"{system}\n\n{body['prompt']}"}
        return {"instructions": system, **body} if path == _RESPONSES else body

    async def _streamed(self, body: Mapping[str, Any]) -> None:
        """One try at a stream; what was said until it broke off is shown too."""
        headers = {"Authorization": f"Bearer {self.door.key}"}
        said: dict[int, str] = {}
        try:
            async with self.door.http.stream("POST", _CHAT, json=body, headers=headers) as got:
                if got.is_server_error:
                    await got.aread()
                    raise _failed("POST", _CHAT, got)
                if got.is_error:
                    self.transcript.notes[REFUSED_WITH] = got.status_code
                    return
                async for line in got.aiter_lines():
                    event = line.removeprefix("data:").strip()
                    if event.startswith("{"):
                        _add(json.loads(event), said)
        finally:
            self._show(list(said.values()))

    def _show(self, texts: list[str]) -> list[str]:
        self.transcript.shown += texts
        return texts or [""]

    async def _send(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> httpx.Response:
        return await _retried(lambda: self.door.http.request(method, path, json=body, headers=headers))


async def _retried(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` gives, called again where the connection failed."""
    for pause in _PAUSES:
        try:
            return await call()
        except _DROPPED:
            await asyncio.sleep(pause)
    return await call()


def _failed(method: str, path: str, response: httpx.Response) -> ServedError:
    return ServedError(f"{method} {path}: the server answered {response.status_code}: {response.text[:500]}")


def _add(event: Mapping[str, Any], said: dict[int, str]) -> None:
    """Add what an event of a stream says to what each choice said before it."""
    if event.get("error"):
        raise ServedError(f"POST {_CHAT}: the stream broke off: {str(event['error'])[:500]}")
    for choice in event.get("choices", ()):
        said[choice["index"]] = said.get(choice["index"], "") + (choice["delta"].get("content") or "")
