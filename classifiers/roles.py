"""What people are called by what they do: "the mastermind behind", "the star of", "the former head of".

Words of one line stand for each other, so that a description that never names a person can be recognised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_GROUPS = tuple(
    frozenset(line.split())
    for line in """
    actor actress star performer thespian costar protagonist
    singer vocalist musician songwriter artist performer star rapper frontman frontwoman guitarist bassist drummer pianist composer singersongwriter pop rocker crooner diva entertainer
    author writer novelist creator mastermind storyteller poet playwright screenwriter wordsmith essayist mind
    director filmmaker producer auteur creator mastermind mind screenwriter
    president leader politician statesman stateswoman commander premier minister senator governor chancellor congressman official lawmaker secretary
    businessman businesswoman entrepreneur investor tycoon magnate mogul financier executive ceo chairman chairwoman founder cofounder billionaire philanthropist
    host presenter broadcaster commentator personality podcaster journalist anchor moderator emcee
    athlete player footballer quarterback linebacker passer champion sportsman sportswoman sprinter boxer wrestler fighter swimmer skater gymnast golfer driver coach goalkeeper striker pitcher
    philosopher thinker teacher sage scholar theologian intellectual master
    comedian comic comedienne humorist funnyman
    royal prince princess duchess duke king queen monarch emperor empress heir sovereign ruler
    model supermodel socialite influencer
    activist advocate campaigner reformer
    scientist physicist chemist biologist mathematician inventor engineer astronomer researcher scholar professor
    general admiral soldier officer commander marshal warrior
    painter sculptor artist architect designer photographer
    person individual figure man woman celebrity icon legend youngster teen
    """.strip().split("\n")
)  # fmt: skip

_ROLE_WORDS = frozenset().union(*_GROUPS)
_INDEFINITE = frozenset({"which", "what", "any", "every", "each", "many", "some", "other", "another"})
_DETERMINERS = frozenset({"the", "this", "that", "el", "la", "le", "l", "der", "die", "das", "o", "il", "lo", "del", "du", "des", "dem", "al"})  # fmt: skip
_POINTERS = frozenset(
    "of behind from in who whose known famous famed for responsible recognized celebrated noted with that named renowned"
    " credited associated best playing portraying which".split()
)
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
        index: its position among the words.
        asked: whether the text asks who that is ("Who is the star of"), rather than something about them.
    """

    role: str
    index: int
    asked: bool


def descriptions(words: Sequence[str]) -> list[Description]:
    """The descriptions in ``words``, which are as written: a capitalised role is part of a title.

    Both shapes count: an article up to five words before the role, or a pointer after it ("author known for").
    """
    found = []
    for index, word in enumerate(words):
        if word not in _ROLE_WORDS:
            continue
        before = [w.lower() for w in words[max(0, index - 6) : index]]
        article = max((i for i, w in enumerate(before) if w in _DETERMINERS), default=-1)
        barred = max((i for i, w in enumerate(before) if w in _INDEFINITE), default=-1)
        if article > barred or (barred < 0 and index + 1 < len(words) and words[index + 1] in _POINTERS):
            asked = article >= 0 and any(w in _ASKING for w in before[:article])
            found.append(Description(word, index, asked))
    return found
