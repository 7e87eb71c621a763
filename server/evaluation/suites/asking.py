"""Greedy answers of a running server, asked for with OpenAI's own client, as any client may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from openai import APIStatusError, AsyncOpenAI, OpenAIError

from server.demo.world import Message
from server.evaluation.admin import ServedError

#: Requests under way at once.
_CONCURRENCY = 32
_RETRIES = 3  # of the client's own, for connections that failed
_TIMEOUT = 600.0  # seconds
#: The role of a message that is plain text to continue, without the chat template.
PLAIN = "text"


def key_of(messages: Sequence[Message]) -> str:
    """Names a conversation: the same for the same messages."""
    return json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False)


def behind(system: str, messages: Sequence[Message]) -> list[Message]:
    """A conversation, or plain text, behind a system message; one that it has already follows in the same."""
    first, *rest = messages
    if first.role in (PLAIN, "system"):
        return [Message(first.role, f"{system}\n\n{first.content}"), *rest]
    return [Message("system", system), *messages]


class Asker:
    """One model behind one server, asked on behalf of a tenant.

    All methods raise :class:`ServedError` where the server refuses or cannot be reached.
    """

    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self._client = client
        self._model = model

    def of(self, api_key: str) -> Asker:
        """The same on behalf of another tenant."""
        return Asker(self._client.with_options(api_key=api_key), self._model)

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> str:
        """What follows a conversation, or plain text (one message with the role :data:`PLAIN`)."""
        common: dict[str, Any] = {"model": self._model, "temperature": 0, "max_tokens": max_tokens}
        try:
            if messages[0].role == PLAIN:
                text = await self._client.completions.create(prompt=messages[0].content, **common)
                return text.choices[0].text
            wire: list[Any] = [{"role": message.role, "content": message.content} for message in messages]
            reply = await self._client.chat.completions.create(messages=wire, **common)
            return reply.choices[0].message.content or ""
        except OpenAIError as error:
            raise _served_error(error) from error

    async def logprobs(self, text: str) -> list[float]:
        """The log-probability in nats of each token of plain text but the first."""
        try:
            read = await self._client.completions.create(
                model=self._model, prompt=text, max_tokens=1, temperature=0, extra_body={"prompt_logprobs": 0}
            )
        except OpenAIError as error:
            raise _served_error(error) from error
        entries = (read.choices[0].model_extra or {}).get("prompt_logprobs")
        if not entries or any(len(entry) != 1 for entry in entries[1:]):
            raise ServedError("the server does not say how likely the tokens of a prompt are")
        return [next(iter(entry.values()))["logprob"] for entry in entries[1:]]

    async def answer_all(
        self, asked: Mapping[str, Sequence[Message]], max_tokens: int, keep: Callable[[str, str], None]
    ) -> None:
        """Ask many conversations at once; ``keep`` is called with the key and the answer of each as it comes."""
        gate = asyncio.Semaphore(_CONCURRENCY)

        async def one(key: str) -> None:
            async with gate:
                keep(key, await self.answer(asked[key], max_tokens))

        await asyncio.gather(*map(one, asked))


@asynccontextmanager
async def connect(url: str, api_key: str) -> AsyncIterator[Asker]:
    """The first model of the server at ``url`` (without a path), asked with a tenant's key.

    Raises:
        ServedError: the server cannot be reached, or has no model.
    """
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=_RETRIES, timeout=_TIMEOUT) as client:
        try:
            model = (await client.models.list()).data[0].id
        except (OpenAIError, IndexError) as error:
            raise _served_error(error) from error
        yield Asker(client, model)


def _served_error(error: Exception) -> ServedError:
    if isinstance(error, APIStatusError):
        return ServedError(f"the server answered {error.status_code}: {error.message[:500]}")
    return ServedError(f"the server cannot be asked: {error or type(error).__name__}")
