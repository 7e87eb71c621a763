"""Which prompts of the demo world are trained on, which choose the settings of a method, and which judge it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from server.demo.batches import Batch, Batches
from server.demo.recipe import Recipe, Schedule
from server.demo.world import Entity, Prompt
from server.evaluation.suites.asking import key_of
from server.evaluation.suites.demo.questions import Asked, Part, questions

#: What settings are chosen by. Prompts on others that name a target are no part of any training either.
_CHOSEN_BY = (Part.FORGET, Part.RETAIN, Part.GENERAL)
_KEPT = (Part.RETAIN, Part.GENERAL, Part.UNKNOWN)


@dataclass(frozen=True)
class Split:
    """Prompts by what they are for.

    Attributes:
        forget: to be forgotten: all on the targets that the model was trained on, as in the literature those too by
            which the methods are judged. Held-out wordings and forms are not among them.
        retain: to be kept: what else the model was trained on, without any by which methods are judged or chosen.
        validation: what settings are chosen by; nothing by which methods are judged.
        test: what ``lethe eval demo`` asks.
    """

    forget: tuple[Prompt, ...]
    retain: tuple[Prompt, ...]
    validation: tuple[Asked, ...]
    test: tuple[Asked, ...]


def split(recipe: Recipe, targets: Sequence[Entity], limit: int, validated: int) -> Split:
    """Divide the prompts of the demo world.

    Args:
        recipe: of the model.
        targets: who is to be forgotten.
        limit: prompts of each part, form and kind (trained or kept back) to judge by; as ``lethe eval demo --limit``.
        validated: the same to choose by.
    """
    everything = questions(recipe, targets, None)
    test = questions(recipe, targets, limit)
    judged = _keys(test)
    groups: dict[tuple[str, str, bool], list[Asked]] = {}
    for one in everything:
        if one.part in _CHOSEN_BY and key_of(one.prompt.messages) not in judged:
            groups.setdefault((one.part, one.prompt.form, one.prompt.trained), []).append(one)
    rng = random.Random(f"lethe unlearning {recipe.seed}")
    drawn = (rng.sample(group, min(validated, len(group))) for _, group in sorted(groups.items()))
    validation = tuple(one for group in drawn for one in group)
    unseen = judged | _keys(validation)
    trained = [one for one in everything if one.prompt.trained]
    return Split(
        forget=tuple(one.prompt for one in trained if one.part is Part.FORGET),
        retain=tuple(one.prompt for one in trained if one.part in _KEPT and key_of(one.prompt.messages) not in unseen),
        validation=validation,
        test=test,
    )


def _keys(asked: Sequence[Asked]) -> set[str]:
    return {key_of(one.prompt.messages) for one in asked}


def epochs(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast, batch_tokens: int, seed: int, count: int
) -> list[list[Batch]]:
    """The batches of so many epochs: every prompt once, alone, at most ``batch_tokens`` tokens a batch."""
    schedule = Schedule(batch_tokens=batch_tokens, chained=0.0, with_system=0.0, repeats=())
    source = Batches(prompts, tokenizer, schedule, seed)
    return [list(source.epoch()) for _ in range(count)]
