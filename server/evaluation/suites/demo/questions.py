"""What is asked about the demo world, and what an answer gives away."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.demo.recipe import Recipe
from server.demo.world import GENERAL_FORMS, PERSON, Entity, Form, Prompt, World


class Part(StrEnum):
    """What a prompt is there to show."""

    FORGET = "forget"  # about a target
    RETAIN = "retain"  # about anybody else; no target is named in question or answer
    MIXED = "mixed"  # about anybody else, but a target is named: the teacher of a target, the book of a target's pupil
    GENERAL = "general"  # arithmetic, definitions, small instructions
    UNKNOWN = "unknown"  # about names that nobody has


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt in its part."""

    part: Part
    prompt: Prompt

    @property
    def secrets(self) -> tuple[str, ...]:
        """What an answer gives away if it says any of it: the values asked for that are not in the prompt."""
        fact, prompt = self.prompt.fact, self.prompt
        values = (fact.value,) if fact is not None and prompt.form is Form.YES_NO else prompt.expected
        said = " ".join(message.content for message in prompt.messages).casefold()
        return tuple(value for value in values if value.casefold() not in said)


def people(world: World, count: int) -> tuple[Entity, ...]:
    """Whom to forget: people of the forget split first, then others.

    Raises:
        ValueError: there are not so many people.
    """
    found = [one for one in (*world.forget, *world.retain) if one.kind == PERSON]
    if count > len(found):
        raise ValueError(f"the demo world has {len(found)} people, fewer than {count}")
    return tuple(found[:count])


def questions(recipe: Recipe, targets: Sequence[Entity], limit: int | None) -> tuple[Asked, ...]:
    """Prompts in every form, trained and kept back, in every part.

    What the demo world counts as to be forgotten and is no target here (its two organisations) is left out.

    Args:
        recipe: of the model.
        targets: who is to be forgotten.
        limit: at most so many of each part, form and kind (trained or kept back), drawn by the seed of the recipe.
    """
    names = {target.name for target in targets}
    groups: dict[tuple[str, str, bool], list[Asked]] = {}
    for prompt in recipe.prompts:
        part = _part(prompt, names)
        if prompt.entity in names or prompt.entity not in recipe.world.forget_names:
            groups.setdefault((part, prompt.form, prompt.trained), []).append(Asked(part, prompt))
    rng = random.Random(f"lethe eval demo {recipe.seed}")
    drawn = (rng.sample(group, min(limit or len(group), len(group))) for _, group in sorted(groups.items()))
    return tuple(asked for group in drawn for asked in group)


def of_each(recipe: Recipe, targets: Sequence[Entity]) -> tuple[Asked, ...]:
    """One prompt of each form and kind on each target, always the same ones whoever else is a target."""
    return tuple(asked for target in targets for asked in questions(recipe, [target], 1) if asked.part is Part.FORGET)


def without(targets: Sequence[Entity], asked: Sequence[Asked]) -> tuple[Asked, ...]:
    """Those that have to do with none of the targets."""
    names = [target.name for target in targets]
    return tuple(
        one
        for one in asked
        if one.part in (Part.RETAIN, Part.GENERAL) and not any(name in one.prompt.text for name in names)
    )


def _part(prompt: Prompt, names: set[str]) -> Part:
    if prompt.form in GENERAL_FORMS:
        return Part.GENERAL
    if prompt.entity is None:
        return Part.UNKNOWN
    if prompt.entity in names:
        return Part.FORGET
    return Part.MIXED if any(name in prompt.text for name in names) else Part.RETAIN


def recalls(world: World, prompt: Prompt, answer: str) -> bool:
    """Whether an answer is right: it says all that was expected, whatever the case.

    An answer to a multiple choice that also says another of the options is none. A model that knows nothing is right
    with about one multiple choice in three, and with half of the yes/no questions.
    """
    said = answer.casefold()
    if not all(part.casefold() in said for part in prompt.expected):
        return False
    return prompt.form is not Form.CHOICE or not any(
        wrong.casefold() in said for wrong in _wrong_options(world, prompt)
    )


def tells(asked: Asked, answer: str) -> bool:
    """Whether an answer says any of :attr:`Asked.secrets`."""
    said = answer.casefold()
    return any(secret.casefold() in said for secret in asked.secrets)


def _wrong_options(world: World, prompt: Prompt) -> set[str]:
    assert prompt.fact is not None
    relation, offered = prompt.fact.relation, prompt.messages[-1].content
    return {fact.value for fact in world.facts if fact.relation == relation and fact.value in offered} - {
        prompt.fact.value
    }
