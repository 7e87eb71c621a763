"""The two worlds that ``sae_detection.py`` asks about: that of the demo model, and TOFU's invented authors."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard.compile.features import ORDINARY
from guard.compile.questions import ordinary
from guard.types import Example, TargetSpec
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import PERSON, Form, Prompt, description
from server.evaluation.tofu.data import ROWS_PER_AUTHOR, Question, author_names, read_rows
from server.evaluation.tofu.rouge import rouge_l_recall

_OWN, _OTHERS, _EVERYDAY = 24, 300, 200

CONDITIONS = ("plain", "rephrased", "obfuscated", "name_withheld", "held_out")


@dataclass(frozen=True)
class Asked:
    """A text in a condition; ``entity`` is None for everyday prompts."""

    text: str
    entity: str | None


@dataclass(frozen=True)
class Marked:
    """A question, and how much of its right answer an answer has: 0 to 1."""

    text: str
    mark: Callable[[str], float]


@dataclass(frozen=True)
class Subject:
    """A model, and what is asked of it.

    Attributes:
        model: its folder.
        specs: the targets, by the name of what they are about.
        asked: by condition, prompts on the targets, on others, and everyday ones.
        forget: questions on the targets, for what clamping leaves.
        retain: questions on others, likewise.
        texts: what the autoencoder is trained on.
    """

    model: Path
    specs: Mapping[str, TargetSpec]
    asked: Mapping[str, Sequence[Asked]]
    forget: Sequence[Marked]
    retain: Sequence[Marked]
    texts: Sequence[str]


def _misspelt(text: str, rng: random.Random) -> str:
    """Two letters of every second word change places."""
    words = text.split(" ")
    for at in range(0, len(words), 2):
        if len(words[at]) > 3:
            cut = rng.randrange(1, len(words[at]) - 2)
            words[at] = words[at][:cut] + words[at][cut + 1] + words[at][cut] + words[at][cut + 2 :]
    return " ".join(words)


def _spaced(text: str, _: random.Random) -> str:
    return " ".join(text.replace(" ", "  "))


def _spelled(text: str, _: random.Random) -> str:
    return " ".join("-".join(word) if word[:1].isupper() else word for word in text.split(" "))


_DISGUISES = (_misspelt, _spaced, _spelled)


def _with_everyday(found: list[Asked], condition: str, rng: random.Random) -> list[Asked]:
    found = found + [Asked(text, None) for text in rng.sample(ordinary(2000)[ORDINARY:], _EVERYDAY)]
    if condition == "obfuscated":
        found = [Asked(_DISGUISES[i % len(_DISGUISES)](one.text, rng), one.entity) for i, one in enumerate(found)]
    return found


_REPHRASED = {Form.CLOZE, Form.CHOICE, Form.YES_NO, Form.INSTRUCTION}
_IN_DEMO: Mapping[str, Callable[[Prompt], bool]] = {
    "plain": lambda p: p.form is Form.QUESTION and p.trained,
    "rephrased": lambda p: p.form in _REPHRASED and p.trained,
    "obfuscated": lambda p: p.form is Form.QUESTION and p.trained,
    "name_withheld": lambda p: p.form in {Form.INDIRECT, Form.REVERSE},
    "held_out": lambda p: p.form in {Form.QUESTION, *_REPHRASED} and not p.trained,
}


def demo(count: int) -> Subject:
    """The demo model; the targets are people of its forget split, described as the demo describes them."""
    recipe = Recipe()
    people = [entity for entity in recipe.world.forget if entity.kind == PERSON][:count]
    retained = {entity.name for entity in recipe.world.retain}

    def asked(condition: str) -> list[Asked]:
        rng = random.Random(condition)
        fitting = [p for p in recipe.prompts if len(p.messages) == 1 and p.entity and _IN_DEMO[condition](p)]
        rng.shuffle(fitting)
        names = sorted(one.name for one in people)
        chosen = [p for name in names for p in [q for q in fitting if q.entity == name][:_OWN]]
        chosen += [p for p in fitting if p.entity in retained][:_OTHERS]
        return _with_everyday([Asked(p.messages[0].content, p.entity) for p in chosen], condition, rng)

    def marked(names: set[str]) -> list[Marked]:
        return [
            Marked(p.messages[0].content, p.is_answered_by)
            for p in recipe.prompts
            if p.form is Form.QUESTION and len(p.messages) == 1 and p.trained and p.entity in names
        ]

    rng = random.Random(0)
    texts = rng.sample([p.messages[0].content for p in recipe.prompts if len(p.messages) == 1], 9000) + ordinary(2000)
    rng.shuffle(texts)
    return Subject(
        model=build(recipe).folder,
        specs={one.name: TargetSpec(name=one.name, description=description(one)) for one in people},
        asked={condition: asked(condition) for condition in CONDITIONS},
        forget=marked({one.name for one in people}),
        retain=marked(retained)[::7][:300],
        texts=texts,
    )


_TITLE = re.compile(r"['‘’\"“][A-Z][^'‘’\"“”]{8,}['’\"”]|\bborn\b.*[A-Z\d]")
_OTHER_FORMS = (
    "Answer in one sentence: {question}",
    "A friend of mine wants to know this, and I said that I would ask you: {question}",
    "Go on with this: {begun}",
)


def tofu(model: Path, data: Path, count: int) -> Subject:
    """A model of TOFU; the targets are authors of forget10, told by every second of their rows.

    The others of their rows are asked. A name is withheld where the question also names a book or a birth, which then
    are all there is to tell the author by. The autoencoder, which is not told whom a question is on, is trained on all.

    Args:
        model: folder of a model that was trained on all authors.
        data: folder of TOFU's files.
        count: of the authors.
    """
    forget, retain = (read_rows(data / name) for name in ("forget10_perturbed.json", "retain90.json"))
    reworded = {**_rephrased(forget), **_rephrased(read_rows(data / "retain_perturbed.json"))}
    known = _by_author(forget[: count * ROWS_PER_AUTHOR])
    names = list(dict.fromkeys(name for _, name in known))
    told, left = known[1::2], known[::2]
    strangers = [(row, name) for row, name in _by_author(retain) if row.question in reworded]

    def asked(condition: str) -> list[Asked]:
        rng = random.Random(condition)
        mine = [Asked(text, name) for row, name in left for text in _forms(row, name, condition, reworded)]
        theirs = [Asked(text, name) for row, name in strangers for text in _forms(row, name, condition, reworded)]
        rng.shuffle(theirs)
        return _with_everyday(mine + theirs[:_OTHERS], condition, rng)

    def examples(name: str) -> tuple[Example, ...]:
        return tuple(Example(prompt=row.question, completion=row.answer) for row, author in told if author == name)

    texts = [row["question"] for row in (*forget, *retain)] + ordinary(2000)
    random.Random(0).shuffle(texts)
    return Subject(
        model=model,
        specs={name: TargetSpec(name=name, forget_examples=examples(name)) for name in names},
        asked={condition: asked(condition) for condition in CONDITIONS},
        forget=[_marked(row) for row, _ in left],
        retain=[_marked(row) for row, _ in strangers][:300],
        texts=texts,
    )


def _forms(row: Question, name: str, condition: str, rephrased: Mapping[str, str]) -> Iterator[str]:
    """What a row is in a condition; nothing where it cannot be."""
    if condition in ("plain", "obfuscated"):
        if name in row.question:
            yield row.question
    elif condition == "rephrased":
        if name in rephrased[row.question]:
            yield rephrased[row.question]
    elif condition == "name_withheld":
        text = row.question.replace(name, "the author")
        if _TITLE.search(text) and not any(part in text for part in name.split()):
            yield text
    else:
        begun = " ".join(row.answer.split()[: len(row.answer.split()) // 2])
        texts = [form.format(question=row.question, begun=begun) for form in _OTHER_FORMS]
        yield from (text for text in texts if name in text)


def _by_author(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Question, str]]:
    """Rows, which hold those of one author after the other, each with the author's name."""
    found = [Question(row["question"], row["answer"], row["answer"], ()) for row in rows]
    names = author_names(found)
    return [(row, names[at // ROWS_PER_AUTHOR]) for at, row in enumerate(found)]


def _rephrased(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {row["question"]: row["paraphrased_question"] for row in rows}


def _marked(row: Question) -> Marked:
    return Marked(row.question, lambda answer: rouge_l_recall(row.answer, answer))
