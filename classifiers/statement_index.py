"""The statements of all targets, and which of them a clause may state.

The clauses that could state anything are found by words alone, and only those are encoded: nearly none in traffic that
does not speak of a target.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from classifiers.compiled import Compiled
from classifiers.encoder import SentenceEncoder
from classifiers.escapes import unescaped
from classifiers.facts import without_name
from classifiers.features import Reading, mentions
from classifiers.results import Hit
from classifiers.statements import (
    STEM,
    THRESHOLD,
    WORTH_READING,
    Clue,
    Context,
    Statement,
    is_hard,
    key_of,
    latest,
    names_of,
    names_somebody,
    nats_of,
    word_keys,
    words_of,
)
from classifiers.windows import sentences
from classifiers.words import Word, information, is_function_word, is_known, split_words

#: Without the target's name, a clause must tell this share of a statement and so many nats to be looked at.
_SHARE, _TOLD = 0.5, 18.0
#: The rarity from which on a part of a name that is written without capitals names the target.
_RARE = 0.4
#: Of a word that is not whole, so many that it may become are looked up; if there are more, it is held.
_FEW = 64
_GUARD = "statements"


@dataclass(slots=True, eq=False)
class _Entry:
    """A target and what is looked for of it.

    Attributes:
        target: the target.
        names: its names, as sets of word keys.
        rare: keys of those of their words but the first that no dictionary has: surnames that are hardly anybody
            else's, so that "Ola Vesperton" may well be Orla Vesperton.
        rows: the rows of its evidence that tell something.
        known: keys of the names and numbers that they tell; "the person born in Ulmbury" is somebody by them.
        words: key of each word that they tell -> nats.
        statements: what has been read of the rows.
    """

    target: Compiled
    names: tuple[frozenset[str], ...]
    rare: frozenset[str]
    rows: tuple[int, ...]
    known: frozenset[str]
    words: dict[str, float]
    statements: dict[int, Statement] = field(default_factory=dict)

    def statement(self, row: int) -> Statement:
        """The statement of a row."""
        found = self.statements.get(row)
        if found is None:
            found = self.statements[row] = Statement.of(self.target, row)
        return found

    def stated(self, clue: Clue, rows: Iterable[int], *, named: bool) -> list[int]:
        """Those of ``rows`` that a clause may state."""
        agreeing = [row for row in rows if clue.agreement(self.statement(row))]
        return [row for row in agreeing if not self._is_of_others(clue, self.statement(row), named=named)]

    def _is_of_others(self, clue: Clue, statement: Statement, *, named: bool) -> bool:
        if named:
            return clue.passes_by(statement, self.known)
        return clue.is_of_others(statement, self.known) or not clue.is_linked(statement, self.words)

    def is_named(self, words: Sequence[Word]) -> bool:
        """Whether ``words`` name the target, in full or by a telling part of its name."""
        keys = {word.key for word in words}
        if any(name <= keys for name in self.names):
            return True
        if keys.isdisjoint(self.target.parts):
            return False
        if not keys.isdisjoint(self.rare):
            return True
        named, parts = mentions(Reading.of(words), self.target)
        return named or parts["alone"] > 0 or parts["uncased"] > _RARE


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A target that a clause speaks of or may state something of.

    Attributes:
        entry: the target.
        rows: what it may state of it, by words alone; none where it tells nothing.
        named: whether the target is named in the clause or its context.
    """

    entry: _Entry
    rows: Sequence[int]
    named: bool

    @property
    def key(self) -> str:
        """The target's key."""
        return self.entry.target.key

    def texts(self, compared: Sequence[str], question: str) -> Iterator[tuple[list[int], list[str]]]:
        """Rows, and ``compared`` (see :func:`comparable`) as is to be compared with them: as it stands with examples,
        without the target's name with sentences of documents, as they stand in the index (:mod:`classifiers.facts`).
        A question that speaks of the target without its name gets it.
        """
        target, question = self.entry.target, unescaped(question)
        nameless = [without_name(text, split_words(text), target.own) for text in compared]
        if self.named and without_name(question, split_words(question), target.own) == question:
            compared = [*compared[:2], *(f"{target.phrases[0]}: {text}" for text in compared[2:])]
        for texts, example in ((list(compared), True), (nameless, False)):
            if rows := [row for row in self.rows if (target.answers[row] > 0) is example]:
                yield rows, texts


