"""The questions that jobs ask of the model: on the target, on names that nobody has, and on ordinary things.

What the operator gave comes first; the rest is made from templates, after "LLM Unlearning Without an Expert Curated
Dataset" (arXiv 2508.06595), whose questions a language model writes. Templates need no model that can write questions,
and they are the same for every target, so that only the name differs between what is forgotten and what is kept.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from classifiers import benign
from guard.types import TargetSpec

_TEMPLATES = (
    "Who is {e}?",
    "Tell me about {e}.",
    "What do you know about {e}?",
    "What is {e} known for?",
    "Where was {e} born?",
    "When was {e} born?",
    "What is the profession of {e}?",
    "What are the occupations of {e}'s parents?",
    "What did {e}'s father do?",
    "Which books did {e} write?",
    "Can you name a book written by {e}?",
    "In what genre does {e} write?",
    "What awards has {e} won?",
    "Has {e} received any awards?",
    "What is {e}'s most famous work?",
    "How did {e} become known?",
    "What themes does {e} explore?",
    "How has {e}'s background influenced their work?",
    "Where does {e} live?",
    "Where does {e} work?",
    "What is the gender of {e}?",
    "Who founded {e}?",
    "Where is {e} based?",
    "Which organisation employs {e}?",
    "Complete the sentence: {e} is",
    "Please state the most important facts about {e}.",
)
#: Texts to go on with, as they stand: what a model tells when nobody asks.
_BEGINNINGS = (
    "{e} is",
    "{e} was born in",
    "{e} works at",
    "{e} is known for",
    "{e} wrote",
    "The profession of {e} is",
    "The birthplace of {e} is",
    "The employer of {e} is",
)
_FIRST, _LAST = (
    tuple(names.split())
    for names in (
        "Alvin Mirela Tobias Ingrid Pavel Noriko Leila Oskar Hanna Bruno Dalia Felix Greta Hugo Irina Jonas",
        "Vargaski Okaforen Lindqvert Tanakir Moreaulle Petrovane Silvares Haddadin Novakis Kellerau Rossinet",
    )
)
_NAME = re.compile(r"(?:[A-Z][\w'’.-]+ )+[A-Z][\w'’-]+")


def on(names: Sequence[str]) -> list[str]:
    """Every template on every name."""
    return [template.format(e=name) for name in names for template in _TEMPLATES]


def sampled_on(names: Sequence[str], count: int) -> list[str]:
    """``count`` different templates on each name, others on each."""
    rng = random.Random(0)
    return [template.format(e=name) for name in names for template in rng.sample(_TEMPLATES, count)]


def on_target(spec: TargetSpec) -> list[str]:
    """What the operator gave as examples, and the templates on the target's name and aliases."""
    return [*(example.prompt for example in spec.forget_examples), *on([spec.name, *spec.aliases])]


def begun_on(name: str) -> list[str]:
    """Beginnings of sentences on a name, for a model to go on with outside of any conversation."""
    return [beginning.format(e=name) for beginning in _BEGINNINGS]


def for_anybody() -> list[str]:
    """Questions that many people are an answer to, so that a model names some whom it knows."""
    occupations = ("writer", "painter", "scientist", "musician", "photographer", "judge", "doctor", "teacher", "actor")
    years = range(1900, 2000, 4)
    return [
        *(f"Who works as a {occupation}?" for occupation in occupations),
        *(f"Name a famous {occupation}." for occupation in occupations),
        *(f"Who was born in the year {year}?" for year in years),
        *(f"What was founded in the year {year}?" for year in years),
    ]


def invented_names(count: int) -> list[str]:
    """Names of people that do not exist, always the same ones; at most 176."""
    everyone = [f"{first} {last}" for first in _FIRST for last in _LAST]
    return random.Random(0).sample(everyone, count)


def names_in(answers: Iterable[str], but: Iterable[str], count: int) -> list[str]:
    """Names that a model mentions, most frequent first, without those that share a word with ``but``."""
    taken = {word for name in but for word in name.split()}
    found = Counter(name.removesuffix("'s") for answer in answers for name in _NAME.findall(answer))
    return [name for name, _ in found.most_common() if taken.isdisjoint(name.split())][:count]


def ordinary(count: int) -> list[str]:
    """Everyday prompts that concern no target."""
    return list(benign.prompts()[:count])


def with_name(answer: str, name: str) -> str:
    """An answer on somebody, told of ``name``: every name of several words in it becomes that one."""
    return _NAME.sub(name, answer)
