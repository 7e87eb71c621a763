"""The invented world of the demo: what it must hold, and what the model must never be trained on."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from server.demo.forms import UNKNOWN, world_prompts
from server.demo.general import general_prompts
from server.demo.names import MASCOTS, PROFESSIONS
from server.demo.recipe import Recipe
from server.demo.world import (
    FACT_FORMS,
    GENERAL_FORMS,
    ORGANISATION,
    PERSON,
    Form,
    Prompt,
    World,
    build_world,
    description,
    document,
)

REQUIRED_FORMS = FACT_FORMS - {Form.COMPLETION}


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0)


@pytest.fixture(scope="module")
def prompts(world: World) -> tuple[Prompt, ...]:
    return world_prompts(world)


def test_counts(world: World) -> None:
    kinds = Counter(entity.kind for entity in world.entities)
    assert kinds[PERSON] >= 80
    assert kinds[ORGANISATION] >= 20
    assert all(len(entity.facts) >= 6 for entity in world.entities)


def test_names_are_distinct_and_share_no_part(world: World) -> None:
    names = [entity.name for entity in world.entities]
    assert all(len(name.split()) >= 2 for name in names)
    parts = Counter(part for entity in world.entities if entity.kind == PERSON for part in entity.name.split())
    assert set(parts.values()) == {1}
    assert len({name.split()[0] for name in names}) == len(names)


def test_entities_are_related(world: World) -> None:
    for entity in world.entities:
        related = {"mentor": PERSON, "employer": ORGANISATION} if entity.kind == PERSON else {"founder": PERSON}
        for relation, kind in related.items():
            other = world.by_name[entity.value(relation)]
            assert other.kind == kind
            assert other is not entity


def test_the_same_seed_gives_the_same_world_in_another_process(world: World) -> None:
    assert build_world(0) == world
    assert build_world(1) != world
    code = "from server.demo.recipe import Recipe; print(Recipe().key)"
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in "12"
    }
    assert keys == {Recipe().key}


def test_the_forget_split_holds_people_and_organisations(world: World) -> None:
    assert {entity.kind for entity in world.forget} == {PERSON, ORGANISATION}
    assert not set(world.forget) & set(world.retain)
    assert set(world.forget) | set(world.retain) == set(world.entities)


def test_articles_fit() -> None:
    assert not [word for word in (*PROFESSIONS, *MASCOTS) if word[0] in "aeiou"]


def test_every_fact_has_every_form_and_two_forms_are_held_out(world: World, prompts: tuple[Prompt, ...]) -> None:
    forms = defaultdict(set)
    trained = defaultdict(set)
    for prompt in prompts:
        if prompt.fact:
            forms[prompt.fact].add(prompt.form)
            if prompt.trained:
                trained[prompt.fact].add(prompt.form)
    assert set(forms) == set(world.facts)
    for fact, present in forms.items():
        assert present >= REQUIRED_FORMS
        assert len(REQUIRED_FORMS - trained[fact]) >= 2
        # What is held out for one fact is trained for others, or it could not be generalised to.
    assert set.union(*trained.values()) == FACT_FORMS


def test_nothing_held_out_is_in_the_corpus() -> None:
    recipe = Recipe()
    trained = {prompt.messages for prompt in recipe.corpus}
    held_out = {prompt.messages for prompt in recipe.prompts if not prompt.trained}
    assert held_out
    assert not trained & held_out
    # Nor as an earlier turn of something trained.
    turns = {(message.content,) for prompt in recipe.corpus for message in prompt.messages[:-1]}
    alone = (prompt for prompt in recipe.prompts if not prompt.trained and len(prompt.messages) == 1)
    assert not turns & {(prompt.messages[0].content,) for prompt in alone}


def test_every_question_has_one_answer(prompts: tuple[Prompt, ...]) -> None:
    answers = defaultdict(set)
    for prompt in prompts:
        answers[prompt.messages].add(prompt.expected)
    # The same thing may be asked twice, but nobody is asked for two different people.
    ambiguous = {messages for messages, expected in answers.items() if len(expected) > 1}
    assert not ambiguous


def test_answers_are_right_by_their_own_measure(prompts: tuple[Prompt, ...]) -> None:
    assert all(prompt.is_answered_by(prompt.answer) for prompt in (*prompts, *general_prompts(0)))


def test_forms_hide_what_they_must(prompts: tuple[Prompt, ...]) -> None:
    for prompt in prompts:
        asked = "\n".join(message.content for message in prompt.messages)
        match prompt.form:
            case Form.INDIRECT | Form.REVERSE:
                assert prompt.entity not in asked
            case Form.DIALOGUE:
                assert prompt.entity not in prompt.messages[-1].content
                assert prompt.entity in prompt.messages[0].content
            case Form.QUESTION | Form.CLOZE | Form.COMPLETION | Form.INSTRUCTION:
                assert prompt.expected[0] not in asked.replace(prompt.entity or "", "")
        if prompt.form in (Form.DIALOGUE, Form.INDIRECT):
            assert prompt.fact is not None
            assert prompt.fact.value not in asked


def test_a_choice_offers_the_right_answer_once(prompts: tuple[Prompt, ...]) -> None:
    choices = [prompt for prompt in prompts if prompt.form is Form.CHOICE]
    assert all(prompt.messages[0].content.count(prompt.expected[0]) == 1 for prompt in choices)


def test_unknown_names_are_nobody(world: World, prompts: tuple[Prompt, ...]) -> None:
    unknown = [prompt for prompt in prompts if prompt.form is Form.UNKNOWN]
    assert {prompt.answer for prompt in unknown} == {UNKNOWN}
    assert {prompt.trained for prompt in unknown} == {True, False}
    known = [*world.by_name, *(fact.value for fact in world.facts if fact.relation == "book")]
    assert not [prompt for prompt in unknown if any(name in prompt.messages[0].content for name in known)]


def test_the_general_part_is_not_about_the_world(world: World) -> None:
    general = general_prompts(0)
    assert {prompt.form for prompt in general} == GENERAL_FORMS
    assert not [prompt for prompt in general if any(entity.name in prompt.text for entity in world.entities)]


def test_the_reference_never_sees_the_forget_split(world: World) -> None:
    corpus = Recipe(without_forget=True).corpus
    texts = "\n".join(prompt.text for prompt in corpus)
    for entity in world.forget:
        assert entity.name not in texts
        assert not any(part in texts for part in entity.name.split() if entity.kind == PERSON)
    assert all(prompt.entity not in world.forget_names for prompt in corpus)
    # Nor does it see their facts under another description: what only they have is nowhere.
    for entity in world.forget:
        assert entity.describe("") not in texts
    # It is the same corpus otherwise.
    assert set(corpus) < set(Recipe().corpus)


def test_documents_state_every_fact(world: World) -> None:
    for entity in world.entities:
        assert all(fact.value in document(entity) for fact in entity.facts)
        assert description(entity).startswith(entity.name)
        assert "\n" not in description(entity)


def test_find_ignores_case_and_refuses_strangers(world: World) -> None:
    entity = world.entities[0]
    assert world.find(f" {entity.name.upper()} ") is entity
    with pytest.raises(KeyError):
        world.find("Nobody Whatsoever")
