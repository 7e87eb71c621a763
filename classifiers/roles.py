"""What people are called by what they do: "the mastermind behind", "the star of", "the former head of".

Words of one line stand for each other, so that a description that never names a person can be recognised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_GROUPS = tuple(
    frozenset(line.split())
    for line in (Path(__file__).parent / "roles.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)

ROLE_WORDS = frozenset().union(*_GROUPS)
#: Those of them that say what somebody did, and of things what was done to them.
ROLE_VERBS = frozenset({"wrote", "written", "directed", "founded", "invented", "composed"})
#: What anybody can be called.
PEOPLE = frozenset({"person", "individual", "man", "woman"})
PRONOUNS = frozenset({"he", "she", "they", "his", "her", "their", "him"})
_INDEFINITE = frozenset({"which", "what", "any", "every", "each", "many", "some", "other", "another"})
_DETERMINERS = frozenset(
    {
        "the",
        "this",
        "that",
        "el",
        "la",
        "le",
        "l",
        "der",
        "die",
        "das",
        "o",
        "il",
        "lo",
        "del",
        "du",
        "des",
        "dem",
        "al",
    }
)
#: Words after a role that tell whose it is even without an article before it.
_POINTERS = frozenset({"behind", "known", "famous", "famed", "renowned"})
_ASKING = frozenset({"who", "whom", "whose", "name", "identify", "quién", "qui", "wer"})
_WORD = re.compile(r"[^\W\d_]+")


def roles_of(text: str) -> frozenset[str]:
    """Every role word that could stand for a role word of ``text``."""
    words = set(_WORD.findall(text.lower()))
    return frozenset().union(*(group for group in _GROUPS if group & words))


class Description(NamedTuple):
    """A role by which a text points at somebody definite: "the former star of", never "which star".

    Attributes:
        role: the role word.
        position: its position among the words.
        asked: whether the text asks who that is ("Who is the star of"), rather than something about them.
    """

    role: str
    position: int
    asked: bool


def descriptions(words: Sequence[str]) -> list[Description]:
    """The descriptions in ``words``, which are as written: a capitalised role is part of a title.

    Both shapes count: an article up to five words before the role, or a pointer after it ("author known for").
    """
    found = []
    for index, word in enumerate(words):
        if word not in ROLE_WORDS:
            continue
        before = [w.lower() for w in words[max(0, index - 6) : index]]
        article = max((i for i, w in enumerate(before) if w in _DETERMINERS), default=-1)
        barred = max((i for i, w in enumerate(before) if w in _INDEFINITE), default=-1)
        if article > barred or (barred < 0 and index + 1 < len(words) and words[index + 1] in _POINTERS):
            asked = article >= 0 and any(w in _ASKING for w in before[:article])
            found.append(Description(word, index, asked))
    return found
