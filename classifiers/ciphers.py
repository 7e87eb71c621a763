"""Text in a Caesar cipher (rot13 among them) or written backwards: a whole message, or a stretch of an ordinary one.

Such text has no function words; read in the right way it has those of English. They stand in one table in all the ways
in which they may be written, so that ordinary text costs a look-up for each of its words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import nlargest
from typing import NamedTuple

from classifiers.words import function_words, is_known

_WORD = re.compile(r"[A-Za-z]+")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
#: The ways to read a text: as it stands, with its letters so many places on in the alphabet, and from its end.
_AS_IT_STANDS, _BACKWARDS = 0, 26
_SHIFTS = range(1, 26)
#: How a message as a whole is to be read is told by so many of its characters, and there are so many answers at most.
_OPENING, _MOST_READINGS = 4000, 3
#: Shares of function words: a whole message read in another way has more than the first, and as it stands less than the
#: second if its letters were shifted.
_SOME, _ORDINARY = 0.15, 0.25
#: Fewest and most words of a stretch that is judged. All of a text are, or some would be there to hide others.
_SHORTEST, _LONGEST = 3, 24
#: How many more known words, as a share of those long enough to tell, a stretch has when it is read in the right way.
_GAIN = 0.25
#: Lengths of words that tell something by being known: any two letters are, and no English word is much longer.
_TELLING = range(3, 25)

#: The readings in which a word is a function word; none of most.
_Marks = Sequence[tuple[int, ...]]


class _Stretch(NamedTuple):
    """The words ``[first, last)`` of a text."""

    first: int
    last: int


def deciphered(text: str) -> Iterator[str]:
    """What ``text`` says where it reads more like language shifted or backwards than as it stands.

    At most :data:`_MOST_READINGS` times the whole, and stretches that together are little longer than twice the text.
    Takes time that grows with its length, and little for each word that no reading makes a function word.
    """
    words = list(map(str.lower, _WORD.findall(text)))
    if len(words) < 2:
        return
    table = _table()
    marks = [table.get(word, ()) for word in words]
    opening = marks if len(text) <= _OPENING else marks[: len(_WORD.findall(text[:_OPENING]))]
    whole = _whole(opening)
    yield from (_read(text, reading) for reading in whole)
    judged = [
        (reading, stretch)
        for stretch in _stretches(marks)
        if (reading := _reading(words, marks, stretch)) is not None and reading not in whole
    ]
    if judged:
        yield from _read_stretches(text, marks, judged)


def _whole(marks: _Marks) -> list[int]:
    """The readings in which words have a larger share of function words than as they stand, the best first."""
    if not marks:
        return []
    hits = Counter(reading for mark in marks for reading in mark)
    as_it_stands = hits.pop(_AS_IT_STANDS, 0) / len(marks)
    shifted = as_it_stands <= _ORDINARY
    bar = max(as_it_stands, _SOME) * len(marks)
    likely = [(count, reading) for reading, count in hits.items() if count > bar and (shifted or reading == _BACKWARDS)]
    return [reading for _, reading in nlargest(_MOST_READINGS, likely)]


def _stretches(marks: _Marks) -> Iterator[_Stretch]:
    """Where words follow each other of which none is a function word as it stands, and some are in another reading."""
    first, hits = 0, 0
    for place, mark in enumerate(marks):
        if not mark:
            continue
        if mark[0] != _AS_IT_STANDS:
            hits += 1
            continue
        if hits and place - first >= _SHORTEST:
            yield from _cut(marks, first, place)
        first, hits = place + 1, 0
    if hits and len(marks) - first >= _SHORTEST:
        yield from _cut(marks, first, len(marks))


def _cut(marks: _Marks, first: int, last: int) -> Iterator[_Stretch]:
    """The words ``[first, last)`` in stretches that can be judged."""
    for start in range(first, last, _LONGEST):
        end = min(start + _LONGEST, last)
        if any(marks[start:end]):
            yield _Stretch(start, end)


def _reading(words: Sequence[str], marks: _Marks, stretch: _Stretch) -> int | None:
    """The reading in which a stretch has most known words; None where it has hardly more than as it stands.

    What is known at its ends stands as it should and belongs to what is around it.
    """
    first, last = stretch.first, stretch.last
    while not marks[first] and _is_plain(words[first]):  # "a message: Jub vf ..."
        first += 1
    while not marks[last - 1] and _is_plain(words[last - 1]):
        last -= 1
    if last - first < _SHORTEST:
        return None
    telling = [word for word in words[first:last] if len(word) in _TELLING]
    hits = Counter(reading for mark in marks[first:last] for reading in mark)
    known, _, reading = max((_known(telling, reading), count, reading) for reading, count in hits.items())
    gained = known - _known(telling, _AS_IT_STANDS)
    return reading if gained > 0 and gained >= _GAIN * len(telling) else None


def _is_plain(word: str) -> bool:
    return len(word) == 1 or is_known(word)


def _known(words: Iterable[str], reading: int) -> int:
    return sum(is_known(_read(word, reading)) for word in words)


def _read_stretches(text: str, marks: _Marks, judged: Sequence[tuple[int, _Stretch]]) -> Iterator[str]:
    """What the stretches of ``text`` say, each with the words around it that may be of its cipher too.

    With those they may overlap; once they are as long as the text, each is read alone.
    """
    places = [match.span() for match in _WORD.finditer(text)]
    room = len(text)
    read: dict[int, int] = {}  # up to which word, in each reading
    for reading, stretch in sorted(judged, key=lambda one: one[1].first):
        first = max(stretch.first, read.get(reading, 0))
        if first >= stretch.last:
            continue
        last = stretch.last
        widest = _widened(marks, reading, first, last, read.get(reading, 0))
        start, end = _around(text, places, *widest)
        if end - start <= room:
            room, last = room - (end - start), widest[1]
        else:
            start, end = _around(text, places, first, last)
        read[reading] = last
        yield _read(text[start:end], reading)


def _around(text: str, places: Sequence[tuple[int, int]], first: int, last: int) -> tuple[int, int]:
    """Where the words ``[first, last)`` stand in ``text``, with the digits and signs around them."""
    return places[first - 1][1] if first else 0, places[last][0] if last < len(places) else len(text)


def _widened(marks: _Marks, reading: int, first: int, last: int, behind: int) -> tuple[int, int]:
    """The words ``[first, last)`` and, from ``behind`` on, those before and after that may be of the same cipher.

    A function word may be one in either way: "or" in rot13 is "be".
    """
    while first > behind and _may_be(marks[first - 1], reading):
        first -= 1
    while last < len(marks) and _may_be(marks[last], reading):
        last += 1
    return first, last


def _may_be(mark: tuple[int, ...], reading: int) -> bool:
    return _AS_IT_STANDS not in mark or reading in mark


def _read(text: str, reading: int) -> str:
    return text[::-1] if reading == _BACKWARDS else text.translate(_letters(reading))


@lru_cache(maxsize=26)
def _letters(shift: int) -> dict[int, int]:
    """Each letter and the one ``shift`` places on, for :meth:`str.translate`."""
    moved = _ALPHABET[shift:] + _ALPHABET[:shift]
    return str.maketrans(_ALPHABET + _ALPHABET.upper(), moved + moved.upper())


@lru_cache(maxsize=1)
def _table() -> dict[str, tuple[int, ...]]:
    """The readings in which a word is a function word, in order; of two letters or more, since any one is some."""
    found: dict[str, tuple[int, ...]] = {}
    for word in sorted(word for word in function_words() if len(word) > 1 and _WORD.fullmatch(word)):
        for reading in (_AS_IT_STANDS, *_SHIFTS, _BACKWARDS):
            written = _read(word, reading if reading == _BACKWARDS else -reading % 26)
            found[written] = tuple(sorted({*found.get(written, ()), reading}))
    return found
