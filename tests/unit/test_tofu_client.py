"""What the client does when a server fails; that its figures are right is shown against a real one."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server.evaluation.admin import ServedError
from server.evaluation.tofu import client
from server.evaluation.tofu.client import Served


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSES", (0.0, 0.0))


def _served(respond: Callable[[httpx.Request], httpx.Response]) -> Served:
    http = httpx.AsyncClient(base_url="http://server", transport=httpx.MockTransport(respond))
    return Served(http, "model", "</s>")


def _logprobs(tokens: list[int], logprob: float, last: str) -> list[dict[str, Any] | None]:
    entries = [{str(token): {"logprob": logprob, "decoded_token": last}} for token in tokens]
    return [None, *entries[1:]]


async def test_a_broken_connection_is_tried_again() -> None:
    failures: list[type[httpx.TransportError]] = [httpx.ReadError, httpx.RemoteProtocolError]

    def respond(request: httpx.Request) -> httpx.Response:
        if failures:
            raise failures.pop()("broken")
        return httpx.Response(200, json={"choices": [{"message": {"content": "Ann"}}]})

    assert await _served(respond).answer("key", "Who?") == "Ann"


async def test_a_connection_that_stays_broken_ends_it() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(httpx.ConnectError):
        await _served(respond).answer("key", "Who?")


async def test_an_error_is_not_asked_for_again() -> None:
    asked = 0

    def respond(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(500, text="out of memory")

    with pytest.raises(ServedError, match="out of memory"):
        await _served(respond).measure("key", [("Who?", None)], lambda *_: None)
    assert asked == 1


@pytest.mark.parametrize(
    ("start", "last"), [([1, 2, 9], "</s>"), ([1, 2, 3, 4, 5], "</s>"), ([1, 2], "s>")], ids=["merged", "all", "no end"]
)
async def test_tokens_that_cannot_be_told_apart_are_an_error(start: list[int], last: str) -> None:
    tokens = [1, 2, 3, 4]

    def respond(request: httpx.Request) -> httpx.Response:
        if b"assistant" not in request.content:
            return httpx.Response(200, json={"prompt_token_ids": start})
        return httpx.Response(200, json={"prompt_token_ids": tokens, "prompt_logprobs": _logprobs(tokens, -1.0, last)})

    with pytest.raises(ServedError):
        await _served(respond).score("key", "Who?", "Ann")


async def test_a_system_message_stands_ahead_of_answers_and_scores_of_its_own_side_alone() -> None:
    sent: dict[str, list[list[str]]] = {}

    def respond(request: httpx.Request) -> httpx.Response:
        roles = [message["role"] for message in json.loads(request.content)["messages"]]
        sent.setdefault(request.headers["Authorization"].split()[1], []).append(roles)
        tokens = [1, 2, 3] if roles[-1] == "user" else [1, 2, 3, 4]
        said = {"choices": [{"message": {"content": ""}}], "prompt_token_ids": tokens}
        return httpx.Response(200, json={**said, "prompt_logprobs": _logprobs(tokens, -1.0, "</s>")})

    served = _served(respond)
    await served.extra_seconds("key", "other", ["Who?"], system="Say nothing.")
    assert sent == {"key": [["system", "user"]], "other": [["user"]]}
    assert await served.behind("Say nothing.").score("scored", "Who?", "Ann") == 1.0
    assert sorted(sent["scored"]) == [["system", "user"], ["system", "user", "assistant"]]
