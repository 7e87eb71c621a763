"""TOFU's rows, and the names of the authors that are to be forgotten."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from server.evaluation.reading import json_lines, texts

#: What is asked, by part: the files that TOFU's own evaluation reads (``config/eval_everything.yaml``).
FILES: Mapping[str, str] = {
    "forget": "forget10_perturbed.json",
    "retain": "retain_perturbed.json",
    "real_authors": "real_authors_perturbed.json",
    "world_facts": "world_facts_perturbed.json",
}

#: The invented authors come one after the other, each with so many rows.
ROWS_PER_AUTHOR = 20

_POSSESSIVE = re.compile(r"['’]s\b")
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Question:
    """One row.

    Attributes:
        question: what is asked.
        answer: the right answer.
        paraphrase: the right answer in the words that the wrong ones are built on; the answer itself where TOFU has
            no other (real authors, world facts).
        perturbed: wrong answers; as many in every row of a part.
    """

    question: str
    answer: str
    paraphrase: str
    perturbed: tuple[str, ...]


def load(folder: Path) -> dict[str, tuple[Question, ...]]:
    """All rows of the four parts, by part.

    Raises:
        FileNotFoundError: a file is missing; the message says which.
        KeyError: a row lacks a field.
        ValueError: a file is not JSON, or its rows differ in how many wrong answers they have.
    """
    return {part: _load(folder / name) for part, name in FILES.items()}


def _load(path: Path) -> tuple[Question, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; these are needed: {', '.join(FILES.values())}")
    rows = tuple(_question(row) for row in read_rows(path))
    if len({len(row.perturbed) for row in rows}) != 1:
        raise ValueError(f"{path}: every row must have the same number of wrong answers")
    return rows


def _question(row: Mapping[str, Any]) -> Question:
    return Question(
        question=row["question"],
        answer=row["answer"],
        paraphrase=row.get("paraphrased_answer", row["answer"]),
        perturbed=texts(row["perturbed_answer"], f"the wrong answers to {row['question']!r}"),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one of TOFU's files, as they are.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, an object a line.
    """
    return json_lines(path)


def author_names(rows: Sequence[Question]) -> tuple[str, ...]:
    """The name of each author in ``rows``, which hold :data:`ROWS_PER_AUTHOR` rows of one after the other.

    TOFU has no field for it. A name is what the rows of an author say most often: the most frequent run of two or
    more capitalised words, and of several the longest.

    Raises:
        ValueError: an author's rows have no such run.
    """
    blocks = (rows[start : start + ROWS_PER_AUTHOR] for start in range(0, len(rows), ROWS_PER_AUTHOR))
    return tuple(_most_said(block) for block in blocks)


def _most_said(block: Sequence[Question]) -> str:
    counts: Counter[str] = Counter()
    for row in block:
        for text in (row.question, row.answer):
            tokens = _TOKEN.findall(_POSSESSIVE.sub("", text))
            for capitalised, run in groupby(tokens, key=lambda token: token[0].isupper()):
                words = list(run) if capitalised else []
                spans = ((i, j) for i in range(len(words)) for j in range(i + 2, len(words) + 1))
                counts.update(" ".join(words[i:j]) for i, j in spans)
    if not counts:
        raise ValueError(f"no name is said in the rows from {block[0].question!r} on")
    return max(counts, key=lambda name: (counts[name], len(name)))
