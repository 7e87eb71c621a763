"""A server's life as its operator sees it: command line, kill -9, restart, metrics, audit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import httpx
import openai
import pytest

from server.demo.world import PERSON, Form
from tests.harness import ADMIN_KEY, MODEL_NAME


@pytest.fixture(scope="module")
def person(recipe):
    return next(entity for entity in recipe.world.forget if entity.kind == PERSON)


@pytest.fixture(scope="module")
def lethe(server):
    """Runs ``lethe`` against the server; returns what it printed as JSON."""

    def run(*arguments: str, status: int = 0):
        env = {**os.environ, "LETHE_URL": server.url, "LETHE_ADMIN_KEY": ADMIN_KEY}
        command = [sys.executable, "-m", "server.cli", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        if status != 0 or "--json" not in arguments:
            return done.stderr
        if arguments[0] == "audit":  # a line for each entry
            return [json.loads(line) for line in done.stdout.splitlines()]
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def ask(server, recipe, person):
    def ask(key: str) -> str:
        prompt = next(
            p
            for p in recipe.prompts
            if p.form is Form.QUESTION and p.entity == person.name and p.fact.relation == "book"
        )
        messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
        answer = client.chat.completions.create(model=MODEL_NAME, messages=messages, temperature=0, max_tokens=40)
        return answer.choices[0].message.content

    return ask


def test_from_the_command_line_through_kill_to_restart(server, lethe, ask, person):
    book = person.value("book")
    key = lethe("tenant", "add", "acme", "--json")["api_key"]
    other = lethe("tenant", "add", "other", "--json")["api_key"]
    assert book in ask(key)
    lethe("target", "add", person.name, "--json")
    assert book in ask(key)
    lethe("target", "enable", person.name, "--tenant", "acme")
    refused = ask(key)
    assert book not in refused and book in ask(other)
    (target,) = (one["id"] for one in lethe("target", "list", "--json"))
    admin = httpx.Client(base_url=f"{server.url}/v1/guard", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    job = admin.post(f"/targets/{target}/compile", json={"interventions": ["eco", "lunar"]}).json()["id"]
    server.kill()
    server.start()
    assert ask(key) == refused and book in ask(other)
    deadline = time.monotonic() + 120
    while (state := admin.get(f"/compile/jobs/{job}").json().get("state")) != "done":
        assert time.monotonic() < deadline and state in (None, "queued", "running")
        time.sleep(0.5)
    lethe("target", "disable", person.name, "--tenant", "acme")
    assert book in ask(key)
    lethe("target", "enable", person.name, "--tenant", "acme")


def test_check_says_why_and_the_audit_remembers(lethe, person):
    verdict = lethe("check", f"Who is {person.name}?", "--tenant", "acme", "--json")
    assert verdict["flagged"] and verdict["findings"][0]["window"]
    assert not lethe("check", "What is 2 plus 3?", "--tenant", "acme", "--json")["flagged"]
    entries = lethe("audit", "--tenant", "acme", "--json")
    assert entries
    assert person.name not in json.dumps(entries)  # prompts and windows are only hashed unless the tenant opts in


def test_a_key_that_was_rotated_or_revoked_ends(lethe, ask):
    old = lethe("tenant", "add", "rotating", "--json")["api_key"]
    new = lethe("tenant", "rotate-key", "rotating", "--json")["api_key"]
    with pytest.raises(openai.AuthenticationError):
        ask(old)
    assert ask(new)


def test_metrics_name_no_target_and_no_tenant(server, ask, person):
    text = httpx.get(f"{server.url}/metrics").text
    assert "lethe:verdicts_total{" in text and "vllm:" in text
    lines = [line for line in text.splitlines() if line.startswith("lethe:")]
    assert not any(word in line for line in lines for word in (person.name, "acme", "tgt_", "ten_"))


def test_mistakes_are_one_line_and_exit_2(lethe):
    for arguments in (("target", "show", "nobody"), ("tenant", "add", ""), ("check", "hi", "--tenant", "nobody")):
        message = lethe(*arguments, status=2)
        assert len(message.strip().splitlines()) <= 1 or "Usage" in message


def test_a_registration_by_another_process_is_followed_within_a_second(server, ask, lethe, recipe):
    """Two processes on one database: here the second is this test's own registry."""
    from guard.registry import Registry
    from guard.store import Store
    from guard.types import TargetSpec

    other = [entity for entity in recipe.world.forget if entity.kind == PERSON][1]
    store = Store.open(f"sqlite:///{server.log.parent / 'lethe.db'}")
    registry = Registry(store, lambda snapshot: None)
    registry.start()
    try:
        registry.write(lambda writer: writer.create_target(TargetSpec(name=other.name, all_tenants=True)))
        deadline = time.monotonic() + 1.0
        body = {"tenant": "acme", "prompt": f"Who is {other.name}?"}
        while not (flagged := server.admin.post("/v1/guard/check", json=body).json()["flagged"]):
            assert time.monotonic() < deadline
        assert flagged
    finally:
        registry.close()
        store.close()


def test_it_ends_when_asked(server):
    assert server.stop() == 0
    server.start()
