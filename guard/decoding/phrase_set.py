"""One target's phrases, joined with the vocabulary: which tokens contain one, and which complete one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from guard.decoding.reading import STUCK, has_stuck
from guard.decoding.rests import Rests, renumbered, rests
from guard.decoding.spared import Others
from guard.decoding.tables import NOWHERE, Left, Span, TokenTable


class Contained(NamedTuple):
    """Ranges of a token table: the tokens that contain a whole phrase and are forbidden therefore.

    Attributes:
        inside: begun within the token.
        first: begun with the token's first letter.
        stuck: those of ``first`` whose phrase may begin inside a word, if the letter is a capital.
    """

    inside: tuple[Span, ...] = ()
    first: tuple[Span, ...] = ()
    stuck: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class PhraseSet:
    """One target's phrases, joined with the vocabulary.

    Attributes:
        patterns: of the phrases, as ``rests`` number them.
        open_ended: those of them whose phrase counts whatever letters follow.
        held: those with which letters may follow that make them other words, and how those go on.
        contained: the tokens that contain one, by how much of the output is left.
        rests: the tokens that complete one.
    """

    patterns: tuple[str, ...]
    open_ended: tuple[str, ...]
    held: Mapping[str, Others]
    contained: Mapping[Left, Contained]
    rests: Rests

    @classmethod
    def join(cls, patterns: Mapping[str, Others | None], table: TokenTable) -> PhraseSet:
        """The set of some patterns, given how other words go on that begin with them.

        Args:
            patterns: None with one after which a word must end; no words at all where it counts whatever follows.
            table: of the vocabulary.
        """
        closed = tuple(sorted(one for one, others in patterns.items() if others is None))
        held = {one: others for one, others in sorted(patterns.items()) if others and all(o.words for o in others)}
        open_ended = tuple(sorted(patterns.keys() - held.keys() - set(closed)))
        own, plain = rests(closed, open_ended, held, table), (*closed, *open_ended, *held)
        stuck = tuple(filter(has_stuck, (*open_ended, *held)))  # the closed ones are too short for that
        open_ended += tuple(STUCK + one for one in stuck if one not in held)
        held |= {STUCK + one: held[one] for one in stuck if one in held}
        return cls(
            (*plain, *(STUCK + one for one in stuck)),
            open_ended,
            held,
            contained(closed, open_ended, held, table),
            np.concatenate([own, renumbered(own, plain, stuck)]),
        )


def contained(
    closed: Iterable[str], open_ended: Iterable[str], held: Mapping[str, Others], table: TokenTable
) -> dict[Left, Contained]:
    """The tokens of a table that contain one of some phrases, given by their patterns as in :class:`PhraseSet`."""
    found: dict[Left, tuple[list[Span], list[Span], list[Span]]] = {left: ([], [], []) for left in Left}

    def add(left: Left, pattern: str, inside: Span, first: Span) -> None:
        if inside[0] < inside[1]:
            found[left][0].append(inside)
        if first[0] < first[1]:
            found[left][2 if pattern.startswith(STUCK) else 1].append(first)

    for one in closed:
        add(Left.MUCH, one, table.inside.get(one, NOWHERE), table.closing.get(one, NOWHERE))
        add(Left.LAST, one, table.inside_ending.get(one, NOWHERE), table.ending.get(one, NOWHERE))
    for one in open_ended:
        add(Left.MUCH, one, table.inside_beginning(one), table.beginning(one.removeprefix(STUCK)))
    for one, others in held.items():
        letters = one.removeprefix(STUCK)
        for left, part in table.carved(one, others, True):
            add(left, one, part, NOWHERE)
        for left, part in table.carved(letters, others):
            add(left, one, NOWHERE, part)
    return {left: Contained(*map(tuple, spans)) for left, spans in found.items()}
