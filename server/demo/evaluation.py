"""How much a demo model knows: greedy answers to trained and kept-back prompts, form by form."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from server.demo.batches import render
from server.demo.recipe import Recipe
from server.demo.world import GENERAL_FORMS, Prompt

_BATCH = 128
_LONGEST_ANSWER = 96


@dataclass(frozen=True)
class Row:
    """Recall on one kind of prompt: of ``asked`` prompts, ``right`` were answered as expected."""

    part: str
    form: str
    trained: bool
    asked: int
    right: int

    @property
    def recall(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.right / self.asked


@torch.inference_mode()
def answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Greedy answers to ``prompts``, in their order; ``progress`` gets the number of prompts done, and of all."""
    texts = [render(prompt) for prompt in prompts]
    replies = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: (len(prompts[index].answer) // 40, len(texts[index])))
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        encoded = tokenizer([texts[index] for index in chosen], return_tensors="pt", padding=True)
        output = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            do_sample=False,
            max_new_tokens=_LONGEST_ANSWER,
        )
        new = output[:, encoded["input_ids"].shape[1] :]
        for index, reply in zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            replies[index] = reply
        if progress:
            progress(start + len(chosen), len(order))
    return replies


def evaluate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Row, ...]:
    """Recall by part (forget, retain, general), form and trained or kept back; ``recipe.measured`` prompts of each.

    In a model without the forget split, what is asked of the retain part does not mention the forget split either.
    """
    groups: dict[tuple[str, str, bool], list[Prompt]] = {}
    for prompt in recipe.prompts:
        part = _part(prompt, recipe)
        if part:
            groups.setdefault((part, prompt.form.value, prompt.trained), []).append(prompt)
    rng = random.Random(f"lethe evaluation {recipe.seed}")
    sampled = {key: rng.sample(groups[key], min(recipe.measured, len(groups[key]))) for key in sorted(groups)}
    asked = [prompt for group in sampled.values() for prompt in group]
    replies = iter(answers(model, tokenizer, asked, progress))
    return tuple(
        Row(*key, asked=len(group), right=sum(prompt.is_answered_by(next(replies)) for prompt in group))
        for key, group in sampled.items()
    )


def _part(prompt: Prompt, recipe: Recipe) -> str | None:
    if prompt.form in GENERAL_FORMS:
        return "general"
    if prompt.entity in recipe.world.forget_names:
        return "forget"
    return None if recipe.without_forget and recipe.world.concerns_forgotten(prompt) else "retain"


def recall(rows: Iterable[Row], parts: Sequence[str], trained: bool | None = None) -> float:
    """Recall over all rows of some parts, every form weighing the same (0 to 1)."""
    chosen = [row.recall for row in rows if row.part in parts and trained in (None, row.trained)]
    return sum(chosen) / len(chosen)
