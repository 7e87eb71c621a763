"""Cutting a conversation into stretches that a sentence encoder can judge, losing nothing within a budget."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

#: Where a sentence may end: a stop, question or exclamation mark (with closing quotes), or a line break.
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]]*\s+|\n+")
_WORD = re.compile(r"\S+")

#: Longest window in words and in characters, and how many words two pieces of one long sentence share.
MAX_WORDS, MAX_CHARS, OVERLAP = 48, 400, 12
#: Sentences of fewer words are judged only together with their neighbours.
_MIN_SENTENCE_WORDS = 4


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of text, and what of it is encoded: the whole, and its sentences when it has several."""

    text: str
    passages: tuple[str, ...]


def newest(segments: Sequence[str], budget: int) -> tuple[list[str], int]:
    """The end of a conversation, its texts oldest first, and how many characters lie before it.

    Args:
        segments: the texts, oldest first.
        budget: how many characters to keep.
    """
    kept: list[str] = []
    beyond = 0
    for segment in reversed(segments):
        cut = max(0, len(segment) - budget)
        beyond += cut
        budget -= len(segment) - cut
        kept.append(segment[cut:])
    return [text for text in reversed(kept) if text], beyond


def split(texts: Iterable[str]) -> list[Window]:
    """The distinct windows of texts: neighbouring sentences; what is too long for one is cut with an overlap."""
    return list({window.text: window for text in texts for window in _windows(text)}.values())


def pieces(text: str) -> list[str]:
    """The sentences of a text, each with the white space behind it; joined they are the text."""
    ends = [end.end() for end in _SENTENCE_END.finditer(text)]
    found = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [piece for piece in found if piece]


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped; what stands between them is white space only."""
    return [sentence for piece in pieces(text) if (sentence := piece.strip())]


def _windows(text: str) -> Iterator[Window]:
    """Pack neighbouring sentences; each window after the first opens with the last sentence of the one before."""
    packed: list[str] = []
    room = MAX_WORDS
    for sentence in _pieces(sentences(text)):
        size = sentence.count(" ") + 1
        if packed and (size > room or sum(map(len, packed)) + len(packed) + len(sentence) > MAX_CHARS):
            yield _window(packed)
            carried = packed[-1]
            fits = carried.count(" ") + 1 + size <= MAX_WORDS and len(carried) + 1 + len(sentence) <= MAX_CHARS
            packed = [carried] if fits else []
            room = MAX_WORDS - sum(piece.count(" ") + 1 for piece in packed)
        packed.append(sentence)
        room -= size
    if packed:
        yield _window(packed)


def _window(packed: Sequence[str]) -> Window:
    text = " ".join(packed)
    own = [piece for piece in packed if piece.count(" ") + 1 >= _MIN_SENTENCE_WORDS] if len(packed) > 1 else []
    return Window(text, (text, *own))


def _pieces(found: Iterable[str]) -> Iterator[str]:
    """Sentences that fit a window as they are, longer ones in overlapping pieces."""
    for sentence in found:
        words = [piece for match in _WORD.finditer(sentence) for piece in _chunks(match.group())]
        if len(words) <= MAX_WORDS and len(sentence) <= MAX_CHARS:
            yield " ".join(words)
            continue
        start = 0
        while start < len(words):
            end = _fitting(words, start)
            yield " ".join(words[start:end])
            if end == len(words):
                break
            start = max(end - OVERLAP, start + 1)


def _fitting(words: Sequence[str], start: int) -> int:
    """The end of the longest run from ``start`` that fits a window; at least one word."""
    end, length = start, 0
    while end < len(words) and end - start < MAX_WORDS:
        length += len(words[end]) + 1
        if length > MAX_CHARS + 1 and end > start:
            break
        end += 1
    return end


def _chunks(word: str) -> Iterator[str]:
    """A word without end (a URL, a language without spaces) in half-overlapping runs of characters."""
    size = MAX_CHARS // 2
    if len(word) <= size:
        yield word
        return
    for start in range(0, len(word) - size // 2, size // 2):
        yield word[start : start + size]
