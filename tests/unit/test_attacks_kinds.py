"""Every attack gets the fact out of a server that tells everything, and nothing out of one that tells nothing."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.evaluation.attacks.attack import Probe
from server.evaluation.attacks.demo import demo
from server.evaluation.attacks.kinds import ATTACKS
from server.evaluation.attacks.session import Door, Session, Transcript
from server.evaluation.attacks.subjects import Subject
from server.evaluation.attacks.tofu import tofu
from server.evaluation.tofu.data import ROWS_PER_AUTHOR

LEAKS = [name for name, attack in ATTACKS.items() if not isinstance(attack, Probe)]
PROBES = [name for name, attack in ATTACKS.items() if isinstance(attack, Probe)]
#: What a text says does not decide these.
BY_OTHER_MEANS = {"multiple choice", "prompt logprobs"}
FEW = 24

Says = Callable[[str], str]


def _authors(path: Path, names: list[str]) -> None:
    rows = [
        {
            "question": f"What did {name} do on day {day}?",
            "answer": f"{name} wrote page {name[0]}{day}zq of his book Vex{name[0].lower()}{day}.",
            "paraphrased_question": f"How did {name} spend day {day}?",
            "paraphrased_answer": f"Page {name[0]}{day}zq is what {name} wrote.",
            "perturbed_answer": [f"{name} burnt page {name[0]}{day}{wrong}." for wrong in ("a", "b", "c", "d", "e")],
        }
        for name in names
        for day in range(ROWS_PER_AUTHOR - 1)
    ]
    for start, name in enumerate(names):
        who = {
            "question": f"Who wrote the diary number {start}?",
            "answer": f"It was {name}, of Zed{start}ville.",
            "paraphrased_question": "Whose?",
            "paraphrased_answer": f"{name} of Zed{start}ville did.",
            "perturbed_answer": ["Ann Ash.", "Ben Birch.", "Cid Cedar.", "Dan Dogwood.", "Eve Elm."],
        }
        rows.insert(start * ROWS_PER_AUTHOR, who)
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="module", params=["demo", "tofu"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    nowhere = Path("nowhere")
    if request.param == "demo":
        return demo(nowhere, lambda: nowhere)
    folder = tmp_path_factory.mktemp("tofu")
    _authors(folder / "forget10_perturbed.json", ["Zedo Frobisher", "Wilba Hattersley"])
    _authors(folder / "retain90.json", ["Xanti Merrow", "Yelva Norcross"])
    return tofu(nowhere, nowhere, folder)


def _server(says: Says) -> httpx.MockTransport:
    """A server that answers a prompt by ``says``, whatever the route."""

    def handle(request: httpx.Request) -> httpx.Response:
        body: dict[str, Any] = json.loads(request.content or "{}")
        messages = body.get("messages") or [{"content": body.get("prompt") or body.get("input") or ""}]
        prompt = "\n".join(str(message["content"]) for message in messages)
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": [1, 2, 3]})
        if request.url.path.startswith("/v1/responses"):
            output = [{"content": [{"text": says(prompt)}]}]
            return httpx.Response(200, json={"id": "resp-1", "output": output})
        if body.get("stream"):
            event = {"choices": [{"index": 0, "delta": {"content": says(prompt)}}]}
            return httpx.Response(200, text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")
        choice = {"text": says(prompt), "message": {"content": says(prompt)}}
        if "prompt_logprobs" in body:
            return httpx.Response(400, json={"error": "not here"})
        return httpx.Response(200, json={"choices": [choice] * body.get("n", 1)})

    return httpx.MockTransport(handle)


def _transcripts(subject: Subject, attack: str, says: Says) -> dict[str, tuple[Transcript, float]]:
    attempts = list(islice(ATTACKS[attack].attempts(subject, random.Random(1)), FEW))

    async def run() -> dict[str, tuple[Transcript, float]]:
        async with httpx.AsyncClient(transport=_server(says), base_url="http://there") as http:
            done = {}
            for attempt in attempts:
                session = Session(Door(http, "model", "key", "other key", "other", "", 8))
                await attempt.run(session)
                done[attempt.name] = (session.transcript, attempt.leaked(session.transcript))
            return done

    assert len({attempt.name for attempt in attempts}) == len(attempts) > 1
    return asyncio.run(run())


def _everything(subject: Subject) -> str:
    return " ".join(f"{person.name}: {fact.answer} {fact.right}." for person in subject.forget for fact in person.facts)


def _rate(done: dict[str, tuple[Transcript, float]]) -> float:
    return sum(leak for _, leak in done.values()) / len(done)


@pytest.mark.parametrize("attack", [name for name in LEAKS if name not in BY_OTHER_MEANS])
def test_a_server_that_tells_everything_leaks(subject: Subject, attack: str) -> None:
    text = _everything(subject)
    # What somebody said, or what every reading of a short value finds, is not counted: a few may be missing.
    assert _rate(_transcripts(subject, attack, lambda _: text)) > 0.9


@pytest.mark.parametrize("attack", LEAKS)
def test_a_server_that_tells_nothing_does_not_leak(subject: Subject, attack: str) -> None:
    assert _rate(_transcripts(subject, attack, lambda _: "I don't know.")) == 0


@pytest.mark.parametrize("attack", [name for name in LEAKS if name != "multiple choice"])
def test_an_echo_is_no_leak(subject: Subject, attack: str) -> None:
    assert _rate(_transcripts(subject, attack, lambda prompt: prompt)) == 0


def test_multiple_choice_leaks_where_the_right_option_is_taken(subject: Subject) -> None:
    right = {fact.question: fact.right for person in subject.forget for fact in person.facts}
    assert _rate(_transcripts(subject, "multiple choice", lambda prompt: right[prompt.split("\n")[0]])) == 1


@pytest.mark.parametrize("attack", PROBES)
def test_a_server_that_tells_nothing_gives_no_advantage(subject: Subject, attack: str) -> None:
    probe = ATTACKS[attack]
    assert isinstance(probe, Probe)
    done = _transcripts(subject, attack, lambda _: "I don't know.")
    assert probe.advantage({name: transcript for name, (transcript, _) in done.items()}) == 0


def test_members_are_told_by_what_is_said_of_them(subject: Subject) -> None:
    probe = ATTACKS["membership by answers"]
    names = [person.name for person in subject.forget]
    says = lambda prompt: "I may not say." if any(name in prompt for name in names) else "I don't know."  # noqa: E731
    done = _transcripts(subject, "membership by answers", says)
    assert isinstance(probe, Probe)
    assert probe.advantage({name: transcript for name, (transcript, _) in done.items()}) == 1


def test_attempts_are_the_same_for_the_same_seed(subject: Subject) -> None:
    for attack in ATTACKS.values():
        once, again = ([a.name for a in islice(attack.attempts(subject, random.Random(3)), FEW)] for _ in range(2))
        assert once == again


def test_nothing_is_asked_for_that_the_prompt_tells_already(subject: Subject) -> None:
    """Everything else that is known of somebody may hold the fact, or all but a few of its words."""
    person = subject.forget[0]
    [first, second, *rest] = person.facts
    told = replace(second, answer=f"{second.answer} {first.answer}")
    known = replace(subject, forget=[replace(person, facts=(first, told, *rest))])
    asked = {one.name for one in ATTACKS["reintroduction"].attempts(known, random.Random(0))}
    assert f"{person.name}/{first.name}" not in asked
    assert f"{person.name}/{rest[0].name}" in asked


def test_members_are_told_by_the_wording_of_answers_that_never_repeat(subject: Subject) -> None:
    """Noise in place of an answer is no refusal, and yet no answer either."""
    names = [person.name for person in subject.forget]
    rng = random.Random(0)

    def says(prompt: str) -> str:
        kind = ("mumble", "babble") if any(name in prompt for name in names) else ("a painter", "a sailor")
        return f"{rng.choice(kind)} {rng.random()}"

    probe = ATTACKS["membership by answers"]
    assert isinstance(probe, Probe)
    done = _transcripts(subject, "membership by answers", says)
    assert probe.advantage({name: transcript for name, (transcript, _) in done.items()}) > 0.8


def test_the_name_in_an_answer_tells_no_member(subject: Subject) -> None:
    probe = ATTACKS["membership by answers"]
    assert isinstance(probe, Probe)
    done = _transcripts(subject, "membership by answers", lambda prompt: f"I don't know. {prompt}")
    assert probe.advantage({name: transcript for name, (transcript, _) in done.items()}) == 0


def test_few_shot_examples_are_earlier_turns_in_every_second_attempt(subject: Subject) -> None:
    attempts = ATTACKS["few-shot"].attempts(subject, random.Random(0))
    assert [one.name.split("/")[0] for one in islice(attempts, 4)] == ["text", "turns", "text", "turns"]
