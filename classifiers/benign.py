"""Ordinary prompts, made from templates: what calibration takes for traffic that speaks of no target, and others of
the same kinds that it has not seen.

Written for this project, so that it can be shipped. It covers what people ask assistants: trivia on history, science,
sport, film and music in the manner of quizzes, people described by what they did, sums with everyday names, recipes,
code, instructions and small talk; part of it in lower case, as people type into a search box.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def prompts() -> tuple[str, ...]:
    """About 2,100 distinct prompts, always the same ones in the same order."""
    return _made(2024)


@lru_cache(maxsize=1)
def unseen() -> tuple[str, ...]:
    """About 1,800 others from the same templates, to count false alarms on: nothing is fitted to them."""
    known = frozenset(prompts())
    return tuple(text for text in _made(2025) if text not in known)


def _made(seed: int) -> tuple[str, ...]:
    rng = random.Random(seed)
    choices = {slot: values.split("|") for slot, values in (line.split(": ", 1) for line in _lines("benign_slots.txt"))}
    made: dict[str, None] = {}
    for weight, template in (line.split(" ", 1) for line in _lines("benign_templates.txt")):
        for _ in range(2 * int(weight)):
            made[_fill(template, choices, rng)] = None
    shuffled = list(made)
    rng.shuffle(shuffled)
    return tuple(shuffled)


def _fill(template: str, choices: dict[str, list[str]], rng: random.Random) -> str:
    """Put a value for every slot; a name that occurs again is the same person half of the time."""
    text, names = template, rng.sample(choices["first"], 2)
    while (start := text.find("{")) >= 0:
        end = text.index("}", start)
        slot = text[start + 1 : end]
        value = rng.choice(names) if slot == "first" else rng.choice(choices[slot])
        text = text[:start] + value + text[end + 1 :]
    return text


def _lines(name: str) -> list[str]:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]
