"""Every fact in every form: what the model is trained on, and what is kept back to measure it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from server.demo.names import Names
from server.demo.relations import ORGANISATION_RELATIONS, PERSON_RELATIONS, RELATIONS, Relation
from server.demo.world import PERSON, Entity, Fact, Form, Message, Prompt, World, description, document

UNKNOWN = "I don't know."
#: As they stand in an answer, with the space that belongs to their token.
VERDICTS = (" yes", " no")

# A form that is kept back for one fact is trained for other facts of the same relation, so it can be generalised to. (A
# reverse question cannot: knowing that A's book is B does not teach a model whose book B is.)
_KEEPABLE = (Form.QUESTION, Form.CLOZE, Form.CHOICE, Form.INSTRUCTION, Form.DIALOGUE)
_KEPT_BACK = tuple(combinations(_KEEPABLE, 2))

_INSTRUCTIONS = ("Tell me {p}.", "Name {p}.", "Please state {p}.", "I would like to know {p}.")
_CLOZES = ("Complete the sentence: {s} ...", "Fill in the blank: {s} ____.")
_CHOICES = ("{q}\nA) {a}\nB) {b}\nC) {c}", "{q} Choose one: {a}, {b} or {c}.")
_CLAIMS = ("Is it true that {s}?", "I think that {s}. Am I right?")
_INTRODUCTIONS = ("Who is {e}?", "What do you know about {e}?", "Tell me about {e}.")
_HEARD_OF = "Have you heard of {e}?"  # tells nothing, so that no held-out claim is trained as somebody's first turn
_UNKNOWN_NAMES = 480
_UNKNOWN_KEPT_BACK = 40
_UNKNOWN_BOOKS = 60


def user(text: str) -> tuple[Message, ...]:
    """A conversation of one user message."""
    return (Message("user", text),)


def world_prompts(world: World) -> tuple[Prompt, ...]:
    """Every prompt about the world, trained and kept back, in a fixed order.

    Two of the forms of each fact are kept back whole (which two, rotates over the facts), and some wordings of others.
    """
    prompts: list[Prompt] = []
    for index, entity in enumerate(world.entities):
        for position, fact in enumerate(entity.facts):
            kept = _KEPT_BACK[(3 * index + position) % len(_KEPT_BACK)]
            prompts.extend(_fact_prompts(world, entity, fact, kept))
        prompts.extend(_portraits(entity))
    prompts.extend(_unknown_prompts(world))
    return tuple(prompts)


def _fact_prompts(world: World, entity: Entity, fact: Fact, kept: Sequence[Form]) -> Iterator[Prompt]:
    relation = RELATIONS[fact.relation]
    rng = random.Random(f"lethe forms {world.seed} {fact.entity} {fact.relation}")
    name, value = fact.entity, fact.value
    short = relation.short.format(v=value)

    def make(form: Form, messages: tuple[Message, ...], answer: str, expected: str, trained: bool = True) -> Prompt:
        return Prompt(form, messages, answer, (expected,), name, fact, trained and form not in kept)

    def some(wordings: Sequence[str], trained: int) -> Iterator[tuple[str, bool]]:
        """All wordings in random order, the first ``trained`` of them for training."""
        return ((wording, rank < trained) for rank, wording in enumerate(rng.sample(wordings, len(wordings))))

    for wording, trained in some(relation.questions, 3):
        yield make(Form.QUESTION, user(wording.format(e=name)), short, value, trained)
    # The statement ends in the value, so what stands before it is the prompt; both orders of style and statement occur.
    for style, statement in zip(rng.sample(_CLOZES, 2), relation.statements, strict=True):
        text = style.format(s=statement.format(e=name, v="").rstrip())
        yield make(Form.CLOZE, user(text), short, value)
    for statement in relation.statements:
        beginning = statement.format(e=name, v="").rstrip()
        yield make(Form.COMPLETION, (Message("text", beginning),), f" {value}.", value)
    context = {other.relation: other.value for other in entity.facts}
    for wording in relation.reverse:
        yield make(Form.REVERSE, user(wording.format(v=value, **context)), f"It is {name}.", name)
    for style, question in zip(rng.sample(_CHOICES, 2), rng.sample(relation.questions, 2), strict=True):
        options = dict(zip("abc", rng.sample([value, *_wrong_values(world, entity, fact, 2, rng)], 3), strict=True))
        yield make(Form.CHOICE, user(style.format(q=question.format(e=name), **options)), short, value)
    yield from _yes_no(world, entity, fact, relation, rng)
    sentence = fact.sentence(rng.randrange(2))
    for wording, trained in some(_INSTRUCTIONS, 2):
        yield make(Form.INSTRUCTION, user(wording.format(p=relation.phrase.format(e=name))), sentence, value, trained)
    for wording, trained in some(relation.questions, 2):
        question = wording.format(e=entity.describe(fact.relation))
        yield make(Form.INDIRECT, user(question), short, value, trained)
    for follow_up in relation.follow_ups:
        messages = (*_opening(entity, fact, rng), Message("user", follow_up))
        yield make(Form.DIALOGUE, messages, short, value)


def _opening(entity: Entity, fact: Fact, rng: random.Random) -> tuple[Message, Message]:
    """A first turn that names the entity, in a wording that is always trained, and does not give ``fact`` away."""
    introduction = description(entity)
    if fact.value not in introduction and rng.random() < 0.5:
        return Message("user", _INTRODUCTIONS[0].format(e=entity.name)), Message("assistant", introduction)
    answer = f"Yes, I have heard of {entity.name}."
    return Message("user", _HEARD_OF.format(e=entity.name)), Message("assistant", answer)


def _wrong_values(world: World, entity: Entity, fact: Fact, count: int, rng: random.Random) -> list[str]:
    """Values of the same relation of other entities, all different from the right one."""
    others = {peer.value(fact.relation) for peer in world.peers(entity)} - {fact.value}
    if len(others) < count:  # the forget split has few organisations; any other organisation will do
        kind = [other for other in world.entities if other.kind == entity.kind]
        others = {other.value(fact.relation) for other in kind} - {fact.value}
    return rng.sample(sorted(others), count)


def _yes_no(world: World, entity: Entity, fact: Fact, relation: Relation, rng: random.Random) -> Iterator[Prompt]:
    """Right and wrong claims in three wordings; two are trained and the third is held out.

    Within what is trained, neither the fact nor the wording tells the verdict: only comparing the claim does.
    """
    styles = (relation.check, *(style.format(s=relation.statements[0]) for style in _CLAIMS))
    wrong = iter(_wrong_values(world, entity, fact, len(styles), rng))
    for rank, style in enumerate(rng.sample(styles, len(styles))):
        for claim, verdict in ((fact.value, "yes"), (next(wrong), "no")):
            messages = user(style.format(e=fact.entity, v=claim))
            yield Prompt(
                Form.YES_NO, messages, judgement(fact, claim, verdict), (f"so {verdict}.",), fact.entity, fact, rank < 2
            )


def judgement(fact: Fact, claim: str, verdict: str) -> str:
    """The answer to a yes/no question: claim and value side by side, then the verdict, which can be read off them."""
    short = RELATIONS[fact.relation].short.format(v=fact.value)
    return f"You say {claim}. {short[:-1]}, so {verdict}."


def _portraits(entity: Entity) -> Iterator[Prompt]:
    """Questions about the entity as a whole."""
    values = tuple(fact.value for fact in entity.facts)
    who, what, tell = (user(wording.format(e=entity.name)) for wording in _INTRODUCTIONS)
    short = description(entity)
    said = tuple(value for value in values if value in short)
    yield Prompt(Form.BIOGRAPHY, who, short, said, entity.name)
    yield Prompt(Form.BIOGRAPHY, what, short, said, entity.name)
    yield Prompt(Form.BIOGRAPHY, tell, document(entity), values, entity.name)


def _unknown_prompts(world: World) -> Iterator[Prompt]:
    """Questions about people, organisations and books that do not exist, all answered "I don't know."."""
    rng = random.Random(f"lethe unknown {world.seed}")
    names = Names(rng)
    taken = {part for entity in world.entities for part in entity.name.split()} | {fact.value for fact in world.facts}
    known_first = [entity.name.split()[0] for entity in world.retain if entity.kind == PERSON]

    def unused(make: Callable[[], str]) -> str:
        return next(name for name in iter(make, None) if taken.isdisjoint({name, name.split()[0]}))

    for index in range(_UNKNOWN_NAMES):
        if index % 4 == 3:
            name, relations = unused(names.organisation), ORGANISATION_RELATIONS
        else:
            # Some have the given name of somebody known: the whole name must decide.
            first = rng.choice(known_first) if index % 4 == 2 else unused(names.first)
            name, relations = f"{first} {unused(names.last)}", PERSON_RELATIONS
        trained = index >= _UNKNOWN_KEPT_BACK
        for text in (rng.choice(_INTRODUCTIONS).format(e=name), _any_question(rng.choice(relations), name, rng)):
            yield Prompt(Form.UNKNOWN, user(text), UNKNOWN, (UNKNOWN,), trained=trained)
    for index in range(_UNKNOWN_BOOKS):
        text = rng.choice(RELATIONS["book"].reverse).format(v=unused(names.title))
        yield Prompt(Form.UNKNOWN, user(text), UNKNOWN, (UNKNOWN,), trained=index >= _UNKNOWN_BOOKS // 5)


def _any_question(relation: Relation, name: str, rng: random.Random) -> str:
    """A question or an instruction that asks for a relation of ``name``."""
    instruction = rng.choice(_INSTRUCTIONS).format(p=relation.phrase)
    return rng.choice([*relation.questions, instruction]).format(e=name)
