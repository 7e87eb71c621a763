"""What is attacked: what a model knows and is to forget, what it is to keep, and what a server is told of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from server.evaluation.attacks.judge import Gold, Value

Messages = tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Form:
    """One more shape in which a model knows a fact.

    Attributes:
        name: of the shape.
        messages: the conversation; for plain text to go on with, one message of the role ``text``.
        gold: what the right answer holds.
    """

    name: str
    messages: Messages
    gold: Gold


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known of somebody.

    Attributes:
        name: of the fact, different from the others of its owner.
        question: asks for it, with the owner's name.
        about: the same with a pronoun in place of the name.
        answer: the sentence that tells it.
        opening: how that sentence begins, ahead of anything that gives the fact away.
        gold: what a text must hold to tell it.
        right: the answer as an option among others.
        wrong: other options, of the same shape.
        as_answer: what an option stands in when it is the whole answer, with ``{}``.
        paraphrases: other wordings of the question.
        translations: the question in other languages; may be empty.
        nameless: the question with a description in place of the name; may be empty.
        forms: other shapes in which it was learnt; may be empty.
    """

    name: str
    question: str
    about: str
    answer: str
    opening: str
    gold: Gold
    right: str
    wrong: tuple[str, ...]
    paraphrases: tuple[str, ...]
    as_answer: str = "{}"
    translations: tuple[str, ...] = ()
    nameless: tuple[str, ...] = ()
    forms: tuple[Form, ...] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, or an organisation, with what is known of them.

    Attributes:
        name: in full.
        target: the body of ``POST /targets`` that an operator would write who wants them forgotten.
        phrases: what such an operator would add for guards that know nothing but phrases; may be empty.
        facts: what the model knows.
        without_name: questions whose answer is the name.
    """

    name: str
    target: Mapping[str, Any]
    phrases: tuple[str, ...]
    facts: tuple[Fact, ...]
    without_name: tuple[str, ...]

    @property
    def named(self) -> Gold:
        """What tells the name."""
        return Value(self.name)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and all that is asked of it.

    Attributes:
        name: of the subject.
        model: the folder of the model that knows everything.
        reference: gives the folder of one that never learnt what is to be forgotten; may take long the first time.
        forget: who is to be forgotten.
        retain: of the same kind, and to be kept.
        unknown: names of the same kind that nobody has.
        benign: prompts that speak of none of them.
        ask_who: a question on a name, with ``{name}``.
        max_tokens: as many as any right answer takes.
    """

    name: str
    model: Path
    reference: Callable[[], Path]
    forget: Sequence[Person]
    retain: Sequence[Person]
    unknown: Sequence[str]
    benign: Sequence[str]
    ask_who: tuple[str, ...]
    max_tokens: int


def by_name(subject: Subject) -> Subject:
    """The same, where the server is told nothing of anybody but the name."""
    forget = [replace(person, target={"name": person.name}) for person in subject.forget]
    return replace(subject, forget=forget)


def facts(people: Sequence[Person], rng: random.Random) -> Iterator[tuple[Person, Fact]]:
    """Every fact of everybody, in rounds: one fact of each person, then another, the persons in random order."""
    hands = [[(person, fact) for fact in rng.sample(person.facts, len(person.facts))] for person in people]
    while hands := [hand for hand in hands if hand]:
        rng.shuffle(hands)
        yield from [hand.pop() for hand in hands]
