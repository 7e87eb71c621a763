"""The automaton of a union of phrase sets: how a token moves it, and what each of its positions forbids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from guard.decoding.reading import STUCK, TIGHT, Edge, Reading, glyphs, goes_over, may_start, read
from guard.decoding.rests import joined
from guard.decoding.spared import Ids
from guard.decoding.tables import NO_IDS, Left, Span
from guard.decoding.union import Begun, Held, PhraseUnion, Tables


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """What counts of the text so far.

    Attributes:
        live: the phrases that have been begun, sorted.
        pending: whether a phrase is complete if the word ends here.
        held: the phrases that the last word begins with, as long as it may be another word.
        edge: what the text ends in.
        partial: the bytes of a character that the end of the text breaks off.
    """

    live: tuple[Begun, ...] = ()
    pending: bool = False
    edge: Edge = Edge.OPEN
    partial: bytes = b""
    held: tuple[Held, ...] = ()


class Mask(NamedTuple):
    """What is taken off the logits before a token is chosen; infinity forbids the token.

    Attributes:
        ranges: (from, to, amount): half-open ranges of positions in the vocabulary's order.
        lists: (n,) int32 token ids, and the amount that is taken off each.
        forbidden: (n,) int32 token ids that are forbidden beside those. Short ranges stand here token by token: there
            are many of them where there are many phrases, and each would cost more than its tokens.
        only: (n,) int32 token ids, if all others are forbidden.
    """

    ranges: tuple[tuple[int, int, float], ...]
    lists: tuple[tuple[Ids, float], ...]
    forbidden: Ids = NO_IDS
    only: Ids | None = None


#: How one character reads.
_single = lru_cache(maxsize=4096)(lambda found: read((found,)))

#: How a character reads that was broken off.
_BROKEN_OFF = read(glyphs("\ufffd"))


class PhraseAutomaton:
    """Moves from position to position; holds no state of any request.

    Exact: a token is forbidden if, and only if, with its text a phrase would be complete and seen to be over. So the
    letters of a phrase may be spelt, since "art" may yet become "article"; what is then forbidden is to end the word or
    the output. Where the output ends with the next token in any case, completing the letters is forbidden too.
    """

    def __init__(self, phrases: PhraseUnion) -> None:
        self.phrases = phrases
        self.vocabulary = phrases.vocabulary
        self._position = lru_cache(maxsize=16384)(Position)
        self._fresh = lru_cache(maxsize=65536)(self._first_seen)
        self.mask = lru_cache(maxsize=8192)(self._mask)

    def start(self, prompt_tail: str = "") -> Position:
        """The position of an output that continues a text.

        A phrase that is complete there is none of the output's, and the output begins a word: it may be shown alone.
        """
        row = glyphs(prompt_tail)
        letters, cut = 0, len(row)
        while cut and letters < self.phrases.longest:  # what begins there or before has the letters of a whole phrase
            cut -= 1
            letters += bool(row[cut].letters)
        now = self._position((), False, Edge.OPEN, b"", ())
        for found in row[cut:]:
            now = self._step(now, _single(found))
        return self._position(now.live, False, Edge.OPEN, now.partial, ())

    def advance(self, now: Position, token: int) -> Position:
        """The position after one more token; a token that is not in the vocabulary has no text."""
        reading, fresh = self._fresh(token, now.edge, now.partial)
        if reading is None:
            same = fresh.partial == now.partial
            return now if same else self._position(now.live, now.pending, now.edge, fresh.partial, now.held)
        return self._carried(now, reading, fresh) if now.live or now.held else fresh

    def _first_seen(self, token: int, edge: Edge, partial: bytes) -> tuple[Reading | None, Position]:
        """How a token reads after a text with this end in which no phrase has been begun, and where it leads."""
        reading, partial = self.vocabulary.reading(token, partial)
        if reading is None:
            return None, self._position((), False, edge, partial, ())
        return reading, self._begun(edge, reading, partial)

    def _step(self, now: Position, reading: Reading) -> Position:
        return self._carried(now, reading, self._begun(now.edge, reading, now.partial))

    def _begun(self, edge: Edge, reading: Reading, partial: bytes) -> Position:
        """The phrases that begin in a stretch of text."""
        (taken, passed, tight), first = reading.spelling, reading.first
        complete, open_ended, short = reading.begun_taken, reading.begun_passed, reading.begun_tight
        if (first.letters or first.maybe) and may_start(edge, first):
            complete += taken
            open_ended += tuple(filter(None, passed))
            if first.letters:
                short += (TIGHT + tight,)
        elif first.upper:
            complete += tuple(STUCK + way for way in taken)
            open_ended += tuple(STUCK + way for way in passed if way)
        if self.phrases.tight:
            complete += tuple(way for way in short if not way.endswith(" "))
            open_ended += tuple(way for way in short if way.endswith(" "))
        live, pending, held = self.phrases.going_on((self.phrases.start,), complete, open_ended, reading.tail)
        return self._position(_sorted(live), pending, reading.edge, partial, _once(held))

    def _carried(self, now: Position, reading: Reading, fresh: Position) -> Position:
        """``fresh``, and the phrases that were begun before and go on."""
        taken, passed, tight = reading.spelling
        if not self.phrases.tight:
            more, pending, held = self.phrases.going_on(now.live, taken, passed, reading.tail)
        else:
            loose = (one for one in now.live if one.text[0] != TIGHT)
            more, pending, held = self.phrases.going_on(loose, taken, passed, reading.tail)
            for begun in (one for one in now.live if one.text[0] == TIGHT):
                way = tight[1:] if begun.text.endswith(" ") and tight.startswith(" ") else tight
                ends = (begun.text + way).endswith(" ")
                found, over, _ = self.phrases.going_on((begun,), () if ends else (way,), (way,) if ends else (), 0)
                more, pending = more + found, pending or over
        if now.held and reading.unbroken and reading.first.letters and not goes_over(now.edge, reading.first):
            held += filter(None, (self.phrases.still_held(one, taken[0]) for one in now.held))
        if not more and not pending and not held:
            return fresh
        live = _sorted([*more, *fresh.live])
        return self._position(live, pending or fresh.pending, fresh.edge, fresh.partial, _once([*held, *fresh.held]))

    def _mask(self, now: Position, left: Left, penalty: float) -> Mask:
        """What may not come next, and what is penalised.

        Args:
            now: the position.
            left: how much of the output is left, the next token included.
            penalty: in logits; how much is taken off a token that carries on a phrase begun by earlier ones, times the
                share of the phrase that will then have been read, or off one that spells a whole phrase at one go.
        """
        vocabulary, after = self.vocabulary, now
        table, continuing = vocabulary.table, vocabulary.continuing(now.partial)
        if not now.partial:
            ranges, ids = self._forbidden(now, (table, continuing), left)
        elif now.pending:
            ranges, ids = [table.everything], self._forbidden(now, (continuing,), left)[1]  # either way the word ends
        else:
            after = self._step(now, _BROKEN_OFF)
            ranges, ids = self._forbidden(after, (table,), left)
            ids += self._forbidden(now, (continuing,), left)[1]
        if now.pending:
            ids.append(vocabulary.end)
            if left is Left.LAST:
                ids.append(vocabulary.mute)
        weighted = [(low, high, math.inf) for low, high in ranges]
        lists: list[tuple[Ids, float]] = []
        if penalty:
            for begun in after.live:
                weighted += [(low, high, penalty * share) for low, high, share in self.phrases.furthering(begun)]
            if len(spelling := self.phrases.spelling(table, after.edge)):
                lists.append((spelling, penalty))
        only = self._only(now, (table, continuing), left) if now.held else None
        return Mask(tuple(weighted), tuple(lists), joined(ids), only)

    def _forbidden(self, now: Position, tables: Tables, left: Left) -> tuple[list[Span], list[Ids]]:
        """The tokens of some tables that may not come next: ranges of the vocabulary's order, and ids."""
        ranges: list[Span] = []
        ids: list[Ids] = []
        for when in tuple(Left)[: left + 1]:
            ids.append(self.phrases.containing(tables, now.edge, when))
            for begun in now.live:
                tokens = self.phrases.completing(begun, tables, when)
                ranges += tokens.ranges
                ids.append(tokens.ids)
        for table in tables if now.pending else ():
            breaks = [*table.breaks[now.edge], *([table.silent] if left is Left.LAST else [])]
            if table is self.vocabulary.table:
                ranges += breaks
            else:
                ids += map(table.ids, breaks)
        return ranges, ids

    def _only(self, now: Position, tables: Tables, left: Left) -> Ids:
        """The tokens by which the last word becomes, or stays, another word than the phrases that it begins with.

        Characters then come whole: one that is broken off could turn out to be one that no such word has.
        """
        vocabulary, allowed = self.vocabulary, None
        for held in now.held:
            some: list[Ids] = []
            for table in tables:
                spared, may_end = self.phrases.spared(held, table)
                breaks = joined([table.ids(span) for span in table.breaks[now.edge]])
                some.append(np.setdiff1d(spared.words if left is Left.LAST else spared.begun, breaks))
                if may_end:
                    some.append(breaks)
                if may_end or left is Left.MUCH:
                    silent = table.ids(table.silent)
                    some.append(silent[~table.broken[silent]])
            if may_end:
                some += [vocabulary.end, vocabulary.mute]
            elif left is Left.MUCH:
                some.append(vocabulary.mute)
            ids = joined(some)
            allowed = ids if allowed is None else np.intersect1d(allowed, ids)
        assert allowed is not None
        return allowed


def _sorted(live: list[Begun]) -> tuple[Begun, ...]:
    return tuple(live) if len(live) < 2 else tuple(sorted(set(live), key=attrgetter("text")))


def _once(held: list[Held]) -> tuple[Held, ...]:
    return tuple(held) if len(held) < 2 else tuple(sorted(set(held)))
