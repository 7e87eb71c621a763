"""Does a clause of an output state what is known of a target, if in other words?

A statement is a sentence of a target's description or documents, or the answer of one of its examples. A clause states
it when it is similar to it (sentence encoder) and agrees with it in what it tells: names, numbers, other rare words.
Names and numbers that the statement does not have speak against it, and so does a text that never names the target.
Pronouns and short answers ("In 1950.") are read with the clause before them and with the question.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from classifiers.compiled import Compiled
from classifiers.escapes import unescaped
from classifiers.words import Word, information, is_function_word, is_known, split_words

# The score of a clause is its cosine to the statement, with what follows added. The terms were fitted by logistic
# regression on the paraphrased and the perturbed answers of TOFU's forget10, answers about its retained authors and
# benign text, and divided by the weight of the cosine; ``benchmarks/statements.py`` measures what they come to.
#: The score from which on a clause states a statement.
THRESHOLD = 0.72
#: For agreement: the share of the statement's names and numbers (where it has none, of all its words) that are told.
_AGREEMENT = 0.17
#: For each nat that names and numbers tell which neither the statement nor the context has; so many nats at most.
_FOREIGN, _FOREIGN_MOST = -0.006, 40.0
#: Where neither the clause nor its context names the target.
_UNNAMED = -0.08
#: A clause of at most so many words answers the question. It agrees when of what its words tell at least this share is
#: the statement's, and so many nats are; its cosine is that of question and clause together.
_SHORT, _SHORT_SHARE, _SHORT_TOLD = 8, 0.5, 7.0
#: What names tell that turn the talk to somebody, in nats; of somebody else, where they are not the statement's.
_SOMEBODY = 12.0
#: How much of what is known of a target must be spoken of, in nats, and how many words one name has.
_LINK, _NAME = 9.0, 2
#: Who somebody is tells something only of whom this share of the description is told, in the clause or before it.
_DESCRIBED = 0.3
#: What no statement that scores less by its cosine alone can reach.
WORTH_READING = THRESHOLD - _AGREEMENT

#: How many messages are looked through for whom a conversation speaks of, and how much of each, in characters, where it
#: begins and where it ends.
_MESSAGES, _READ = 16, 1_000
#: The most that one word can tell, in nats.
_WORD_MOST = 12.0
#: Words are compared by their first letters, so that "novel" is found in "novelist".
STEM = 6
#: What stands in evidence for the target's name (see :func:`classifiers.facts.without_name`).
_NAMELESS = re.compile(r"\b[Tt]his person\b")
#: What is written with a capital and names nobody.
_MYSELF = re.compile(r"I['’](m|ve|ll|d)")
_ASKS = re.compile(r"[?？]\W*$")


@dataclass(frozen=True, slots=True)
class Context:
    """What precedes a clause.

    Attributes:
        question: what was asked.
        before: the clause before it.
        named: keys of the targets that the conversation speaks of.
        ignored: keys of words that may be told (see :func:`word_keys`).
        subject: the last message that names anybody or anything (see :func:`subject_of`).
    """

    question: str = ""
    before: str = ""
    named: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement about a target.

    Attributes:
        told: key of each word that the answer tells -> nats; without function words, the question's, and the name's.
        hard: names and numbers among them.
        words: keys of all words in question and answer, and of the target's names.
        described: where the answer is who somebody is, key of each word of the question -> nats.
    """

    told: dict[str, float]
    hard: frozenset[str]
    words: frozenset[str]
    described: dict[str, float]

    @classmethod
    def of(cls, target: Compiled, row: int) -> Statement:
        """Read a row of a target's evidence; one that tells nothing has an empty ``told``."""
        text, start = target.evidence[row], target.answers[row]
        asked, words = split_words(text[:start]), split_words(_NAMELESS.sub("", text[start:]))
        known = word_keys(asked)
        # Where the question does not name the target, its name is the answer, which tells whom the question describes.
        who = bool(start) and all(word.key not in target.parts for word in asked)
        own = frozenset() if who else target.own
        told = [word for word in words if key_of(word) not in known and word.key not in own]
        return cls(
            nats_of(told),
            frozenset(names_of(told)),
            known | word_keys(words) | {key[:STEM] for key in target.own},
            nats_of(asked) if who else {},
        )


