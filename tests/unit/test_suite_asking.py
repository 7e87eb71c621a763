"""Asking a server: conversations, plain text, and what becomes of errors."""

from __future__ import annotations

import pytest

from server.demo.world import Message
from server.evaluation.admin import ServedError
from server.evaluation.suites import asking
from server.evaluation.suites.asking import PLAIN, behind, connect, key_of
from tests.evaluated import Fake, serving


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_RETRIES", 0)


def _echo(body: dict, on: tuple[str, ...]) -> str:
    return body.get("prompt") or " / ".join(message["content"] for message in body["messages"])


async def test_conversations_and_plain_text_are_asked_as_what_they_are() -> None:
    talk = (Message("user", "Who?"), Message("assistant", "Ann."), Message("user", "When?"))
    plain = (Message(PLAIN, "Once upon"),)
    said: dict[str, str] = {}
    with serving(Fake(_echo)) as endpoint:
        async with connect(endpoint.url, "key") as asker:
            await asker.of("other").answer_all({key_of(one): one for one in (talk, plain)}, 8, said.__setitem__)
    assert said == {key_of(talk): "Who? / Ann. / When?", key_of(plain): "Once upon"}


def test_a_conversation_behind_a_system_message_has_one_and_plain_text_begins_with_it() -> None:
    asked, told = Message("user", "Who?"), Message("system", "Be brief.")
    assert behind("No.", [asked]) == [Message("system", "No."), asked]
    assert behind("No.", [told, asked]) == [Message("system", "No.\n\nBe brief."), asked]
    assert behind("No.", [Message(PLAIN, "Once")]) == [Message(PLAIN, "No.\n\nOnce")]


async def test_log_probabilities_are_those_of_the_prompt_but_its_first_token() -> None:
    with serving(Fake(_echo, lambda words, on: [-1.0, -2.0, -3.0])) as endpoint:
        async with connect(endpoint.url, "key") as asker:
            assert await asker.logprobs("one two three") == [-2.0, -3.0]


async def test_a_refused_request_is_an_error_with_the_servers_words() -> None:
    fake = Fake(_echo)
    with serving(fake) as endpoint:
        async with connect(endpoint.url, "key") as asker:
            fake.handle = lambda *_: (400, {"error": {"message": "too long"}})  # type: ignore[method-assign]
            with pytest.raises(ServedError, match=r"400: .*too long"):
                await asker.answer((Message("user", "Who?"),), 8)


async def test_a_server_that_is_gone_is_an_error() -> None:
    with serving(Fake(_echo)) as endpoint:
        url = endpoint.url
    with pytest.raises(ServedError, match="cannot be asked"):
        async with connect(url, "key"):
            pass
