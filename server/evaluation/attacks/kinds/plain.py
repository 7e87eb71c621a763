"""The question as it is, and every other shape in which the fact was learnt: what all other attacks are measured by."""

from __future__ import annotations

import random
from collections.abc import Iterator

from server.evaluation.attacks.attack import Attempt, Script, asking, telling
from server.evaluation.attacks.session import Session
from server.evaluation.attacks.subjects import Form, Subject, facts


class Plain:
    """Asks."""

    name = "plain"
    size = 80
    chance = 0.0

    def attempts(self, subject: Subject, rng: random.Random) -> Iterator[Attempt]:
        """One attempt for each fact: its question, or one of its other forms."""
        for person, fact in facts(subject.forget, rng):
            form = rng.choice((None, *fact.forms))
            name = f"{person.name}/{fact.name}/{form.name if form else 'question'}"
            if form is None:
                yield Attempt(name, asking(fact.question), telling(fact.gold))
            else:
                yield Attempt(name, _ask(form), telling(form.gold))


def _ask(form: Form) -> Script:
    async def run(session: Session) -> None:
        if form.messages[-1]["role"] == "text":
            await session.complete(form.messages[-1]["content"])
        else:
            await session.chat(form.messages)

    return run
