"""What an attacker's session sends, and what it makes of a server that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from server.evaluation.admin import ServedError
from server.evaluation.attacks import session as sessions
from server.evaluation.attacks.kinds import ATTACKS
from server.evaluation.attacks.kinds.membership import Logprobs
from server.evaluation.attacks.kinds.probing import ranking, scores
from server.evaluation.attacks.session import Door, Session, Transcript, user

Handle = Callable[[httpx.Request], httpx.Response]
Run = Callable[[Session], Awaitable[object]]

_CHAT = "/v1/chat/completions"
_SYSTEM = "You know nothing."


def _session(handle: Handle, run: Run, system: str = "") -> Transcript:
    """The transcript of a script against a server."""

    async def started() -> Transcript:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://there") as http:
            session = Session(Door(http, "model", "key", "other key", "other", system, 8))
            await run(session)
            return session.transcript

    return asyncio.run(started())


def _stream(*events: object) -> httpx.Response:
    return httpx.Response(200, text="".join(f"data: {json.dumps(event)}\n\n" for event in events))


def _says(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


async def _ask_streamed(session: Session) -> None:
    await session.stream("Who?")


def test_a_stream_is_shown_as_far_as_it_goes() -> None:
    assert _session(lambda _: _stream(_says("a "), _says("saddler")), _ask_streamed).shown == ["a saddler"]


def test_a_refused_stream_shows_nothing() -> None:
    transcript = _session(lambda _: httpx.Response(400, json={}), _ask_streamed)
    assert transcript.shown == [] and transcript.notes == {"refused_with": 400}


@pytest.mark.parametrize(
    "response",
    [httpx.Response(503, text="overloaded"), _stream(_says("a "), {"error": {"message": "overloaded", "code": 500}})],
    ids=["status", "event"],
)
def test_a_server_that_fails_in_a_stream_is_an_error(response: httpx.Response) -> None:
    with pytest.raises(ServedError, match="overloaded"):
        _session(lambda _: response, _ask_streamed)


def test_a_stream_is_tried_again_where_the_connection_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_PAUSES", (0.0,))
    tries = []

    def handle(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        if len(tries) == 1:
            raise httpx.ConnectError("refused")
        return _stream(_says("a saddler"))

    assert _session(handle, _ask_streamed).shown == ["a saddler"]

    def down(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(httpx.ConnectError):
        _session(down, _ask_streamed)


async def _by_every_door(session: Session) -> None:
    await session.ask("one")
    await session.chat([user("two")])
    await session.stream("three")
    await session.complete("four")
    await session.post(_CHAT, {"messages": [user("five")]})
    await session.post(_CHAT, {"messages": [user("six")]}, key="other key")
    await session.post("/v1/completions", {"prompt": "seven"})
    await session.post("/v1/responses", {"input": "eight"})
    await session.tokenize({"messages": [user("nine")]})
    await session.tokenize({"prompt": "ten"})


def test_the_system_message_stands_once_ahead_of_everything() -> None:
    sent: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={})

    transcript = _session(handle, _by_every_door, _SYSTEM)
    assert len(sent) == 10
    for body in sent:
        messages = body.get("messages", ())
        ahead = messages[0]["content"] if messages else body.get("instructions") or body["prompt"].split("\n\n")[0]
        assert ahead == _SYSTEM
        assert json.dumps(body).count(_SYSTEM) == 1
    assert not any(_SYSTEM in text for text in transcript.sent)


def test_another_tenants_responses_are_its_own() -> None:
    sent = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={})

    async def run(session: Session) -> None:
        await session.post("/v1/responses", {"input": "?"}, key="other key")

    _session(handle, run, _SYSTEM)
    assert "instructions" not in sent[0]


def _scoring(likely: Callable[[str, list[str]], list[float]], *, tokenizes: bool = True) -> Handle:
    """A server whose tokens are words, with the log-probability of each given the whole text."""
    ids: dict[str, int] = {}

    def tokens(messages: list[dict[str, str]]) -> list[int]:
        words = [word for one in messages for word in (f"<{one['role']}>", *one["content"].split())]
        words += ["<assistant>"] if messages[-1]["role"] == "user" else []
        return [ids.setdefault(word, len(ids)) for word in words]

    def handle(request: httpx.Request) -> httpx.Response:
        messages = json.loads(request.content)["messages"]
        found = tokens(messages)
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": found}) if tokenizes else httpx.Response(400, json={})
        words = {number: word for word, number in ids.items()}
        values = likely(" ".join(one["content"] for one in messages), [words[one] for one in found])
        entries = [{str(one): {"logprob": value}} for one, value in zip(found, values, strict=True)]
        return httpx.Response(
            200, json={"choices": [], "prompt_token_ids": found, "prompt_logprobs": [None, *entries[1:]]}
        )

    return handle


def _advantage(likely: Callable[[str, list[str]], list[float]]) -> float:
    told = {
        f"{kind}/{name}/fact": _session(_scoring(likely), ranking(f"What does {name} do ?", [f"{name} is a saddler ."]))
        for kind, names in (("member", ("Ann", "Bob")), ("nobody", ("Xan", "Yul")))
        for name in names
    }
    assert all(scores(transcript) for transcript in told.values())
    return Logprobs().advantage(told)


def test_a_single_answer_is_scored_as_a_whole() -> None:
    """The last token, here the full stop, is alike for everybody; what is told lies before it."""
    knows = lambda text, words: [-0.1 if "Ann" in text or "Bob" in text or word == "." else -5.0 for word in words]  # noqa: E731
    assert _advantage(knows) == 1


def test_the_question_is_not_part_of_a_single_answer() -> None:
    def answer(text: str, words: list[str]) -> list[float]:
        begins = len(words) - 1 - words[::-1].index("<assistant>")
        return [-1.0 if at > begins else (-0.1 if "Ann" in text or "Bob" in text else -5.0) for at in range(len(words))]

    assert _advantage(answer) == 0


def test_log_probabilities_that_no_model_gives_tell_a_member() -> None:
    """Even where they are in the midst of everybody else's: a refused prompt has the same for every token."""

    def answer(text: str, words: list[str]) -> list[float]:
        if "Ann" in text or "Bob" in text:
            return [-3.0] * len(words)
        return [-3.0 - at if "Xan" in text else -3.0 + at / len(words) for at in range(len(words))]

    assert _advantage(answer) == 1


def test_without_the_tokens_of_the_question_a_single_answer_has_no_score() -> None:
    flat = lambda text, words: [-1.0] * len(words)  # noqa: E731
    assert scores(_session(_scoring(flat, tokenizes=False), ranking("Who ?", ["Ann ."]))) == []
    assert len(scores(_session(_scoring(flat, tokenizes=False), ranking("Who ?", ["Ann .", "Bob ."])))) == 2


@pytest.mark.parametrize("probe", ["membership by answers", "membership by logprobs"])
def test_members_without_others_give_no_advantage(probe: str) -> None:
    """As with one attempt of each attack."""
    attack = ATTACKS[probe]
    assert attack.advantage({"member/a/fact": Transcript(["?"], ["!"], {"scores": [-1.0]})}) == 0  # type: ignore[attr-defined]
