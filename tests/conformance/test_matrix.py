"""Surfaces x guards: on every way to ask, every guard keeps the fact in, and no guard where none is on.

A surface that a guard silently skips is the commonest defect of guardrail servers; here it would be a red cell.
"""

from __future__ import annotations

import json

import openai
import pytest

from classifiers.folding import squeeze
from server.demo.world import PERSON, document
from tests.conformance.conftest import GUARDS, question_about
from tests.conformance.surfaces import ANSWERING, SHAPED, Door, Question, Reply
from tests.harness import LetheServer


@pytest.fixture(scope="session")
def people(world):
    return [entity for entity in world.forget if entity.kind == PERSON]


@pytest.fixture(scope="session")
def question(recipe, people) -> Question:
    return question_about(recipe, people[0])


@pytest.fixture(scope="session")
def monitored_question(recipe, people) -> Question:
    return question_about(recipe, people[1])


@pytest.fixture(scope="session")
def doors(server: LetheServer, people) -> dict[str, Door]:
    """A tenant for every guard, and one with none."""
    guarded, watched = people[0], people[1]
    secrets = [fact.value for fact in guarded.facts]
    example = {"prompt": f"Which book was written by {guarded.name}?", "completion": guarded.value("book")}
    target = server.target(
        guarded.name, documents=[document(guarded)], forget_examples=[example], protected_phrases=secrets
    )
    seen = server.target(watched.name, mode="monitor", protected_phrases=[fact.value for fact in watched.facts])
    only = {guard: [guard] for guard in ("lexicon", "semantic", "statements", "leak")} | {"prefix": ["lexicon", "leak"]}
    doors = {}
    for name in ("off", "monitor", *GUARDS):
        tenant, key = server.tenant(f"matrix {name}")
        doors[name] = Door(server.url, key)
        if name == "monitor":
            server.enable(tenant, seen)
        elif name != "off":
            server.enable(tenant, target, **({"action": "prefix"} if name == "prefix" else {}))
            for guard in ("lexicon", "semantic", "statements", "leak"):
                server.guard(tenant, guard, enabled=guard in only.get(name, [guard]))
    return doors


def _hides(reply: Reply, secret: str) -> bool:
    """Whether the secret is nowhere on the wire: not in a text, and not in the texts of tokens put together."""
    pieces = [squeeze(text) for text in reply.texts] + [squeeze(token) for token in _tokens(reply.raw)]
    return not any(squeeze(secret) in piece for piece in pieces)


def _tokens(raw: str) -> list[str]:
    """The texts of all tokens that log-probabilities name, as runs, and every other string that came back."""
    runs: list[str] = []
    chosen: list[str] = []

    def walk(value):
        if isinstance(value, dict):
            if isinstance(value.get("token"), str):
                chosen.append(value["token"])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            if value and all(isinstance(item, str) for item in value):
                chosen.extend(value)
            for inner in value:
                walk(inner)
        elif isinstance(value, str):
            runs.append(value)

    walk(json.loads(raw))
    return [*runs, "".join(chosen)]


@pytest.mark.parametrize("surface", ANSWERING)
def test_nothing_on_answers(doors, question, surface):
    reply = ANSWERING[surface](doors["off"], question)
    assert all(question.secret in text for text in reply.texts)


@pytest.mark.parametrize("surface", ANSWERING)
def test_monitor_answers(doors, monitored_question, surface):
    reply = ANSWERING[surface](doors["monitor"], monitored_question)
    assert all(monitored_question.secret in text for text in reply.texts)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("surface", [*ANSWERING, *SHAPED])
def test_guard_keeps_it_in(doors, question, surface, guard):
    reply = {**ANSWERING, **SHAPED}[surface](doors[guard], question)
    assert reply.texts
    assert _hides(reply, question.secret)


@pytest.mark.parametrize("guard", GUARDS)
def test_the_same_prompt_again_gets_the_same_verdict(doors, question, guard):
    """A prefix-cache hit must not blind a guard, nor may a guarded request spoil the cache for others."""
    for _ in range(3):
        assert _hides(ANSWERING["chat"](doors[guard], question), question.secret)
        assert question.secret in ANSWERING["chat"](doors["off"], question).texts[0]


@pytest.mark.parametrize("surface", [name for name in SHAPED if "json" in name])
@pytest.mark.parametrize("guard", ["lexicon", "semantic", "prefix"])
def test_structured_output_stays_structured(doors, question, surface, guard):
    reply = SHAPED[surface](doors[guard], question)
    assert isinstance(json.loads(reply.texts[0])["answer"], str)


@pytest.mark.parametrize("surface", ["chat", "chat-stream", "completion", "completion-stream", "responses", "messages"])
def test_a_refusal_looks_like_an_answer(doors, question, surface):
    reply = ANSWERING[surface](doors["lexicon"], question)
    events = json.loads(reply.raw)
    reasons = [value for event in events for value in _values(event, ("finish_reason", "stop_reason", "status"))]
    assert {"stop", "end_turn", "completed"} & set(reasons)
    for word in ("lethe", "guard", "block", "forget", "filter"):
        assert word not in reply.raw.casefold()


def _values(value, names):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in names and isinstance(inner, str):
                yield inner
            yield from _values(inner, names)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, names)


def test_beam_search_is_refused_where_it_cannot_be_guarded(doors, question):
    door = doors["lexicon"]
    with pytest.raises(openai.BadRequestError):
        door.sync.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": question.chat}],
            max_tokens=4,
            extra_body={"use_beam_search": True},
            n=2,
        )


def test_monitoring_is_audited(server: LetheServer, doors, monitored_question):
    ANSWERING["chat"](doors["monitor"], monitored_question)
    import time

    time.sleep(0.5)
    entries = server.admin.get("/v1/guard/audit", params={"limit": 20}).raise_for_status().json()["data"]
    assert any(finding["mode"] == "monitor" for entry in entries for finding in entry["findings"])
