"""The union of some phrase sets: which phrases begin with what, and which tokens go on with them.

What has been read of a phrase is a prefix of its pattern, and the phrases that begin so are neighbours in the sorted
list of patterns: this list is the trie, and needs no nodes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from guard.decoding.reading import TIGHT, Edge
from guard.decoding.rests import Rests, RestTable, ids_of, leads, merged, rests
from guard.decoding.tables import LAST, NO_IDS, Ids, Span, TokenTable
from guard.decoding.vocabulary import Vocabulary

#: Ranges of fewer tokens are given token by token: where there are many phrases there are many short ranges, and each
#: would cost more than its tokens.
_SHORT = 512


class Tokens(NamedTuple):
    """Tokens of a vocabulary: ranges of its order, and (n,) int32 ids."""

    ranges: tuple[Span, ...] = ()
    ids: Ids = NO_IDS


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
    """One target's phrases, joined with the vocabulary.

    Attributes:
        closed: the patterns of phrases that are whole words, sorted.
        open_ended: those of phrases that letters may follow, sorted.
        contained: the tokens that contain one.
        rests: the tokens that complete one.
    """

    closed: tuple[str, ...]
    open_ended: tuple[str, ...]
    contained: Contained
    rests: Rests

    @property
    def patterns(self) -> tuple[str, ...]:
        """All of them, as ``rests`` number them."""
        return self.closed + self.open_ended

    @classmethod
    def join(cls, patterns: Mapping[str, bool], table: TokenTable) -> PhraseSet:
        """The set of some patterns, given whether they are open-ended."""
        open_ended = tuple(sorted(one for one, is_open in patterns.items() if is_open))
        closed = tuple(sorted(one for one, is_open in patterns.items() if not is_open))
        by_kind = (table.inside, table.closing, table.inside_ending, table.ending)
        inside, first, *endings = (tuple(kind[one] for one in closed if one in kind) for kind in by_kind)
        inside += tuple(filter(_filled, map(table.inside_beginning, open_ended)))
        first += tuple(filter(_filled, map(table.beginning, open_ended)))
        return cls(closed, open_ended, Contained(inside, first, *endings), rests(closed, open_ended, table))


class PhraseUnion:
    """A union of phrase sets, and what each prefix of their patterns forbids.

    Attributes:
        vocabulary: that of the served model.
        tight: whether any phrase must keep its own word breaks.
        longest: characters of the longest pattern.
    """

    def __init__(self, vocabulary: Vocabulary, sets: Collection[PhraseSet]) -> None:
        self.vocabulary = vocabulary
        patterns = list(chain.from_iterable(one.patterns for one in sets))
        order = sorted(range(len(patterns)), key=patterns.__getitem__)
        self._patterns = [patterns[number] for number in order]
        self._open_ended = frozenset(chain.from_iterable(one.open_ended for one in sets))
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order))
        bounds = np.cumsum([len(one.patterns) for one in sets])[:-1]
        self._rests = RestTable([one.rests for one in sets], np.split(ranks, bounds) if sets else [], len(order))
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

    def lookup(self, prefix: str) -> tuple[bool, bool]:
        """Whether a pattern goes on after ``prefix``, and whether one ends there."""
        patterns = self._patterns
        first = bisect_left(patterns, prefix)
        if first == len(patterns) or not patterns[first].startswith(prefix):
            return False, False
        if len(patterns[first]) > len(prefix):
            return True, False
        end = bisect_right(patterns, prefix, lo=first)
        return end < len(patterns) and patterns[end].startswith(prefix), True

    def _beginning_with(self, prefix: str) -> tuple[int, int]:
        """The patterns that go on after ``prefix``."""
        patterns = self._patterns
        first = bisect_left(patterns, prefix)
        if first < len(patterns) and patterns[first] == prefix:
            first = bisect_right(patterns, prefix, lo=first)
        return first, bisect_left(patterns, prefix + LAST, lo=first)

    def _completing(self, prefix: str, table: TokenTable, ending: bool) -> Tokens:
        """The tokens by which a phrase of which ``prefix`` has been read is complete and seen to be over.

        Args:
            prefix: of a pattern.
            table: where to look for tokens.
            ending: ask for those with which such a phrase ends instead.
        """
        first, end = self._beginning_with(prefix)
        if table is not self.vocabulary.table:
            return self._completing_in(table, prefix, ending)
        spans = self._rests.spans(first, end, len(prefix), ending)
        short = spans[:, 1] - spans[:, 0] < _SHORT
        long = merged([(low, high) for low, high in spans[~short].tolist()])
        return Tokens(tuple(long), ids_of(spans[short], table.order))

    def _completing_in(self, table: TokenTable, prefix: str, ending: bool) -> Tokens:
        """The same in the table of the tokens that go on with a broken-off character, which are few."""
        spans: set[Span] = set()
        for lead in leads(prefix):
            for spelling in table.tight_beginnings if lead else table.beginnings:
                whole = prefix + spelling[len(lead) :]
                if not spelling.startswith(lead) or not self.lookup(whole)[1]:
                    continue
                if whole not in self._open_ended:
                    spans.add((table.ending if ending else table.closing).get(spelling, (0, 0)))
                elif not ending:
                    spans.add(table.beginning(spelling))
        return Tokens(ids=_ids(table, merged(spans)))

    def _furthering(self, prefix: str) -> tuple[tuple[int, int, float], ...]:
        """The tokens that spell more of a phrase of which ``prefix`` has been read.

        Returns:
            Ranges of the vocabulary's order, each with the share of the pattern that will have been read; of several
            phrases the shortest counts.
        """
        table, read, mark = self.vocabulary.table, len(prefix), len(TIGHT) * prefix.startswith(TIGHT)
        shares: dict[Span, float] = {}
        first, end = self._beginning_with(prefix)
        for whole in self._patterns[first:end]:
            for lead in leads(prefix):
                for stop in range(read + 1, min(len(whole), read + table.longest) + 1):
                    span = table.ending.get(lead + whole[read:stop])
                    if span is not None:
                        shares[span] = max((stop - mark) / (len(whole) - mark), shares.get(span, 0.0))
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
        inside, first, *endings = (
            tuple(span for text, span in kind.items() if self.lookup(text)[1]) for kind in by_kind
        )
        inside += tuple(map(table.inside_beginning, self._open_ended & table.inside_beginnings))
        first += tuple(map(table.beginning, self._open_ended & (table.beginnings | table.tight_beginnings)))
        return Contained(inside, first, *endings)


def _ids(table: TokenTable, spans: Iterable[Span]) -> Ids:
    return np.concatenate([NO_IDS, *(table.ids(span) for span in spans)])


def _filled(span: Span) -> bool:
    return span[0] < span[1]
