"""The union of some phrase sets: which phrases begin with what, and which tokens go on with them.

What has been read of a phrase is a prefix of its pattern, and the phrases that begin so are neighbours in the sorted
list of patterns: this list is the trie, and needs no nodes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from classifiers.phrases import MIN_LOOSE_LETTERS
from classifiers.words import Longer
from guard.decoding.phrase_set import Contained, PhraseSet, contained
from guard.decoding.reading import STUCK, TIGHT, Edge
from guard.decoding.rests import RestTable, Tokens, joined, leads, merged
from guard.decoding.spared import Ids, Others, Spared
from guard.decoding.tables import LAST, NOWHERE, Left, Span, TokenTable
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


class Held(NamedTuple):
    """A whole phrase that ended in the last word of a text, which may be another word.

    Attributes:
        text: its pattern, and the letters of the word that have followed.
        size: of the pattern, in characters.
    """

    text: str
    size: int


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
        self._held: dict[str, Others] = {}
        for pattern, others in chain.from_iterable(one.held.items() for one in sets):
            self._held[pattern] = tuple(dict.fromkeys(self._held.get(pattern, ()) + others))
        self._closed = frozenset(patterns) - self._open_ended - self._held.keys()
        self._contained = {
            left: Contained(
                *(
                    tuple(chain.from_iterable(spans))
                    for spans in zip(*(one.contained[left] for one in sets), strict=True)
                )
            )
            for left in Left
        }
        self.start = Begun("", 0, len(order))
        self.tight = bool(order) and self._patterns[0].startswith(TIGHT)
        self.longest = max(map(len, self._patterns), default=0)
        self._likely = likely_prefixes(self._patterns, self._held)
        self._read: dict[str, tuple[Begun | None, bool, tuple[int, ...]]] = {}
        self.completing = lru_cache(maxsize=_KEPT)(self._completing)
        self.furthering = lru_cache(maxsize=_KEPT)(self._furthering)
        self.containing = lru_cache(maxsize=1024)(self._containing)
        self.spelling = lru_cache(maxsize=16)(self._spelling)
        self._contained_by = lru_cache(maxsize=128)(self._contained_in)

    def __contains__(self, pattern: str) -> bool:
        place = bisect_left(self._patterns, pattern)
        return place < len(self._patterns) and self._patterns[place] == pattern

    def going_on(
        self, live: Iterable[Begun], complete: tuple[str, ...], open_ended: tuple[str, ...], tail: int
    ) -> tuple[list[Begun], bool, list[Held]]:
        """What has been read of which phrases after some more text.

        Args:
            live: what had been read before.
            complete: the ways of reading the text in which its last character is a letter.
            open_ended: those in which it is a separator, so that no phrase ends there.
            tail: the letters of the text's last word.

        Returns:
            What has been read; whether a phrase ends with the text that no letters may follow; and the phrases that
            ended in its last word and that letters may follow.
        """
        likely, last = self._likely, len(self._likely) - 1
        found: list[Begun] = []
        held: list[Held] = []
        pending = False
        for begun in live:
            for way in complete + open_ended:
                if not way:
                    found.append(begun)
                    continue
                prefix = begun.text + way
                if likely[hash(prefix) & last]:
                    after, ends_here, sizes = self._read.get(prefix) or self._look_up(prefix)
                    if after is not None:
                        found.append(after)
                    if way in complete:
                        pending = pending or ends_here
                        held += [Held(prefix, s) for s in sizes if len(begun.text) < s and len(prefix) - s < tail]
        return found, pending, held

    def still_held(self, held: Held, way: str) -> Held | None:
        """What is held when the word goes on with some letters; None where it is no other word."""
        more = held.text + way
        if all(more[held.size :] in longer.beginnings for longer in self._held[held.text[: held.size]]):
            return Held(more, held.size)
        return None

    def spared(self, held: Held, table: TokenTable) -> tuple[Spared, bool]:
        """The tokens that may follow what is held, begun inside its word; and whether the word may end here."""
        more = held.text[held.size :]
        others = self._held[held.text[: held.size]]
        rest = tuple(
            Longer(*(frozenset(one[len(more) :] for one in some if one.startswith(more)) for some in longer))
            for longer in others
        )
        return table.spared("", rest), all(more in longer.words for longer in others)

    def _look_up(self, prefix: str) -> tuple[Begun | None, bool, tuple[int, ...]]:
        """The phrases that go on after ``prefix``; whether one ends with it that no letters may follow; and how long
        those are that it holds, as a part of another word.
        """
        patterns = self._patterns
        first = bisect_right(patterns, prefix)
        end = bisect_left(patterns, prefix + LAST, first)
        sizes = tuple(
            size
            for size in range(MIN_LOOSE_LETTERS, len(prefix) + 1)
            if (others := self._held.get(prefix[:size])) is not None
            and all(prefix[size:] in longer.beginnings for longer in others)
        )
        if len(self._read) >= _KEPT:
            self._read.clear()
        after = Begun(prefix, first, end) if first < end else None
        found = self._read[prefix] = (after, prefix in self._closed, sizes)
        return found

    def _completing(self, begun: Begun, tables: Tables, when: Left) -> Tokens:
        """The tokens by which a phrase that has been begun is complete.

        Args:
            begun: what has been read of it.
            tables: where to look for tokens; the ranges are those of the vocabulary's own.
            when: ask for those that are forbidden from then on.
        """
        ranges: tuple[Span, ...] = ()
        ids: list[Ids] = []
        for table in tables:
            if table is self.vocabulary.table:
                ranges, found = self._rests.tokens(begun.first, begun.end, len(begun.text), when)
                ids.append(found)
            else:
                ids += self._completing_in(table, begun, when)
        return Tokens(ranges, joined(ids))

    def _completing_in(self, table: TokenTable, begun: Begun, when: Left) -> list[Ids]:
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
                if whole in self._closed and when is not Left.LITTLE:
                    spans.add((table.ending if when is Left.LAST else table.closing).get(spelling, NOWHERE))
                if whole in self._open_ended and when is Left.MUCH:
                    spans.add(table.beginning(spelling))
                if (others := self._held.get(whole)) is not None:
                    spans.update(part for left, part in table.carved(spelling, others) if left is when)
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

    def _containing(self, tables: Tables, edge: Edge, when: Left) -> Ids:
        """The tokens that contain a whole phrase, after a text with this edge.

        Args:
            tables: where to look for tokens.
            edge: decides whether the first letter of a token starts a word.
            when: ask for those that are forbidden from then on.
        """
        return joined([self._containing_in(table, edge, when) for table in tables])

    def _containing_in(self, table: TokenTable, edge: Edge, when: Left) -> Ids:
        own = table is self.vocabulary.table
        inside, first, stuck = (_ids(table, s) for s in (self._contained if own else self._contained_by(table))[when])
        ids = [inside, first[table.may_start[edge][first]], stuck[table.capital[stuck]]]
        return np.unique(np.concatenate(ids))

    def _spelling(self, table: TokenTable, edge: Edge) -> Ids:
        """The tokens that end with a whole phrase which they contain, after a text with this edge."""
        inside = [table.inside_ending[one] for one in self._patterns if one in table.inside_ending]
        first = _ids(table, [table.ending[one] for one in self._patterns if one in table.ending])
        return np.union1d(_ids(table, inside), first[table.may_start[edge][first]])

    def _contained_in(self, table: TokenTable) -> dict[Left, Contained]:
        spelt = table.beginnings | table.tight_beginnings | table.inside_beginnings
        spelt |= {STUCK + one for one in table.beginnings}
        held = {one: self._held[one] for one in self._held.keys() & spelt}
        return contained(self._closed & spelt, self._open_ended & spelt, held, table)


def _ids(table: TokenTable, spans: Iterable[Span]) -> Ids:
    return joined([table.ids(span) for span in spans])


def likely_prefixes(patterns: Sequence[str], held: Mapping[str, Others]) -> bytearray:
    """A table of the hashes of all prefixes: at ``hash(text) & (len(table) - 1)`` there is 1 for each of them.

    That there is 0 for nearly all other texts tells that they are none, faster than the list of patterns.

    Args:
        patterns: all.
        held: some of them, with the words that begin so; the beginnings of those count too.
    """
    hashes = [hash(one[:stop]) for one in patterns for stop in range(1, len(one) + 1)]
    hashes += [hash(one + more) for one, others in held.items() for more in others[0].beginnings]
    table = np.zeros(1 << (2 * len(hashes) + 1).bit_length(), dtype=np.uint8)
    table[np.asarray(hashes, dtype=np.int64) & (len(table) - 1)] = 1
    return bytearray(table.data)
