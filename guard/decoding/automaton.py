"""The automaton of a union of phrase sets: how a token moves it, and what each of its positions forbids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from guard.decoding.reading import TIGHT, Edge, Reading, glyphs, may_start, read
from guard.decoding.tables import NO_IDS, Ids, Span, TokenTable
from guard.decoding.union import PhraseUnion, Tokens


class Position(NamedTuple):
    """What counts of the text so far.

    Attributes:
        live: prefixes of patterns: the phrases that have been begun, sorted.
        pending: whether a phrase is complete if the word ends here.
        edge: what the text ends in.
        partial: the bytes of a character that the end of the text breaks off.
    """

    live: tuple[str, ...] = ()
    pending: bool = False
    edge: Edge = Edge.OPEN
    partial: bytes = b""


class Mask(NamedTuple):
    """What is taken off the logits before a token is chosen; infinity forbids the token.

    Attributes:
        ranges: (from, to, amount): half-open ranges of positions in the vocabulary's order.
        lists: (n,) int32 token ids, and the amount that is taken off each.
        forbidden: (n,) int32 token ids that are forbidden beside those. Short ranges stand here token by token: there
            are many of them where there are many phrases, and each would cost more than its tokens.
    """

    ranges: tuple[tuple[int, int, float], ...]
    lists: tuple[tuple[Ids, float], ...]
    forbidden: Ids = NO_IDS


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
        self._fresh = lru_cache(maxsize=65536)(self._first_seen)
        self.mask = lru_cache(maxsize=8192)(self._mask)

    def start(self, prompt_tail: str = "") -> Position:
        """The position of an output that continues a text; a phrase that is complete there is none of the output's."""
        row = glyphs(prompt_tail)
        letters, cut = 0, len(row)
        while cut and letters < self.phrases.longest:  # what begins there or before has the letters of a whole phrase
            cut -= 1
            letters += bool(row[cut].letters)
        now = Position()
        for found in row[cut:]:
            now = self._step(now, _single(found))
        return now._replace(pending=False)

    def advance(self, now: Position, token: int) -> Position:
        """The position after one more token; a token that is not in the vocabulary has no text."""
        reading, fresh = self._fresh(token, now.edge, now.partial)
        if reading is None:
            return now if fresh.partial == now.partial else now._replace(partial=fresh.partial)
        return self._carried(now.live, reading, fresh) if now.live else fresh

    def _first_seen(self, token: int, edge: Edge, partial: bytes) -> tuple[Reading | None, Position]:
        """How a token reads after a text with this end in which no phrase has been begun, and where it leads."""
        reading, partial = self.vocabulary.reading(token, partial)
        fresh = Position(edge=edge) if reading is None else self._begun(edge, reading)
        return reading, fresh._replace(partial=partial)

    def _step(self, now: Position, reading: Reading) -> Position:
        fresh = self._begun(now.edge, reading)._replace(partial=now.partial)
        return self._carried(now.live, reading, fresh)

    def _begun(self, edge: Edge, reading: Reading) -> Position:
        """The phrases that begin in a stretch of text."""
        (taken, passed, tight), first = reading.spelling, reading.first
        complete = [*reading.begun_taken]
        open_ended = [*reading.begun_passed]
        short = [*reading.begun_tight]
        if (first.letters or first.maybe) and may_start(edge, first):
            complete += taken
            open_ended += filter(None, passed)
            if first.letters:
                short.append(TIGHT + tight)
        live, pending = self._alive(complete, open_ended, short)
        return Position(tuple(sorted(live)), pending, reading.edge)

    def _carried(self, live: tuple[str, ...], reading: Reading, fresh: Position) -> Position:
        """``fresh``, and the phrases that were begun before and go on."""
        taken, passed, tight = reading.spelling
        complete: list[str] = []
        open_ended: list[str] = []
        short: list[str] = []
        for begun in live:
            if begun.startswith(TIGHT):
                short.append(begun + (tight[1:] if begun.endswith(" ") and tight.startswith(" ") else tight))
            else:
                complete += [begun + way for way in taken]
                open_ended += [begun + way for way in passed]
        more, pending = self._alive(complete, open_ended, short)
        if not more and not pending:
            return fresh
        return fresh._replace(live=tuple(sorted(more.union(fresh.live))), pending=pending or fresh.pending)

    def _alive(self, complete: list[str], open_ended: list[str], short: list[str]) -> tuple[set[str], bool]:
        """Which of some texts phrases go on after, and whether one ends with one of ``complete``.

        Args:
            complete: texts whose last character is a letter.
            open_ended: texts after which a separator has come.
            short: texts in which the word breaks count.
        """
        lookup = self.phrases.lookup
        for prefix in short if self.phrases.tight else ():
            (open_ended if prefix.endswith(" ") else complete).append(prefix)
        live: set[str] = set()
        pending = False
        for prefix in complete:
            goes_on, ends_here = lookup(prefix)
            pending = pending or ends_here
            if goes_on:
                live.add(prefix)
        live.update(prefix for prefix in open_ended if lookup(prefix)[0])
        return live, pending

    def _mask(self, now: Position, last: bool, penalty: float) -> Mask:
        """What may not come next, and what is penalised.

        Args:
            now: the position.
            last: whether the output ends with the next token whatever it is, as at ``max_tokens``.
            penalty: in logits; how much is taken off a token that carries on a phrase begun by earlier ones, times the
                share of the phrase that will then have been read, or off one that spells a whole phrase at one go.
        """
        vocabulary, phrases = self.vocabulary, self.phrases
        table, after = vocabulary.table, now
        ranges: list[Span] = []
        forbidden: list[Ids] = []
        if now.partial and now.pending:
            ranges.append(table.everything)  # the broken-off character is a word break
        else:
            if now.partial:
                after = self._step(now, _BROKEN_OFF)
            for tokens in self._forbidden(after, table, last):
                ranges += tokens.ranges
                forbidden.append(tokens.ids)
        weighted = [(low, high, math.inf) for low, high in ranges]
        lists: list[tuple[Ids, float]] = []
        if penalty:
            for begun in after.live:
                weighted += [(low, high, penalty * share) for low, high, share in phrases.furthering(begun)]
            if len(spelling := phrases.containing(table, after.edge, True)):
                lists.append((spelling, penalty))
        table = vocabulary.continuing(now.partial)
        for tokens in self._forbidden(now, table, last):
            forbidden += [tokens.ids, *map(table.ids, tokens.ranges)]
        if now.pending:
            forbidden.append(vocabulary.end)
            if last:
                forbidden.append(vocabulary.mute)
        return Mask(tuple(weighted), tuple(lists), np.concatenate([NO_IDS, *forbidden]))

    def _forbidden(self, now: Position, table: TokenTable, last: bool) -> Iterator[Tokens]:
        """The tokens of a table that may not come next."""
        for ending in (False, True) if last else (False,):
            yield Tokens(ids=self.phrases.containing(table, now.edge, ending))
            for begun in now.live:
                yield self.phrases.completing(begun, table, ending)
        if now.pending:
            breaks = [table.breaks]
            if now.edge is Edge.LOWER:
                breaks.append(table.capitals)
            if last:
                breaks.append(table.silent)
            yield Tokens(tuple(span for span in breaks if span[0] < span[1]))
