"""Cutting a stream of text into clauses, as it comes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from classifiers.naming import SUFFIXES, TITLES

#: Where a clause may end: after a stop or semicolon (with closing marks) before white space, a line break, also one
#: that is escaped inside a JSON string, and after a JSON value that is a string.
_BORDER = re.compile(
    r"""[.!?…;]+["'”’)\]*_]{0,3}(?=\s)   # "He left." "They stay; she goes."
      | [。！？；][」』”"]?
      | \n | \\n
      | "[ ]?[,}\]]                      # {"born": "1950", "town": "Hull"}""",
    re.VERBOSE,
)
_WIDE_STOPS = frozenset("。！？；")
#: How much text beyond a place must be known before it is certain that no clause ends there.
_LOOKAHEAD = 16
_LAST_WORD = re.compile(r"[^\W_]+$")
_ABBREVIATIONS = TITLES | SUFFIXES | {"mt", "vs", "no", "vol", "inc", "ltd", "etc"}

#: Longest clause, in characters; what is longer is cut between words.
MAX_CLAUSE = 320


@dataclass(frozen=True, slots=True)
class Clause:
    """``text`` stands at ``[start, end)`` of the stream, in characters; it holds a letter or a digit."""

    start: int
    end: int
    text: str


class ClauseSplitter:
    """Reads one stream piece by piece. However the stream is cut into pieces, the clauses are the same.

    Every character belongs to one clause or to a stretch without letters and digits; white space between two clauses
    belongs to the later one, so that a token that begins with a space does too.
    """

    def __init__(self) -> None:
        self._start = 0
        self._text = ""  # from self._start on

    @property
    def start(self) -> int:
        """Where the clause begins that is not finished yet."""
        return self._start

    def feed(self, text: str) -> list[Clause]:
        """Read the next piece; the clauses that it finishes."""
        self._text += text
        return self._cut(final=False)

    def finish(self) -> list[Clause]:
        """Say that the stream has ended; the clauses that this finishes."""
        found = self._cut(final=True)
        if self._text:
            found += self._take(len(self._text))
        return found

    def _cut(self, *, final: bool) -> list[Clause]:
        found: list[Clause] = []
        while (end := self._end(final=final)) is not None:
            found += self._take(end)
        return found

    def _end(self, *, final: bool) -> int | None:
        """How many characters the first clause has; None while that cannot be told."""
        for border in _BORDER.finditer(self._text, 0, MAX_CLAUSE + _LOOKAHEAD):
            if border.end() > MAX_CLAUSE:
                break
            if not final and border.end() == len(self._text) and border.group() in _WIDE_STOPS:
                return None  # its closing mark may be still to come
            if not self._abbreviates(border.start()):
                return border.end()
        known = len(self._text) - (0 if final else _LOOKAHEAD)
        if known < MAX_CLAUSE:
            return None
        space = max(self._text.rfind(" ", 1, MAX_CLAUSE), 0)
        return space or MAX_CLAUSE

    def _abbreviates(self, at: int) -> bool:
        """Whether the full stop at ``at`` belongs to an initial or a title: "J. Smith", "Dr. Smith"."""
        word = _LAST_WORD.search(self._text, max(0, at - 8), at) if self._text[at] == "." else None
        if word is None:
            return False
        return word.group().lower() in _ABBREVIATIONS or (len(word.group()) == 1 and word.group().isupper())

    def _take(self, size: int) -> list[Clause]:
        text, start = self._text[:size], self._start
        self._text, self._start = self._text[size:], start + size
        return [Clause(start, start + size, text)] if any(map(str.isalnum, text)) else []


def split_clauses(text: str) -> list[Clause]:
    """The clauses of a complete text."""
    splitter = ClauseSplitter()
    return [*splitter.feed(text), *splitter.finish()]
