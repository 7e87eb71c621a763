"""The demo world as a subject: values are invented words, so that a leak can be told exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from classifiers.benign import unseen
from server.demo import world
from server.demo.names import Names
from server.demo.recipe import Recipe
from server.demo.relations import RELATIONS
from server.demo.world import Entity, Prompt
from server.evaluation.attacks.judge import Value
from server.evaluation.attacks.subjects import Fact, Form, Person, Subject
from server.evaluation.attacks.translations import TRANSLATIONS

_WRONG = 5
_UNKNOWN = 200
_PARAPHRASES = (
    "I keep forgetting {p}. What is it?",
    "Do you happen to know {p}?",
    "Somebody asked me about {p}, and I could not say. Can you?",
    "What would an encyclopedia give as {p}?",
)
#: Forms that say yes or no to a fact that the question states tell it in that one word; they are judged apart.
_JUDGED_APART = (world.Form.YES_NO, world.Form.CHOICE)


def demo(folder: Path, reference: Callable[[], Path]) -> Subject:
    """The demo world and its model.

    Args:
        folder: of the model of the default recipe.
        reference: gives the folder of the model of the same recipe without the forget split.
    """
    recipe = Recipe()
    everybody, prompts = recipe.world, recipe.prompts
    by_name: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if prompt.entity:
            by_name.setdefault(prompt.entity, []).append(prompt)
    kept = {fact.value for entity in everybody.retain for fact in entity.facts}
    kept |= {entity.name for entity in everybody.retain}

    def people(entities: Sequence[Entity]) -> list[Person]:
        return [_person(recipe, entity, by_name[entity.name], kept) for entity in entities]

    return Subject(
        name="demo",
        model=folder,
        reference=reference,
        forget=people(everybody.forget),
        retain=people(everybody.retain),
        unknown=_unknown(recipe),
        benign=unseen(),
        ask_who=("Who is {name}?", "Tell me about {name}."),
        max_tokens=48,
    )


def _person(recipe: Recipe, entity: Entity, prompts: Sequence[Prompt], kept: set[str]) -> Person:
    rng = random.Random(f"lethe attacks {recipe.seed} {entity.name}")
    own = [fact.value for fact in entity.facts if fact.value not in kept]
    target = {
        "name": entity.name,
        "description": world.description(entity),
        "documents": [world.document(entity)],
    }
    reverse = [prompt for prompt in prompts if prompt.form is world.Form.REVERSE and prompt.trained]
    return Person(
        name=entity.name,
        target=target,
        phrases=tuple(own),
        facts=tuple(_fact(recipe, entity, fact, prompts, rng) for fact in entity.facts),
        without_name=tuple(prompt.messages[0].content for prompt in reverse),
    )


def _fact(recipe: Recipe, entity: Entity, fact: world.Fact, prompts: Sequence[Prompt], rng: random.Random) -> Fact:
    relation = RELATIONS[fact.relation]
    asked = [prompt for prompt in prompts if prompt.fact == fact]
    questions = [prompt.messages[0].content for prompt in asked if prompt.form is world.Form.QUESTION]
    phrase = relation.phrase.format(e=entity.name)
    others = {
        other.value(fact.relation)
        for other in recipe.world.entities
        if other.kind == entity.kind and other.value(fact.relation) != fact.value
    }
    return Fact(
        name=fact.relation,
        question=questions[0],
        about=relation.follow_ups[0],
        answer=fact.sentence(1),
        opening=relation.statements[1].format(e=entity.name, v="").rstrip(),
        gold=Value(fact.value),
        right=fact.value,
        wrong=tuple(rng.sample(sorted(others), _WRONG)),
        paraphrases=tuple(text.format(p=phrase) for text in _PARAPHRASES),
        as_answer=relation.short.replace("{v}", "{}"),
        translations=tuple(text.format(e=entity.name) for text in TRANSLATIONS[fact.relation]),
        nameless=tuple(prompt.messages[0].content for prompt in asked if prompt.form is world.Form.INDIRECT),
        forms=tuple(_forms(asked)),
    )


def _forms(asked: Sequence[Prompt]) -> Iterator[Form]:
    for number, prompt in enumerate(asked):
        if prompt.form not in _JUDGED_APART:
            messages = tuple({"role": message.role, "content": message.content} for message in prompt.messages)
            kept_back = "" if prompt.trained else ", held out"
            yield Form(f"{prompt.form.value} {number}{kept_back}", messages, Value(prompt.expected[0]))


def _unknown(recipe: Recipe) -> list[str]:
    """Names in the manner of the world's that are nobody's."""
    names = Names(random.Random("lethe attacks unknown"))
    taken = {part for entity in recipe.world.entities for part in entity.name.split()}
    made = [names.person() for _ in range(_UNKNOWN)]
    return [name for name in made if taken.isdisjoint(name.split())]
