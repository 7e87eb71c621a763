"""Finding copies of protected documents in a stream of text, word for word or nearly so.

A document has a run length L. Of its words, as they stand there, at most L may follow each other in a text: the next is
found before it has passed. And 4 L words of a text may have fewer than 2 L different words of one stretch of the
document, counting those that stand in pieces of three or more: it is a copy too where every few words are changed, left
out or put in. Words are compared folded (:mod:`classifiers.word_stream`).

One :class:`VerbatimIndex` serves all targets and tenants; a :class:`VerbatimMatcher` reads one stream on behalf of one
tenant. Adding documents costs their own length (some 3 million words a second), and 12 bytes of memory a word; a
matcher costs a binary search a word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from copy import copy, deepcopy
from functools import lru_cache, partial
from threading import Lock
from typing import TypeAlias

import numpy as np

from classifiers.copies import CopyTracker
from classifiers.grams import GRAM, Grams, gram_of
from classifiers.phrase_matcher import Match
from classifiers.word_stream import FoldedWord, WordStream, folded_words

#: Segments of like size are joined until each is so many times as large as the next.
_GROWTH = 4
#: For so many sets of keys it is remembered what follows from them.
_TENANTS = 256

#: A segment, and the run lengths of its owners: int64 ``(owners,)``, 0 for those that do not count.
_Source: TypeAlias = tuple[Grams, np.ndarray]


class VerbatimIndex:
    """Documents, each owned by a target; grows and shrinks while matchers are reading.

    Writers are serialised by a lock. Readers take none: segments are never changed, and a matcher keeps those that it
    began with.
    """

    def __init__(self) -> None:
        self._segments: tuple[Grams, ...] = ()
        self._runs: dict[str, int] = {}
        self._lock = Lock()
        self._renew()

    def __contains__(self, key: str) -> bool:
        return key in self._runs

    def add(self, key: str, documents: Iterable[str], *, run: int) -> None:
        """Make ``key`` the owner of ``documents``. Adding a known key does nothing.

        Args:
            key: the target.
            documents: their texts.
            run: how many of their words may follow each other in a text, at least 3.

        Raises:
            ValueError: ``run`` is too small.
        """
        if run < GRAM:
            raise ValueError(f"run must be at least {GRAM}")
        with self._lock:
            if key in self._runs:
                return
            grams = Grams.of(key, map(folded_words, documents))
            segments = [*self._segments, grams] if len(grams.hashes) else [*self._segments]
            # Bentley and Saxe's logarithmic method: a lookup in few segments, a word moved a few times in all.
            while len(segments) > 1 and segments[-2].size <= _GROWTH * segments[-1].size:
                segments[-2:] = [segments[-2] + segments[-1]]
            self._runs[key] = run
            self._segments = tuple(segments)
            self._renew()

    def discard(self, key: str) -> None:
        """Forget a key and its documents; unknown keys are ignored."""
        with self._lock:
            self._runs.pop(key, None)
            kept = (one.without(key) if key in one.owners else one for one in self._segments)
            self._segments = tuple(one for one in kept if one.owners)
            self._renew()

    def matcher(self, keys: Collection[str], *, prompt_tail: str = "") -> VerbatimMatcher:
        """A matcher for one stream.

        Args:
            keys: the targets whose documents it may find.
            prompt_tail: the text that the stream continues. A copy begun there counts, what stands there is not found.
        """
        return VerbatimMatcher(self._sources(frozenset(keys)), prompt_tail)

    def find(self, text: str, keys: Collection[str]) -> Match | None:
        """The first copy from documents of ``keys`` in a complete text, or None."""
        matcher = self.matcher(keys)
        return matcher.feed(text) or matcher.finish()

    def _renew(self) -> None:
        # A request must not pay for all targets: what follows from a tenant's keys is worked out once.
        self._sources = lru_cache(maxsize=_TENANTS)(partial(_sources, self._segments, self._runs))


def _sources(segments: Iterable[Grams], runs: Mapping[str, int], keys: Collection[str]) -> tuple[_Source, ...]:
    """The segments in which ``keys`` have documents."""
    found = []
    for grams in segments:
        own = np.array([runs.get(owner, 0) if owner in keys else 0 for owner in grams.owners])
        if own.any():
            found.append((grams, own))
    return tuple(found)


class VerbatimMatcher:
    """Reads one stream of text piece by piece. Positions count characters from the start of the stream."""

    def __init__(self, sources: tuple[_Source, ...], prompt_tail: str = "") -> None:
        self._sources = sources
        self._tracks = [CopyTracker(grams, runs) for grams, runs in sources]
        self._words = WordStream(-len(prompt_tail))
        self._gram: deque[str] = deque(maxlen=GRAM)
        self._starts: deque[int] = deque(maxlen=max((int(runs.max()) for _, runs in sources), default=0) + 1)
        self._text, self._origin = "", -len(prompt_tail)  # from the first of ``starts`` on
        self._count = 0
        self.feed(prompt_tail)

    @property
    def safe(self) -> int:
        """How many characters of the stream can no longer become part of a match: all, or all but the last word."""
        tense = any(track.tense for track in self._tracks)
        return max(0, self._words.settled if tense else self._words.position)

    def feed(self, text: str) -> Match | None:
        """Read the next piece up to the first word that makes a copy, if any, and return that."""
        if not self._tracks:
            self._words.position += len(text)
            return None
        self._text += text
        found = self._judge(self._words.feed(text))
        if self._starts:
            self._text, self._origin = self._text[self._starts[0] - self._origin :], self._starts[0]
        return found

    def finish(self) -> Match | None:
        """Say that the stream has ended; return its last word if it makes a copy."""
        return self._judge(self._words.finish())

    def fork(self) -> VerbatimMatcher:
        """A matcher that has read the same and reads on by itself."""
        fork = copy(self)
        fork._words, fork._gram, fork._starts = copy(self._words), self._gram.copy(), self._starts.copy()
        documents = {id(part): part for source in self._sources for part in source}
        fork._tracks = deepcopy(self._tracks, documents)  # which are shared
        return fork

    def completes(self, text: str) -> bool:
        """Whether ``text``, said instead of the word that was found, would make a copy too."""
        fork = VerbatimMatcher(self._sources)
        before = self._text[: self._starts[-1] - self._origin] if self._starts else ""
        return (fork.feed(before + text) or fork.finish()) is not None

    def _judge(self, words: Iterable[FoldedWord]) -> Match | None:
        for word in words:
            self._gram.append(word.text)
            self._starts.append(word.start)
            self._count += 1
            if len(self._gram) < GRAM:
                continue
            gram = gram_of(self._gram)
            for track in self._tracks:
                key = track.step(gram, self._count)
                if key is not None and word.end > 0:
                    said = self._text[self._starts[0] - self._origin : word.end - self._origin]
                    return Match(word.start, word.end, key, said)
        return None
