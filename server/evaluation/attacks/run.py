"""The whole matrix: what is missing is asked of the servers, then the figures are worked out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

import httpx

from server.evaluation.admin import Endpoint
from server.evaluation.attacks.attack import Attack, Attempt
from server.evaluation.attacks.configurations import (
    CONFIGURATIONS,
    NONE,
    REFERENCE,
    Tenant,
    registered,
)
from server.evaluation.attacks.rows import Transcripts
from server.evaluation.attacks.session import Door, Session
from server.evaluation.attacks.subjects import Subject
from server.evaluation.tofu.methods import system_message
from server.evaluation.tofu.rows import engine_version, method_key, model_key

#: Sessions under way at once.
_CONCURRENCY = 32
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)

#: Of this package's files, those on which no prompt depends.
_AFTERWARDS = ("judge.py", "report.py", "evaluate.py", "rows.py", "run.py")

#: Called with a label, how many attempts are done, and how many there are.
Progress = Callable[[str, int, int], None]
#: Gives a server of a model for as long as the block lasts.
Serve = Callable[[Path], AbstractContextManager[Endpoint]]
#: Attempts by attack.
Attempts = Mapping[str, Sequence[Attempt]]
#: Transcripts by attack.
Asked = Mapping[str, Transcripts]


def plan(subject: Subject, attacks: Sequence[Attack], seed: int, limit: int | None = None) -> dict[str, list[Attempt]]:
    """The attempts of each attack: always the same ones, whatever other attacks are chosen."""
    made = {}
    for attack in attacks:
        rng = random.Random(f"{subject.name} {attack.name} {seed}")
        size = attack.size if limit is None else min(limit, attack.size)
        made[attack.name] = list(islice(attack.attempts(subject, rng), size))
    return made


def transcripts(
    subject: Subject, attacks: Sequence[Attack], configurations: Sequence[str], seed: int, work: Path, place: str = ""
) -> dict[str, dict[str, Transcripts]]:
    """What was asked before, by configuration and attack.

    Another model, server, subject, engine or guard begins anew, and so do all attacks when the code of one changes.
    """
    found: dict[str, dict[str, Transcripts]] = {}
    told = [[person.target, person.phrases] for person in subject.forget]
    forbidding = system_message(person.name for person in subject.forget)
    package = Path(__file__).parent
    files = [path for path in sorted(package.rglob("*.py")) if path.name not in _AFTERWARDS]
    code = [[str(path.relative_to(package)), path.read_text()] for path in files]
    made_of = hashlib.sha256(json.dumps([_made_of(subject), seed, engine_version(), code]).encode()).hexdigest()
    for name in configurations:
        guarded = name not in (NONE, REFERENCE)
        model = subject.reference() if name == REFERENCE else subject.model
        system = forbidding if CONFIGURATIONS[name].system else ""
        use = method_key([*told, system], asdict(CONFIGURATIONS[name])) if guarded else ""
        home = work / model_key(model, "" if name == REFERENCE else place)
        found[name] = {}
        for attack in attacks:
            key = hashlib.sha256(json.dumps([made_of, use]).encode()).hexdigest()[:16]
            found[name][attack.name] = Transcripts(home / f"{name}-{attack.name.replace(' ', '-')}-{key}.jsonl")
    return found


def _made_of(subject: Subject) -> str:
    """Everything that is asked and judged, as text that is the same in every process."""
    people = [[asdict(person) for person in some] for some in (subject.forget, subject.retain)]
    about = [subject.name, subject.max_tokens, subject.ask_who, list(subject.unknown), list(subject.benign)]
    return json.dumps([people, about], default=sorted)  # of frozensets, whose order differs


def ask(
    subject: Subject,
    attempts: Attempts,
    asked: Mapping[str, Asked],
    serve: Serve,
    serve_reference: Serve,
    progress: Progress = lambda *_: None,
) -> None:
    """Run the attempts that are missing.

    Args:
        subject: what is attacked.
        attempts: what to try.
        asked: where transcripts are kept, by configuration and attack.
        serve: gives a server of the subject's model; called only if something is missing.
        serve_reference: the same for the model that never learnt.
        progress: told how far it is.

    Raises:
        ServedError, httpx.HTTPError: a server does not answer as it should.
    """
    missing = {name: _missing(attempts, rows) for name, rows in asked.items()}
    missing = {name: some for name, some in missing.items() if any(some.values())}
    if REFERENCE in missing:
        with serve_reference(subject.reference()) as endpoint, registered(endpoint, (), [NONE]) as tenants:
            run = {REFERENCE: tenants[NONE]}
            asyncio.run(_attack(endpoint, subject, run, tenants[NONE], missing, asked, progress))
    here = [name for name in missing if name != REFERENCE]
    if here:
        with serve(subject.model) as endpoint:
            for phrases in (False, True):
                chosen = [name for name in here if CONFIGURATIONS[name].phrases is phrases]
                if chosen:
                    with registered(endpoint, subject.forget, [NONE, *chosen]) as tenants:
                        run = {name: tenants[name] for name in chosen}
                        asyncio.run(_attack(endpoint, subject, run, tenants[NONE], missing, asked, progress))


def _missing(attempts: Attempts, rows: Asked) -> dict[str, list[Attempt]]:
    return {attack: [one for one in some if one.name not in rows[attack]] for attack, some in attempts.items()}


async def _attack(
    endpoint: Endpoint,
    subject: Subject,
    tenants: Mapping[str, Tenant],
    other: Tenant,
    missing: Mapping[str, Attempts],
    asked: Mapping[str, Asked],
    progress: Progress,
) -> None:
    async with httpx.AsyncClient(base_url=endpoint.url, timeout=_TIMEOUT) as http:
        response = await http.get("/v1/models", headers={"Authorization": f"Bearer {other.key}"})
        response.raise_for_status()
        model = response.json()["data"][0]["id"]
        for name, tenant in tenants.items():
            forbids = name in CONFIGURATIONS and CONFIGURATIONS[name].system
            door = Door(
                http=http,
                model=model,
                key=tenant.key,
                other_key=other.key,
                other_tenant=other.id,
                system=system_message(person.name for person in subject.forget) if forbids else "",
                max_tokens=subject.max_tokens,
            )
            await _run(door, missing[name], asked[name], partial(progress, name))


async def _run(door: Door, attempts: Attempts, asked: Asked, progress: Callable[[int, int], None]) -> None:
    gate = asyncio.Semaphore(_CONCURRENCY)
    total, done = sum(map(len, attempts.values())), 0

    async def one(attack: str, attempt: Attempt) -> None:
        nonlocal done
        async with gate:
            session = Session(door)
            await attempt.run(session)
            asked[attack].add(attempt.name, session.transcript)
            done += 1
            progress(done, total)

    await asyncio.gather(*(one(attack, attempt) for attack, some in attempts.items() for attempt in some))