@dataclass(frozen=True, slots=True)
class Clue:
    """A clause as words; keys are those of :func:`word_keys`.

    Attributes:
        seen: keys of the clause and of the clause before it.
        own: keys of the clause.
        told: key of each word of the clause -> nats.
        asked: keys of what precedes it.
        names: key of each name and number -> nats.
        others: key of each name and number of the clause and what precedes it -> nats.
        hard: those of ``names`` that the context does not have.
        short: whether it can only be an answer to the question.
        asks: whether it is a question; one that only repeats what was asked states nothing.
    """

    seen: frozenset[str]
    own: frozenset[str]
    told: dict[str, float]
    asked: frozenset[str]
    names: dict[str, float]
    others: dict[str, float]
    hard: dict[str, float]
    short: bool
    asks: bool

    @classmethod
    def of(cls, clause: str, context: Context) -> Clue:
        """Read a clause."""
        words, preceding, question = words_of(clause), words_of(context.before), words_of(context.question)
        before = word_keys(preceding)
        everything = (*words_of(context.subject), *question, *preceding, *words)
        asked = word_keys(question) | before | context.ignored
        own = word_keys(words) - context.ignored
        names = names_of(words)
        return cls(
            seen=own | (before - context.ignored),
            own=own,
            told=nats_of(word for word in words if key_of(word) in own),
            asked=asked,
            names=names,
            others=names_of(everything),
            hard={key: nats for key, nats in names.items() if key not in asked},
            short=len(words) <= _SHORT,
            asks=is_question(clause),
        )

    def agreement(self, statement: Statement) -> float:
        """The share of the statement's names and numbers that the clause tells, and where it is a short answer without
        any, of all its words; 0 where it cannot state it.
        """
        if self.own.isdisjoint(statement.told) or (self.asks and not self.told_of(statement)):
            return 0.0
        described = statement.described
        if described and _share(described, described, self.seen | self.asked) < _DESCRIBED:
            return 0.0
        told = _share(statement.hard or statement.told, statement.told, self.seen)
        # Of "a beekeeper from Dunmarrow" the beekeeper may be all that was asked for.
        return told or (_share(statement.told, statement.told, self.seen) if self._answers(statement) else 0.0)

    def score(self, statement: Statement, alone: float, asked: float, *, named: bool) -> float:
        """How surely the clause states the statement; :data:`THRESHOLD` is where it does.

        Args:
            statement: the statement.
            alone: cosine of the clause, or of it and the one before, to the statement.
            asked: cosine of question and clause together; of no account unless the clause is short.
            named: whether the target is named in the clause or its context.
        """
        agreement = self.agreement(statement)
        if not agreement:
            return 0.0
        foreign = sum(nats for key, nats in self.hard.items() if key not in statement.words)
        score = alone + _AGREEMENT * agreement
        score += _FOREIGN * min(foreign, _FOREIGN_MOST) + (0.0 if named else _UNNAMED)
        if named and self._answers(statement):
            score = max(score, max(alone, asked) + _AGREEMENT)
        return score

    def is_of_others(self, statement: Statement, known: Collection[str]) -> bool:
        """Whether a clause is of somebody else, where neither it nor the context names the target.

        It is when they name somebody who is not among the names ``known`` of the target, and when all that it has of
        the statement had been said before.
        """
        return _strangers(self.others, statement, known) >= _SOMEBODY or not self.told_of(statement)

    def passes_by(self, statement: Statement, known: Collection[str]) -> bool:
        """Whether a clause says nothing of the statement that had not been said, and something of strangers instead."""
        return _strangers(self.hard, statement, known) >= _SOMEBODY and not self.told_of(statement)

    def is_linked(self, statement: Statement, words: Mapping[str, float]) -> bool:
        """Whether a clause or its context has to do with a target that they do not name.

        A name alone ("It is Ulmbury Mill.") says nothing of whoever works there; what else is known of the target
        must be spoken of, or the statement told by more than one name.

        Args:
            statement: the statement that the clause tells.
            words: key of each word of all statements of the target -> nats.
        """
        said = self.asked | (self.own - statement.hard)
        return len(self.own & statement.hard) > _NAME or sum(words.get(key, 0.0) for key in said) >= _LINK

    def told_of(self, statement: Statement) -> dict[str, float]:
        """What the words of the clause tell of the statement that nobody had said before, in nats."""
        return {key: nats for key, nats in statement.told.items() if key in self.own - self.asked}

    def _answers(self, statement: Statement) -> bool:
        """Whether the clause can be an answer to the question that tells what the statement does."""
        if not self.short:
            return False
        matched = sum(nats for key, nats in self.told.items() if key in statement.told)
        strange = sum(nats for key, nats in self.told.items() if key not in statement.words)
        return matched >= _SHORT_TOLD and matched >= _SHORT_SHARE * (matched + strange)


