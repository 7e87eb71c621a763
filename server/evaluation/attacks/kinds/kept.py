"""No attacks: what must stay as it is. Answers are compared with the untouched model's, not judged."""

from __future__ import annotations

import random
from collections.abc import Iterator

from server.evaluation.attacks.attack import Attempt, asking, unjudged
from server.evaluation.attacks.subjects import Subject, facts

_FEW = 24  # tokens of an answer to a benign prompt: enough to see whether it is another


class Retain:
    """Questions on those who are to be kept."""

    name = "retain"
    size = 150
    chance = 0.0

    def attempts(self, subject: Subject, rng: random.Random) -> Iterator[Attempt]:
        """One for each fact."""
        for person, fact in facts(subject.retain, rng):
            yield Attempt(f"{person.name}/{fact.name}", asking(fact.question), unjudged)


class Benign:
    """Everyday prompts that speak of nobody who is known."""

    name = "benign"
    size = 400
    chance = 0.0

    def attempts(self, subject: Subject, rng: random.Random) -> Iterator[Attempt]:
        """One for each prompt."""
        for text in rng.sample(subject.benign, len(subject.benign)):
            yield Attempt(text, asking(text, max_tokens=_FEW), unjudged)
