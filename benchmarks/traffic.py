"""Clean traffic: conversations that no target is touched by, as a chat client sends them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from server.demo.recipe import Recipe
from server.demo.world import Form, Prompt

#: Questions that no target is touched by.
CLEAN = frozenset({Form.ARITHMETIC, Form.DEFINITION, Form.TASK})


def conversations(turns: int, together: int = 1, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """Requests of a chat client about small talk of the demo model's kind, without end.

    ``together`` conversations go on at a time. Each of them asks its first question, then each its second, after all
    that was said before, up to ``turns`` questions; then others begin. Every question bears a mark, so that no cache
    knows it, of the engine's or of the detector's; what was said before both may know, as they do in a real one.
    """
    asked = [prompt for prompt in Recipe().prompts if prompt.form in CLEAN]
    rng, marks = random.Random(seed), (f"{seed}-{number}" for number in itertools.count())
    while True:
        talks = [list(itertools.chain(*map(_turn, rng.sample(asked, turns), marks))) for _ in range(together)]
        yield from (talk[: 2 * turn + 1] for turn in range(turns) for talk in talks)


def _turn(prompt: Prompt, mark: str) -> tuple[dict[str, str], dict[str, str]]:
    question = f"Request {mark}: {prompt.messages[-1].content}"
    return {"role": "user", "content": question}, {"role": "assistant", "content": prompt.answer}
