"""The union of some phrase sets: which phrases begin with what, and which tokens go on with them.

What has been read of a phrase is a prefix of its pattern, and the phrases that begin so are neighbours in the sorted
list of patterns: this list is the trie, and needs no nodes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from guard.decoding.reading import TIGHT, Edge
from guard.decoding.tables import NO_IDS, Ids, Span, TokenTable
from guard.decoding.vocabulary import Vocabulary

#: Greater than every character of a pattern.
_LAST = "\U0010ffff"

#: Looking a pattern up in the sorted list takes about so many times as long as looking a spelling up in a table.
_LOOKUP_COST = 8


class Contained(NamedTuple):
    """Ranges of a token table: the tokens that contain a whole phrase.

    Attributes:
        inside: begun and seen to be over within the token.
        first: begun with the token's first letter, and seen to be over within it.
        inside_ending: begun within the token and ending with it.
        first_ending: the letters of the token.
    """

    inside: tuple[Span, ...]
    first: tuple[Span, ...]
    inside_ending: tuple[Span, ...]
    first_ending: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class PhraseSet:
    """One target's phrases, joined with the vocabulary: their sorted patterns, and the tokens that contain one."""

    patterns: tuple[str, ...]
    contained: Contained

    @classmethod
    def join(cls, patterns: Iterable[str], table: TokenTable) -> PhraseSet:
        """The set of some patterns."""
        ordered = tuple(sorted(set(patterns)))
        by_kind = (table.inside, table.closing, table.inside_ending, table.ending)
        return cls(ordered, Contained(*(tuple(kind[one] for one in ordered if one in kind) for kind in by_kind)))


class PhraseUnion:
    """A union of phrase sets, and what each prefix of their patterns forbids.

    Attributes:
        vocabulary: that of the served model.
        tight: whether any phrase must keep its own word breaks.
        longest: characters of the longest pattern.
    """

    def __init__(self, vocabulary: Vocabulary, sets: Collection[PhraseSet]) -> None:
        self.vocabulary = vocabulary
        self._patterns = sorted(set(chain.from_iterable(one.patterns for one in sets)))
        self._contained = (
            Contained(
                *(tuple(chain.from_iterable(spans)) for spans in zip(*(one.contained for one in sets), strict=True))
            )
            if sets
            else Contained((), (), (), ())
        )
        self.tight = self.lookup(TIGHT)[0]
        self.longest = max(map(len, self._patterns), default=0)
        self.completing = lru_cache(maxsize=65536)(self._completing)
        self.furthering = lru_cache(maxsize=65536)(self._furthering)
        self.containing = lru_cache(maxsize=1024)(self._containing)
        for letter in {one[0] for one in self._patterns}:  # of so many phrases that no request should wait for it
            self.completing(letter, vocabulary.table, False)

    def lookup(self, prefix: str) -> tuple[bool, bool]:
        """Whether a pattern goes on after ``prefix``, and whether one ends there."""
        patterns = self._patterns
        index = bisect_left(patterns, prefix)
        if index == len(patterns):
            return False, False
        if patterns[index] != prefix:
            return patterns[index].startswith(prefix), False
        index += 1
        return index < len(patterns) and patterns[index].startswith(prefix), True

    def _completing(self, prefix: str, table: TokenTable, ending: bool) -> tuple[Span, ...]:
        """The tokens by which a phrase of which ``prefix`` has been read is complete and seen to be over.

        Args:
            prefix: of a pattern.
            table: where to look for tokens.
            ending: ask for those with which such a phrase ends instead.

        Returns:
            Ranges of ``table.order`` that neither meet nor overlap.
        """
        spans = table.ending if ending else table.closing
        phrases, read, leads = self._beginning_with(prefix), len(prefix), _leads(prefix)
        if len(spans) * _LOOKUP_COST < len(phrases):
            return _merged(
                span
                for spelling, span in spans.items()
                for lead in leads
                if spelling.startswith(lead) and self.lookup(prefix + spelling[len(lead) :])[1]
            )
        found = (spans.get(lead + whole[read:]) for lead in leads for whole in phrases)
        return _merged({span for span in found if span is not None})

    def _furthering(self, prefix: str) -> tuple[tuple[int, int, float], ...]:
        """The tokens that spell more of a phrase of which ``prefix`` has been read.

        Returns:
            Ranges of the vocabulary's order, each with the share of the pattern that will have been read; of several
            phrases the shortest counts.
        """
        table, read, mark = self.vocabulary.table, len(prefix), len(TIGHT) * prefix.startswith(TIGHT)
        shares: dict[Span, float] = {}
        for whole in self._beginning_with(prefix):
            for lead in _leads(prefix):
                for end in range(read + 1, min(len(whole), read + table.longest) + 1):
                    span = table.ending.get(lead + whole[read:end])
                    if span is not None:
                        shares[span] = max((end - mark) / (len(whole) - mark), shares.get(span, 0.0))
        return tuple((*span, share) for span, share in sorted(shares.items()))

    def _containing(self, table: TokenTable, edge: Edge, ending: bool) -> Ids:
        """The tokens that contain a whole phrase, after a text with this edge.

        Args:
            table: where to look for tokens.
            edge: decides whether the first letter of a token starts a word.
            ending: ask for those with which such a phrase ends instead.
        """
        contained = self._contained if table is self.vocabulary.table else self._contained_in(table)
        inside = contained.inside_ending if ending else contained.inside
        first = _ids(table, contained.first_ending if ending else contained.first)
        return np.union1d(_ids(table, inside), first[table.may_start[edge][first]])

    def _contained_in(self, table: TokenTable) -> Contained:
        by_kind = (table.inside, table.closing, table.inside_ending, table.ending)
        return Contained(*(tuple(span for text, span in kind.items() if self.lookup(text)[1]) for kind in by_kind))

    def _beginning_with(self, prefix: str) -> list[str]:
        """The patterns that go on after ``prefix``."""
        patterns = self._patterns
        start = bisect_left(patterns, prefix)
        if start < len(patterns) and patterns[start] == prefix:
            start += 1
        return patterns[start : bisect_left(patterns, prefix + _LAST, lo=start)]


def _leads(prefix: str) -> tuple[str, ...]:
    """What the spelling of a token begins with that goes on after ``prefix``."""
    if not prefix.startswith(TIGHT):
        return ("",)
    # Where the separators have come already, more of them change nothing.
    return (TIGHT, TIGHT + " ") if prefix.endswith(" ") else (TIGHT,)


def _ids(table: TokenTable, spans: Iterable[Span]) -> Ids:
    return np.concatenate([NO_IDS, *(table.ids(span) for span in spans)])


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Ranges that meet or overlap made one."""
    merged: list[Span] = []
    for low, high in sorted(spans):
        if merged and merged[-1][1] >= low:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)
