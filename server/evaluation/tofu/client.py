"""Asking a running server as any client may: for a greedy answer, and for the probability of a given one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from server.evaluation.admin import ServedError
from server.evaluation.tofu.rows import Ask

#: As many tokens as TOFU's own evaluation lets question and answer have.
MAX_TOKENS = 200
#: Requests under way at once, unless it is said otherwise.
CONCURRENCY = 32
#: Seconds to wait before another try when the connection failed; an answer that is an error is not asked for again.
_PAUSES = (0.5, 2.0, 8.0)
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)


class Served:
    """One model behind one server.

    Args:
        http: a client whose base URL is the server's.
        model: the name under which the server has the model.
        end: the text of the token that ends an answer. It is scored with the answer, as in TOFU.
        concurrency: how many requests are under way at once.
        system: a message ahead of every question; empty for none.
    """

    def __init__(
        self, http: httpx.AsyncClient, model: str, end: str, concurrency: int = CONCURRENCY, *, system: str = ""
    ) -> None:
        self._ahead = [{"role": "system", "content": system}] if system else []
        self._http = http
        self._model = model
        self._end = end
        self._concurrency = concurrency
        self._starts: dict[str, asyncio.Future[dict[str, Any]]] = {}

    def behind(self, system: str) -> Served:
        """The same, asked behind a system message; itself where that is empty, with what it has asked for already."""
        return Served(self._http, self._model, self._end, self._concurrency, system=system) if system else self

    async def measure(self, api_key: str, asks: Sequence[Ask], keep: Callable[[Ask, str | float], None]) -> None:
        """Ask everything on behalf of one tenant, many requests at a time.

        Args:
            api_key: the tenant's.
            asks: what to ask.
            keep: called with every result as it comes: the text, or the mean negative log-probability per token.

        Raises:
            ServedError: a request was refused or cannot be measured.
            httpx.TransportError: the server cannot be reached.
        """
        gate = asyncio.Semaphore(self._concurrency)

        async def one(ask: Ask) -> None:
            question, answer = ask
            async with gate:
                if answer is None:
                    keep(ask, await self.answer(api_key, question))
                else:
                    keep(ask, await self.score(api_key, question, answer))

        await asyncio.gather(*map(one, asks))

    async def answer(self, api_key: str, question: str) -> str:
        """The greedy answer to a question."""
        body = await self._chat(api_key, self._asked(question), max_tokens=MAX_TOKENS)
        return body["choices"][0]["message"]["content"] or ""

    async def extra_seconds(
        self, api_key: str, other: str, questions: Sequence[str], *, system: str = ""
    ) -> list[float]:
        """How much longer each answer takes one tenant, behind a system message, than another: one at a time, in turn.

        Raises:
            ServedError: a request was refused.
            httpx.TransportError: the server cannot be reached.
        """
        taken: dict[str, list[float]] = {api_key: [], other: []}
        asked = {api_key: self.behind(system), other: self}
        for number, question in enumerate(questions):
            for key in (api_key, other) if number % 2 else (other, api_key):
                began = time.perf_counter()
                await asked[key].answer(key, question)
                taken[key].append(time.perf_counter() - began)
        return [own - others for own, others in zip(taken[api_key], taken[other], strict=True)]

    async def score(self, api_key: str, question: str, answer: str) -> float:
        """Mean negative log-probability per token, in nats, of an answer and its end, given the question."""
        messages = [*self._asked(question), {"role": "assistant", "content": answer + self._end}]
        body = await self._chat(
            api_key, messages, add_generation_prompt=False, continue_final_message=True, prompt_logprobs=0
        )
        token_ids, logprobs = body["prompt_token_ids"], body["prompt_logprobs"]
        start = await self._start(api_key, question)
        if token_ids[: len(start)] != start or len(logprobs) != len(token_ids):
            raise ServedError(f"where the answer begins cannot be told, since the tokens run together: {question!r}")
        chosen = [
            entry[str(token)] for entry, token in zip(logprobs[len(start) :], token_ids[len(start) :], strict=True)
        ]
        if not chosen or chosen[-1]["decoded_token"] != self._end:
            raise ServedError(f"the server does not read {self._end!r} as the end of an answer")
        return -sum(entry["logprob"] for entry in chosen) / len(chosen)

    async def _start(self, api_key: str, question: str) -> list[int]:
        """The tokens ahead of an answer to the question: asked for once, as they are the same for all tenants."""
        if question not in self._starts:
            self._starts[question] = asyncio.ensure_future(self._chat(api_key, self._asked(question)))
        token_ids: list[int] = (await self._starts[question])["prompt_token_ids"]
        return token_ids

    def _asked(self, question: str) -> list[dict[str, str]]:
        return [*self._ahead, {"role": "user", "content": question}]

    async def _chat(self, api_key: str, messages: list[dict[str, str]], **options: Any) -> dict[str, Any]:
        common = {"model": self._model, "temperature": 0, "max_tokens": 1, "return_token_ids": True}
        response = await self._post(api_key, {**common, "messages": messages, **options})
        if response.is_error:
            raise ServedError(f"the server answered {response.status_code}: {response.text[:500]}")
        body: dict[str, Any] = response.json()
        return body

    async def _post(self, api_key: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {api_key}"}
        for pause in _PAUSES:
            try:
                return await self._http.post("/v1/chat/completions", json=body, headers=headers)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                await asyncio.sleep(pause)
        return await self._http.post("/v1/chat/completions", json=body, headers=headers)


@asynccontextmanager
async def connect(url: str, api_key: str, end: str, concurrency: int = CONCURRENCY) -> AsyncIterator[Served]:
    """The only model of the server at ``url``, looked up with any tenant's key; see :class:`Served`."""
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT) as http:
        response = await http.get("/v1/models", headers={"Authorization": f"Bearer {api_key}"})
        response.raise_for_status()
        yield Served(http, response.json()["data"][0]["id"], end, concurrency)
