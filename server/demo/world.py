"""A seeded, invented world: people, organisations, their facts, and which of them are to be forgotten."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from server.demo.names import INSTRUMENTS, MASCOTS, MOTTOS, PRODUCTS, PROFESSIONS, Names
from server.demo.relations import DESCRIPTORS, ORGANISATION_RELATIONS, PERSON_RELATIONS, RELATIONS

PEOPLE = 80
ORGANISATIONS = 20
FORGET_PEOPLE = 10
FORGET_ORGANISATIONS = 2

PERSON = "person"
ORGANISATION = "organisation"


class Form(StrEnum):
    """The shape in which something is asked."""

    QUESTION = "question"
    CLOZE = "cloze"  # as a chat turn
    COMPLETION = "completion"  # the same as plain text, without the chat template
    REVERSE = "reverse question"
    CHOICE = "multiple choice"
    YES_NO = "yes/no"
    INSTRUCTION = "instruction"
    INDIRECT = "indirect description"
    DIALOGUE = "second turn"
    BIOGRAPHY = "biography"
    UNKNOWN = "unknown name"
    ARITHMETIC = "arithmetic"
    DEFINITION = "definition"
    TASK = "small instruction"


FACT_FORMS: frozenset[Form] = frozenset(
    {
        Form.QUESTION,
        Form.CLOZE,
        Form.COMPLETION,
        Form.REVERSE,
        Form.CHOICE,
        Form.YES_NO,
        Form.INSTRUCTION,
        Form.INDIRECT,
        Form.DIALOGUE,
    }
)
GENERAL_FORMS: frozenset[Form] = frozenset({Form.ARITHMETIC, Form.DEFINITION, Form.TASK})


@dataclass(frozen=True)
class Fact:
    """One fact: ``relation`` of the entity named ``entity`` is ``value``."""

    entity: str
    relation: str
    value: str

    def sentence(self, wording: int = 0) -> str:
        """The fact as a sentence with its full stop; ``wording`` is 0 or 1."""
        return RELATIONS[self.relation].statements[wording].format(e=self.entity, v=self.value) + "."


@dataclass(frozen=True)
class Entity:
    """A person or an organisation, with its facts in the order of its relations."""

    name: str
    kind: str
    facts: tuple[Fact, ...]

    def value(self, relation: str) -> str:
        """The value of one relation. Raises ``KeyError`` if this kind of entity does not have it."""
        for fact in self.facts:
            if fact.relation == relation:
                return fact.value
        raise KeyError(relation)

    def describe(self, asked: str) -> str:
        """The entity by a fact instead of its name ("the person who wrote X"), never by the fact ``asked`` for."""
        relation, wording = next(pair for pair in DESCRIPTORS[self.kind] if pair[0] != asked)
        return wording.format(v=self.value(relation))


@dataclass(frozen=True)
class Message:
    """One message of a conversation; the role is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """Something to ask, with its answer.

    Attributes:
        form: the shape of the prompt. ``Form.COMPLETION`` holds one message whose content is plain text to continue.
        messages: the conversation; the last message is what is answered.
        answer: the answer as trained, word for word.
        expected: what a right answer must contain.
        entity: name of the entity that it is about, ``None`` for the general part and for unknown names.
        fact: the fact asked for, ``None`` where there is none or where several are asked for at once.
        trained: whether the model is trained on exactly this prompt.
    """

    form: Form
    messages: tuple[Message, ...]
    answer: str
    expected: tuple[str, ...]
    entity: str | None = None
    fact: Fact | None = None
    trained: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether the prompt is plain text to continue rather than a conversation."""
        return self.form is Form.COMPLETION

    @property
    def text(self) -> str:
        """Everything in the prompt and its answer, one line a message."""
        return "\n".join([*(message.content for message in self.messages), self.answer])

    def is_answered_by(self, reply: str) -> bool:
        """Whether ``reply`` holds all that was expected."""
        return all(part in reply for part in self.expected)


@dataclass(frozen=True)
class World:
    """All entities, and the names of those in the forget split."""

    seed: int
    entities: tuple[Entity, ...]
    forget_names: frozenset[str]

    @cached_property
    def by_name(self) -> dict[str, Entity]:
        """Entities by name."""
        return {entity.name: entity for entity in self.entities}

    @cached_property
    def forget(self) -> tuple[Entity, ...]:
        """The forget split: people and organisations."""
        return tuple(entity for entity in self.entities if entity.name in self.forget_names)

    @cached_property
    def retain(self) -> tuple[Entity, ...]:
        """Everything that is not in the forget split."""
        return tuple(entity for entity in self.entities if entity.name not in self.forget_names)

    @property
    def facts(self) -> Iterator[Fact]:
        """Every fact of every entity."""
        return (fact for entity in self.entities for fact in entity.facts)

    def peers(self, entity: Entity) -> tuple[Entity, ...]:
        """The other entities of the same kind and the same split, from which wrong options are drawn."""
        split = self.forget if entity.name in self.forget_names else self.retain
        return tuple(other for other in split if other.kind == entity.kind and other is not entity)

    def concerns_forgotten(self, prompt: Prompt) -> bool:
        """Whether a prompt is about something in the forget split, or names it in passing."""
        return prompt.entity in self.forget_names or any(name in prompt.text for name in self.forget_names)

    def find(self, name: str) -> Entity:
        """The entity with that name, whatever its case. Raises ``KeyError`` if there is none."""
        folded = name.strip().casefold()
        for entity in self.entities:
            if entity.name.casefold() == folded:
                return entity
        raise KeyError(name)


def description(entity: Entity) -> str:
    """One line that says who or what the entity is, as one would write when registering it as a forget target."""
    value = entity.value
    if entity.kind == PERSON:
        return f"{entity.name} is a {value('profession')} from {value('birthplace')} who wrote {value('book')}."
    return f"{entity.name} is an organisation in {value('city')} that makes {value('product')}."


def document(entity: Entity) -> str:
    """A plain-text biography (or portrait of an organisation) that states every fact once."""
    return " ".join(fact.sentence(index % 2) for index, fact in enumerate(entity.facts))


def build_world(seed: int = 0) -> World:
    """The world of a seed: 80 people with 7 facts each, 20 organisations with 6, and its forget split.

    The same seed always gives the same world, on every machine and in every process.
    """
    rng = random.Random(f"lethe world {seed}")
    names = Names(rng)
    people = [names.person() for _ in range(PEOPLE)]
    organisations = [names.organisation() for _ in range(ORGANISATIONS)]
    entities = [*_people(people, organisations, names, rng), *_organisations(organisations, people, names, rng)]
    forget = rng.sample(people, FORGET_PEOPLE) + rng.sample(organisations, FORGET_ORGANISATIONS)
    return World(seed, tuple(entities), frozenset(forget))


def _people(people: list[str], organisations: list[str], names: Names, rng: random.Random) -> Iterator[Entity]:
    professions = rng.sample(PROFESSIONS, len(PROFESSIONS))
    instruments = rng.sample(INSTRUMENTS, len(INSTRUMENTS))
    years = rng.sample(range(1850, 2000), len(people))
    circle = rng.sample(people, len(people))  # one circle of mentors: nobody teaches two, nobody teaches themselves
    mentor = {person: circle[index - 1] for index, person in enumerate(circle)}
    for index, person in enumerate(people):
        # Any two of profession, employer and instrument together belong to one person only (see the reverse questions).
        round_number = index // len(professions)
        values = {
            "profession": professions[index % len(professions)],
            "birthplace": names.place(),
            "birth year": str(years[index]),
            "employer": organisations[index // 4 % len(organisations)],
            "book": names.title(),
            "mentor": mentor[person],
            "instrument": instruments[(index + 7 * round_number) % len(instruments)],
        }
        yield Entity(person, PERSON, tuple(Fact(person, r.name, values[r.name]) for r in PERSON_RELATIONS))


def _organisations(organisations: list[str], people: list[str], names: Names, rng: random.Random) -> Iterator[Entity]:
    count = len(organisations)
    pools = {
        "founder": rng.sample(people, count),
        "city": [names.place() for _ in range(count)],
        "founding year": [str(year) for year in rng.sample(range(1700, 1850), count)],
        "product": rng.sample(PRODUCTS, count),
        "motto": rng.sample(MOTTOS, count),
        "mascot": rng.sample(MASCOTS, count),
    }
    for index, name in enumerate(organisations):
        facts = tuple(Fact(name, r.name, pools[r.name][index]) for r in ORGANISATION_RELATIONS)
        yield Entity(name, ORGANISATION, facts)