class Stated(NamedTuple):
    """What a clause states: the target and statement, and what each word of the clause tells of it, in nats.

    Words of the question are left out.
    """

    hit: Hit
    told: Mapping[str, float]


class StatementIndex:
    """The statements of all targets; asked on behalf of one tenant at a time.

    ``add`` and ``discard`` may be called from any thread; ``candidates`` and ``judge`` belong to the event loop.

    Args:
        encoder: the one that made the targets' vectors.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._entries: dict[str, _Entry] = {}
        self._by_name: dict[str, set[str]] = {}  # key of a telling word of a name -> target keys
        self._by_word: dict[str, set[tuple[str, int]]] = {}  # key of a word that is told -> target keys and rows
        self._hard: dict[str, set[str]] = {}  # key of a name or number that is told -> target keys
        self._telling: list[str] = []  # all of those words' keys in order, some more than once
        self._lock = Lock()

    def add(self, target: Compiled) -> None:
        """Protect the statements of a target; a known key is left as it is."""
        statements = [Statement.of(target, row) for row in range(len(target.evidence) - target.retain)]
        told = {row: statement.told for row, statement in enumerate(statements)}
        forms = {phrase: form for phrase in target.phrases if (form := split_words(phrase))}
        names = tuple(frozenset(word.key for word in form) for form in forms.values())
        given = {form[0].key for phrase, form in forms.items() if "," not in phrase}
        rare = frozenset(key for key, (rarity, _) in target.parts.items() if rarity >= 1.0) - given
        known = frozenset().union(*(statement.hard for statement in statements))
        rows = tuple(row for row in told if told[row])
        words = {key: nats for statement in statements for key, nats in statement.told.items()}
        entry = _Entry(target, names, rare, rows, known, words)
        with self._lock:
            if target.key in self._entries:
                return
            self._entries[target.key] = entry
            for notes, word, noted in self._places(entry, told):
                if word not in notes:
                    insort(self._telling, word)
                notes.setdefault(word, set()).add(noted)

    def discard(self, key: str) -> None:
        """Protect the statements of a target no longer; unknown keys are ignored."""
        entry = self._entries.get(key)
        if entry is None:
            return
        told = {row: Statement.of(entry.target, row).told for row in entry.rows}
        with self._lock:
            if self._entries.get(key) is not entry:
                return
            del self._entries[key]
            for notes, word, noted in self._places(entry, told):
                notes[word].discard(noted)
                if not notes[word]:
                    del notes[word]
                    del self._telling[bisect_left(self._telling, word)]

    def stating(self, keys: Iterable[str]) -> frozenset[str]:
        """Those of ``keys`` of which any statement is known."""
        return frozenset(key for key in keys if (entry := self._entries.get(key)) is not None and entry.rows)

    def spoken_of(self, messages: Sequence[str], keys: Collection[str]) -> frozenset[str]:
        """The targets of ``keys`` that the last of ``messages`` names or describes by what is known of them; or the one
        before, where that names nobody.
        """
        for message in latest(messages):
            words = words_of(message)
            found = {entry.target.key for entry in self._named(words, keys)}
            found = found or set().union(*(self._described(one, keys) for one in (words, *_sentences(message))))
            if found or names_somebody(words):
                return frozenset(found)
        return frozenset()

    def untold(self, begun: str, keys: Collection[str]) -> int:
        """How many characters of a clause that is not finished tell nothing of ``keys``, however it goes on.

        They end before the first word without which it is no candidate, and before the first name or number of any
        statement; the last word may not be whole, and ends them if it could become such a word.
        """
        if "\\" in begun:
            return 0  # a JSON escape stands for another character
        words = split_words(begun)
        for word in words:
            if self._tells(key_of(word), keys) or self._tells(word.key, keys):
                return word.start
        return words[-1].start if words and self._may_become_telling(words[-1], keys) else len(begun)

    def candidates(self, clause: str, context: Context, keys: Collection[str]) -> list[Candidate]:
        """The targets of ``keys`` that ``clause`` speaks of or may state something of, by words alone; mostly none."""
        words, before = words_of(clause), words_of(context.before)
        about = (self._entries.get(key) for key in context.named if key in keys)
        named = {entry.target.key: entry for entry in (*about, *self._named(words, keys)) if entry is not None}
        agreeing: dict[_Entry, list[int]] = {}
        own = word_keys(words) - context.ignored
        for entry, row in self._told_by(own, own | word_keys(before), keys):
            if entry.target.key not in named:
                agreeing.setdefault(entry, []).append(row)
        if not named and not agreeing:
            return []
        clue = Clue.of(clause, context)
        found = [Candidate(entry, entry.stated(clue, entry.rows, named=True), True) for entry in named.values()]
        others = ((entry, entry.stated(clue, rows, named=False)) for entry, rows in agreeing.items())
        return found + [Candidate(entry, rows, False) for entry, rows in others if rows]

    async def judge(
        self, clause: str, context: Context, candidates: Sequence[Candidate], *, owner: Hashable = None
    ) -> tuple[Stated, ...]:
        """Which candidates' statements ``clause`` states: the best of each target, best first.

        Args:
            clause: what was said.
            context: where.
            candidates: as :meth:`candidates` gives them.
            owner: who takes turns with others at the encoder.

        Raises:
            Exception: whatever the encoder raises.
        """
        candidates = [one for one in candidates if one.rows]
        if not candidates:
            return ()
        clue = Clue.of(clause, context)
        compared = comparable(clause, context, answer=clue.short)
        parts = [(one, *part) for one in candidates for part in one.texts(compared, context.question)]
        vectors = await self._encoder.encode_async([text for *_, texts in parts for text in texts], owner=owner)
        best: dict[str, tuple[float, Statement, str]] = {}
        for (one, rows, _), own in zip(parts, vectors.reshape(len(parts), len(compared), -1), strict=True):
            score, row = _best(one, rows, clue, own)
            if score >= max(THRESHOLD, best[one.key][0] if one.key in best else 0.0):
                best[one.key] = score, one.entry.statement(row), one.entry.target.evidence[row]
        found = [
            Stated(Hit(key, _GUARD, min(1.0, score), THRESHOLD, clause.strip(), evidence), clue.told_of(statement))
            for key, (score, statement, evidence) in best.items()
        ]
        return tuple(sorted(found, key=lambda one: (-one.hit.score, one.hit.key)))

    def _places(
        self, entry: _Entry, told: Mapping[int, Mapping[str, float]]
    ) -> Iterator[tuple[dict[str, set[Any]], str, Any]]:
        """Where an entry is noted: in which dictionary, at which word, and as what. ``told`` is what its rows tell."""
        key = entry.target.key
        yield from ((self._by_name, word, key) for word in _name_words(entry.target))
        yield from ((self._by_word, word, (key, row)) for row in entry.rows for word in _rarest(told[row]))
        yield from ((self._hard, word, key) for word in entry.known)

    def _tells(self, key: str, keys: Collection[str]) -> bool:
        """Whether a word of this key names one of ``keys`` or tells something of it."""
        return (
            any(one in keys for one in tuple(self._hard.get(key, ())))
            or any(one in keys for one, _ in tuple(self._by_word.get(key, ())))
            or any(one in keys for one in tuple(self._by_name.get(key, ())))
        )

    def _may_become_telling(self, begun: Word, keys: Collection[str]) -> bool:
        """Whether a word that begins so could, by its key or, with a digit, as it is written."""
        for start in {begun.key[:STEM], begun.text}:
            with self._lock:  # or words would move while they are looked at
                first = bisect_left(self._telling, start)
                found = self._telling[first : min(first + _FEW, bisect_left(self._telling, start + "\U0010ffff"))]
            if len(found) == _FEW or any(self._tells(key, keys) for key in found):
                return True
        return False

    def _named(self, words: Sequence[Word], keys: Collection[str]) -> list[_Entry]:
        """The entries of ``keys`` that ``words`` name."""
        met = {key for word in words for key in tuple(self._by_name.get(word.key, ()))}
        entries = (self._entries.get(key) for key in met if key in keys)
        return [entry for entry in entries if entry is not None and entry.is_named(words)]

    def _described(self, words: Sequence[Word], keys: Collection[str]) -> set[str]:
        """The targets that ``words`` describe by names and numbers of a statement: "the author of The Tower".

        A name of somebody else ("Edith Ballivor") does so together with another word of the statement ("taught").
        """
        hard, seen = names_of(words), word_keys(words)
        content = nats_of(words).keys() - hard.keys()
        strange = {key_of(word) for word in words if is_hard(word) and not is_known(word.text)}
        found = set()
        for entry, row in self._told_by(hard, seen, keys):
            statement = entry.statement(row)
            meant = {key: nats for key, nats in hard.items() if key in statement.hard}
            if sum(meant.values()) >= max(_TOLD, _SHARE * sum(hard.values())) and (
                meant.keys() - strange or content & (statement.words - statement.hard)
            ):
                found.add(entry.target.key)
        return found

    def _told_by(
        self, own: Collection[str], seen: Collection[str], keys: Collection[str]
    ) -> Iterator[tuple[_Entry, int]]:
        """The statements of ``keys`` of which the words of keys ``seen`` tell much, words of ``own`` among them."""
        for key, row in {place for word in own for place in tuple(self._by_word.get(word, ()))}:
            entry = self._entries.get(key) if key in keys else None
            if entry is not None and _agrees(entry.statement(row), seen):
                yield entry, row


def _sentences(message: str) -> Iterator[Sequence[Word]]:
    """The words of each sentence of a message that has several, without those that are names alone ("B) Ulm Mill")."""
    if len(found := sentences(message)) > 1:
        for words in map(words_of, found):
            if any(len(one.text) > 1 and not (is_hard(one) or is_function_word(one.text)) for one in words):
                yield words


def _agrees(statement: Statement, seen: Collection[str]) -> bool:
    """Whether enough of a statement is told by the words of keys ``seen``."""
    matched = sum(nats for word, nats in statement.told.items() if word in seen)
    return matched >= max(_TOLD, _SHARE * sum(statement.told.values()))


def comparable(clause: str, context: Context, *, answer: bool) -> list[str]:
    """A clause alone, after the one before, and, where it may be an answer to the question, after that."""
    before = ("", context.before, context.question) if answer else ("", context.before)
    return [unescaped(f"{text} {clause}").strip() for text in before]


def _best(candidate: Candidate, rows: Sequence[int], clue: Clue, vectors: np.ndarray) -> tuple[float, int]:
    """The highest score of some of a candidate's rows, and its row.

    Args:
        candidate: what to compare with.
        rows: of it.
        clue: the clause.
        vectors: float32 (2 or 3, dimension), of :meth:`Candidate.texts`.
    """
    entry = candidate.entry
    cosines = entry.target.vectors[rows].astype(np.float32) @ vectors.T
    alone, asked = cosines[:, :2].max(axis=1), cosines[:, -1]
    scores = [
        (clue.score(entry.statement(row), float(alone[at]), float(asked[at]), named=candidate.named), row)
        for at, row in enumerate(rows)
        if cosines[at].max() >= WORTH_READING
    ]
    return max(scores, default=(0.0, -1))


def _name_words(target: Compiled) -> set[str]:
    """Word keys without which the target is not named."""
    rarest = (max(split_words(phrase), key=lambda w: information(w.text), default=None) for phrase in target.phrases)
    return {*target.parts, *(word.key for word in rarest if word is not None)}


def _rarest(told: Mapping[str, float]) -> Iterator[str]:
    """The words of a statement of which a text must have one, or it tells too little of it."""
    rest = sum(told.values())
    enough = max(_TOLD, _SHARE * rest)
    for word, nats in sorted(told.items(), key=lambda item: (-item[1], item[0])):
        if rest < enough:
            break
        yield word
        rest -= nats
