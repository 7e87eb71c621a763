"""The union of some phrase sets: which phrases begin with what, and which tokens go on with them.

What has been read of a phrase is a prefix of its pattern, and the phrases that begin so are neighbours in the sorted
list of patterns: this list is the trie, and needs no nodes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from guard.decoding.reading import STUCK, TIGHT, Edge, has_stuck
from guard.decoding.rests import Rests, RestTable, Tokens, joined, leads, merged, renumbered, rests
from guard.decoding.tables import LAST, Ids, Span, TokenTable
from guard.decoding.vocabulary import Vocabulary

#: Prefixes that are remembered, and what completes them.
_KEPT = 16384

#: Tables of tokens.
Tables = tuple[TokenTable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """What has been read of some phrases.

    Attributes:
        text: a prefix of their patterns.
        first: the first of the patterns that go on after it, which are neighbours.
        end: the first after those.
    """

    text: str
    first: int
    end: int


class Contained(NamedTuple):
    """Ranges of a token table: the tokens that contain a whole phrase.

    Attributes:
        inside: begun and seen to be over within the token.
        first: begun with the token's first letter, and seen to be over within it.
        inside_ending: begun within the token and ending with it.
        stuck: those of ``first`` whose phrase may begin inside a word, if the letter is a capital.
        inside_ending: begun within the token and ending with it.
        first_ending: the letters of the token.
        stuck_ending: those of ``first_ending`` whose phrase may begin inside a word.
    """

    inside: tuple[Span, ...]
    first: tuple[Span, ...]
    stuck: tuple[Span, ...]
    inside_ending: tuple[Span, ...]
    first_ending: tuple[Span, ...]
    stuck_ending: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class PhraseSet:
    """One target's phrases, joined with the vocabulary.

    Attributes:
        patterns: of the phrases, as ``rests`` number them.
        open_ended: those of them whose phrase letters may follow.
        contained: the tokens that contain one.
        rests: the tokens that complete one.
    """

    patterns: tuple[str, ...]
    open_ended: tuple[str, ...]
    contained: Contained
    rests: Rests

    @classmethod
    def join(cls, patterns: Mapping[str, bool], table: TokenTable) -> PhraseSet:
        """The set of some patterns, given whether they are open-ended."""
        open_ended = tuple(sorted(one for one, is_open in patterns.items() if is_open))
        closed = tuple(sorted(one for one, is_open in patterns.items() if not is_open))
        stuck_closed, stuck_open = (tuple(filter(has_stuck, some)) for some in (closed, open_ended))
        marked_closed, marked_open = (tuple(STUCK + one for one in some) for some in (stuck_closed, stuck_open))
        contained = Contained(
            _known(table.inside, closed + marked_closed) + _filled(table.inside_beginning, open_ended + marked_open),
            _known(table.closing, closed) + _filled(table.beginning, open_ended),
            _known(table.closing, stuck_closed) + _filled(table.beginning, stuck_open),
            _known(table.inside_ending, closed + marked_closed),
            _known(table.ending, closed),
            _known(table.ending, stuck_closed),
        )
        own = rests(closed, open_ended, table)
        return cls(
            closed + open_ended + marked_closed + marked_open,
            open_ended + marked_open,
            contained,
            np.concatenate([own, renumbered(own, closed + open_ended, stuck_closed + stuck_open)]),
        )


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
        rests, ranges = [one.rests for one in sets], np.split(ranks, bounds) if sets else []
        self._rests = RestTable(rests, ranges, len(order), vocabulary.table.order)
        self._contained = (
            Contained(
                *(tuple(chain.from_iterable(spans)) for spans in zip(*(one.contained for one in sets), strict=True))
            )
            if sets
            else Contained((), (), (), (), (), ())
        )
        self.start = Begun("", 0, len(order))
        self.tight = bool(order) and self._patterns[0].startswith(TIGHT)
        self.longest = max(map(len, self._patterns), default=0)
        self._likely = likely_prefixes(self._patterns)
        self._read: dict[str, tuple[Begun | None, bool]] = {}
        self.completing = lru_cache(maxsize=_KEPT)(self._completing)
        self.furthering = lru_cache(maxsize=_KEPT)(self._furthering)
        self.containing = lru_cache(maxsize=1024)(self._containing)

    def __contains__(self, pattern: str) -> bool:
        place = bisect_left(self._patterns, pattern)
        return place < len(self._patterns) and self._patterns[place] == pattern

    def going_on(
        self, live: Iterable[Begun], complete: tuple[str, ...], open_ended: tuple[str, ...]
    ) -> tuple[list[Begun], bool]:
        """What has been read of which phrases after some more text, and whether a phrase ends with it.

        Args:
            live: what had been read before.
            complete: the ways of reading the text in which its last character is a letter.
            open_ended: those in which it is a separator, so that no phrase ends there.
        """
        likely, last = self._likely, len(self._likely) - 1
        found: list[Begun] = []
        pending = False
        for begun in live:
            for way in complete + open_ended:
                if not way:
                    found.append(begun)
                    continue
                prefix = begun.text + way
                if likely[hash(prefix) & last]:
                    after, ends_here = self._read.get(prefix) or self._look_up(prefix, begun)
                    if after is not None:
                        found.append(after)
                    pending = pending or (ends_here and way in complete)
        return found, pending

    def _look_up(self, prefix: str, begun: Begun) -> tuple[Begun | None, bool]:
        """The phrases that go on after ``prefix``, which begins with ``begun``, and whether one ends with it."""
        patterns = self._patterns
        first = place = bisect_left(patterns, prefix, begun.first, begun.end)
        while first < begun.end and patterns[first] == prefix:
            first += 1
        end = bisect_left(patterns, prefix + LAST, first, begun.end)
        if len(self._read) >= _KEPT:
            self._read.clear()
        found = self._read[prefix] = (Begun(prefix, first, end) if first < end else None, first > place)
        return found

    def _completing(self, begun: Begun, tables: Tables, ending: bool) -> Tokens:
        """The tokens by which a phrase that has been begun is complete and seen to be over.

        Args:
            begun: what has been read of it.
            tables: where to look for tokens; the ranges are those of the vocabulary's own.
            ending: ask for those with which such a phrase ends instead.
        """
        ranges: tuple[Span, ...] = ()
        ids: list[Ids] = []
        for table in tables:
            if table is self.vocabulary.table:
                ranges, found = self._rests.tokens(begun.first, begun.end, len(begun.text), ending)
                ids.append(found)
            else:
                ids += self._completing_in(table, begun, ending)
        return Tokens(ranges, joined(ids))

    def _completing_in(self, table: TokenTable, begun: Begun, ending: bool) -> list[Ids]:
        """The same in the table of the tokens that go on with a broken-off character, which are few."""
        spans: set[Span] = set()
        for lead in leads(begun.text):
            known = table.tight_beginnings if lead else table.beginnings
            if begun.end - begun.first <= len(known):
                wholes = self._patterns[begun.first : begun.end]
            else:
                wholes = [begun.text + spelling[len(lead) :] for spelling in known if spelling.startswith(lead)]
                wholes = [whole for whole in wholes if whole in self]
            for whole in wholes:
                spelling = lead + whole[len(begun.text) :]
                if whole not in self._open_ended:
                    spans.add((table.ending if ending else table.closing).get(spelling, (0, 0)))
                elif not ending:
                    spans.add(table.beginning(spelling))
        return [table.ids(span) for span in merged(spans)]

    def _furthering(self, begun: Begun) -> tuple[tuple[int, int, float], ...]:
        """The tokens that spell more of a phrase that has been begun.

        Returns:
            Ranges of the vocabulary's order, each with the share of the pattern that will have been read; of several
            phrases the shortest counts.
        """
        table, read, mark = self.vocabulary.table, len(begun.text), begun.text.startswith((TIGHT, STUCK))
        shares: dict[Span, float] = {}
        for whole in self._patterns[begun.first : begun.end]:
            for lead in leads(begun.text):
                for stop in range(read + 1, min(len(whole), read + table.longest) + 1):
                    span = table.ending.get(lead + whole[read:stop])
                    if span is not None:
                        shares[span] = max((stop - mark) / (len(whole) - mark), shares.get(span, 0.0))
        return tuple((*span, share) for span, share in sorted(shares.items()))

    def _containing(self, tables: Tables, edge: Edge, ending: bool) -> Ids:
        """The tokens that contain a whole phrase, after a text with this edge.

        Args:
            tables: where to look for tokens.
            edge: decides whether the first letter of a token starts a word.
            ending: ask for those with which such a phrase ends instead.
        """
        return joined([self._containing_in(table, edge, ending) for table in tables])

    def _containing_in(self, table: TokenTable, edge: Edge, ending: bool) -> Ids:
        contained = self._contained if table is self.vocabulary.table else self._contained_in(table)
        inside, first, stuck = (_ids(table, spans) for spans in (contained[3:] if ending else contained[:3]))
        ids = [inside, first[table.may_start[edge][first]], stuck[table.capital[stuck]]]
        return np.unique(np.concatenate(ids))

    def _contained_in(self, table: TokenTable) -> Contained:
        open_ended = self._open_ended & (table.beginnings | table.tight_beginnings)
        kinds = (table.closing, table.ending)
        first, first_ending = (tuple(span for text, span in kind.items() if text in self) for kind in kinds)
        stuck, stuck_ending = (tuple(span for text, span in kind.items() if STUCK + text in self) for kind in kinds)
        kinds = (table.inside, table.inside_ending)
        inside, inside_ending = (tuple(span for text, span in kind.items() if text in self) for kind in kinds)
        return Contained(
            inside + tuple(map(table.inside_beginning, self._open_ended & table.inside_beginnings)),
            first + tuple(map(table.beginning, open_ended)),
            stuck + tuple(map(table.beginning, filter(has_stuck, open_ended))),
            inside_ending,
            first_ending,
            stuck_ending,
        )


def _ids(table: TokenTable, spans: Iterable[Span]) -> Ids:
    return joined([table.ids(span) for span in spans])


def _known(spans: Mapping[str, Span], texts: Iterable[str]) -> tuple[Span, ...]:
    return tuple(spans[text] for text in texts if text in spans)


def _filled(spans: Callable[[str], Span], texts: Iterable[str]) -> tuple[Span, ...]:
    return tuple((low, high) for low, high in map(spans, texts) if low < high)


def likely_prefixes(patterns: Sequence[str]) -> bytearray:
    """A table of the hashes of all prefixes: at ``hash(text) & (len(table) - 1)`` there is 1 for each of them.

    That there is 0 for nearly all other texts tells that they are none, faster than the list of patterns.
    """
    count = sum(map(len, patterns))
    table = np.zeros(1 << (2 * count + 1).bit_length(), dtype=np.uint8)
    hashes = (hash(one[:stop]) for one in patterns for stop in range(1, len(one) + 1))
    table[np.fromiter(hashes, dtype=np.int64, count=count) & (len(table) - 1)] = 1
    return bytearray(table.data)