def latest(messages: Sequence[str]) -> Iterator[str]:
    """The last of a conversation's messages, newest first, shortened: what tells whom it speaks of."""
    return map(shortened, reversed(messages[-_MESSAGES:]))


def shortened(message: str) -> str:
    """The beginning and the end of a long message: what is asked stands before what it is asked of, or after it."""
    return message if len(message) <= 2 * _READ else f"{message[:_READ]}\n{message[-_READ:]}"


def subject_of(messages: Sequence[str]) -> str:
    """The last message that :func:`names somebody <names_somebody>`, shortened; empty where none does."""
    return next((text for text in latest(messages) if names_somebody(words_of(text))), "")


def is_question(text: str) -> bool:
    """Whether a sentence ends as questions do."""
    return _ASKS.search(text) is not None


def repeats(clause: str, told: Mapping[str, float]) -> bool:
    """Whether a clause tells at least half of what another one told (see :meth:`Clue.told_of`)."""
    own = word_keys(words_of(clause))
    return bool(told) and 2 * sum(nats for key, nats in told.items() if key in own) >= sum(told.values())


@lru_cache(maxsize=1024)
def words_of(text: str) -> tuple[Word, ...]:
    """The words of a text, JSON escapes undone."""
    return tuple(split_words(unescaped(text)))


def word_keys(words: Iterable[Word]) -> frozenset[str]:
    """The keys under which words are compared."""
    return frozenset(map(key_of, words))


def key_of(word: Word) -> str:
    """The key under which a word is compared: its first letters, a number whole and as written."""
    return word.text if _is_number(word) else word.key[:STEM]


def is_hard(word: Word) -> bool:
    """Whether a word is a name or a number, as far as it can be told from its form."""
    named = word.capital and not (word.opens and is_known(word.text)) and _MYSELF.fullmatch(word.text) is None
    return named or _is_number(word)


def _is_number(word: Word) -> bool:
    return any(map(str.isdigit, word.text))


def nats_of(words: Iterable[Word]) -> dict[str, float]:
    """What each word tells, in nats, by its key; function words are left out."""
    return {key_of(word): min(information(word.text), _WORD_MOST) for word in words if not is_function_word(word.text)}


def names_of(words: Iterable[Word]) -> dict[str, float]:
    """What each name and number among ``words`` tells, in nats, by its key."""
    return nats_of(filter(is_hard, words))


def names_somebody(words: Iterable[Word]) -> bool:
    """Whether ``words`` turn the talk to somebody or something: not by a year, nor by "AI", "English" or a first name
    that many bear.
    """
    return sum(names_of(words).values()) >= _SOMEBODY


def _strangers(names: Mapping[str, float], statement: Statement, known: Collection[str]) -> float:
    """What ``names`` tell, in nats, that are neither the statement's nor ``known``."""
    return sum(nats for key, nats in names.items() if key not in statement.words and key not in known)


def _share(keys: Collection[str], nats: dict[str, float], seen: Collection[str]) -> float:
    """The share of what ``keys`` tell that is in ``seen``."""
    total = sum(nats[key] for key in keys)
    return sum(nats[key] for key in keys if key in seen) / total if total else 0.0
