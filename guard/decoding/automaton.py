"""The automaton of a union of phrase sets: how a token moves it, and what each of its positions forbids."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from guard.decoding.reading import TIGHT, Edge, Reading, glyphs, may_start, read
from guard.decoding.tables import Ids, Span, TokenTable
from guard.decoding.union import PhraseUnion


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
    """

    ranges: tuple[tuple[int, int, float], ...]
    lists: tuple[tuple[Ids, float], ...]


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
        reading, partial = self.vocabulary.reading(token, now.partial)
        if reading is not None:
            now = self._step(now, reading)
        return now if partial == now.partial else now._replace(partial=partial)

    def _step(self, now: Position, reading: Reading) -> Position:
        (taken, passed, tight), first = reading.spelling, reading.first
        complete = [*reading.begun_taken]
        open_ended = [*reading.begun_passed]
        short = [*reading.begun_tight] if self.phrases.tight else []
        for begun in now.live:
            if begun.startswith(TIGHT):
                short.append(begun + (tight[1:] if begun.endswith(" ") and tight.startswith(" ") else tight))
            else:
                complete += [begun + way for way in taken]
                open_ended += [begun + way for way in passed]
        if (first.letters or first.maybe) and may_start(now.edge, first):
            complete += taken
            open_ended += filter(None, passed)
            if first.letters and self.phrases.tight:
                short.append(TIGHT + tight)
        for prefix in short:
            (open_ended if prefix.endswith(" ") else complete).append(prefix)
        live: set[str] = set()
        pending, lookup = False, self.phrases.lookup
        for prefix in complete:
            goes_on, ends_here = lookup(prefix)
            pending = pending or ends_here
            if goes_on:
                live.add(prefix)
        live.update(prefix for prefix in open_ended if lookup(prefix)[0])
        return Position(tuple(sorted(live)), pending, reading.edge, now.partial)

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
        lists: list[tuple[Ids, float]] = []
        if now.partial and now.pending:
            ranges.append(table.everything)  # the broken-off character is a word break
        else:
            if now.partial:
                after = self._step(now, _BROKEN_OFF)
            ranges += self._completing(after, table, last)
            lists += [(ids, math.inf) for ids in self._containing(after, table, last)]
        weighted = [(low, high, math.inf) for low, high in ranges]
        if penalty:
            for begun in after.live:
                weighted += [(low, high, penalty * share) for low, high, share in phrases.furthering(begun)]
            lists.append((phrases.containing(table, after.edge, True), penalty))
        table = vocabulary.continuing(now.partial)
        lists += [(table.ids(span), math.inf) for span in self._completing(now, table, last)]
        lists += [(ids, math.inf) for ids in self._containing(now, table, last)]
        if now.pending:
            lists.append((vocabulary.end, math.inf))
            if last:
                lists.append((vocabulary.mute, math.inf))
        return Mask(tuple(weighted), tuple((ids, amount) for ids, amount in lists if len(ids)))

    def _completing(self, now: Position, table: TokenTable, last: bool) -> list[Span]:
        spans: list[Span] = []
        if now.pending:
            spans.append(table.breaks)
            if now.edge is Edge.LOWER:
                spans.append(table.capitals)
            if last:
                spans.append(table.silent)
        for begun in now.live:
            spans += self.phrases.completing(begun, table, False)
            if last:
                spans += self.phrases.completing(begun, table, True)
        return [span for span in spans if span[0] < span[1]]

    def _containing(self, now: Position, table: TokenTable, last: bool) -> list[Ids]:
        found = [self.phrases.containing(table, now.edge, False)]
        if last:
            found.append(self.phrases.containing(table, now.edge, True))
        return found
