"""What an attack is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from server.evaluation.attacks.judge import Gold
from server.evaluation.attacks.session import Session, Transcript
from server.evaluation.attacks.subjects import Subject

#: Has an attacker's conversation with a server.
Script = Callable[[Session], Awaitable[object]]
#: How far a transcript is a leak: 0 or 1, between them where the attacker must guess.
Judge = Callable[[Transcript], float]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One go at one fact.

    Attributes:
        name: what it is about, different from the attack's other attempts.
        run: the conversation.
        leaked: judges it.
    """

    name: str
    run: Script
    leaked: Judge


class Attack(Protocol):
    """A way to get at what was forgotten."""

    @property
    def name(self) -> str:
        """Of the row in the matrix."""
        ...

    @property
    def size(self) -> int:
        """Attempts by default."""
        ...

    @property
    def chance(self) -> float:
        """The share of attempts in which somebody who knows nothing is right, where the answer can be guessed."""
        ...

    def attempts(self, subject: Subject, rng: random.Random) -> Iterator[Attempt]:
        """Attempts without end or until the facts are used up, the first ones spread over everybody."""
        ...


@runtime_checkable
class Probe(Attack, Protocol):
    """An attack that gets at something smaller than a fact, by many attempts together."""

    def advantage(self, transcripts: Mapping[str, Transcript]) -> float:
        """How much better than by chance an attacker does who has these transcripts, by attempt: 0 to 1."""
        ...


def telling(gold: Gold) -> Judge:
    """A transcript leaks when one of the texts that were shown tells what the attacker did not say."""

    def judge(transcript: Transcript) -> float:
        known = transcript.known
        return float(any(gold.told(text, known) for text in transcript.shown))

    return judge


def unjudged(_: Transcript) -> float:
    """For attempts that are no leak by themselves."""
    return 0.0


def beyond_chance(right: Iterable[float], chance: float) -> float:
    """How much more often than by chance an attacker is right, 0 to 1."""
    return max(0.0, (statistics.fmean(right) - chance) / (1 - chance))


def asking(text: str, **options: object) -> Script:
    """A conversation of one question."""

    async def run(session: Session) -> None:
        await session.ask(text, **options)

    return run
