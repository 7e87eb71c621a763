"""Which targets do the words of a text point at? Names as phrases, name parts, titles and dates as terms."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from threading import Lock

from classifiers.compiled import Compiled
from classifiers.features import Reading
from classifiers.phrase_index import PhraseIndex
from classifiers.phrase_matcher import Match
from classifiers.words import Word, is_known

#: A term that points at more targets than this, for a tenant that has that many, tells none of them apart.
_MAX_OWNERS = 256
#: What a part of a name counts for when candidates are ranked, in nats; more than any single word.
_PART = 16.0
#: Name words at least this long are also found with one letter missing, added, wrong or swapped.
_MIN_TYPO_LETTERS = 6


class Lexicon:
    """Names and terms of all targets, each target under the number of its slot.

    Adding and removing a target costs its own size. Readers take no lock: they only intersect sets, which is atomic.
    """

    def __init__(self) -> None:
        self._phrases = PhraseIndex()
        self._terms: dict[str, dict[int, float]] = {}
        self._shapes: dict[str, set[str]] = {}
        self._spellings: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, slot: int, target: Compiled) -> None:
        """Make a target findable."""
        self._phrases.add(str(slot), target.phrases)
        with self._lock:
            for term, told in _weights(target).items():
                self._terms.setdefault(term, {})[slot] = told
            for word in _long_words(target):
                self._spellings[word] += 1
                for shape in _shapes(word):
                    self._shapes[shape] = self._shapes.get(shape, set()) | {word}

    def remove(self, slot: int, target: Compiled) -> None:
        """Take a target away."""
        self._phrases.discard(str(slot))
        with self._lock:
            for term in _weights(target):
                owners = self._terms.get(term, {})
                owners.pop(slot, None)
                if not owners:
                    self._terms.pop(term, None)
            for word in _long_words(target):
                self._spellings[word] -= 1
                if self._spellings[word] <= 0:
                    del self._spellings[word]
                    for shape in _shapes(word):
                        self._shapes[shape] = self._shapes.get(shape, set()) - {word}
                        if not self._shapes[shape]:
                            del self._shapes[shape]

    def named(self, text: str, slots: Collection[str]) -> list[tuple[int, Match]]:
        """Slots named in ``text`` beyond doubt, each with the phrase that names it and where."""
        if not self._phrases.may_hold(text):
            return []
        found: dict[int, Match] = {}
        for match in self._phrases.matcher(slots).every(text):
            found.setdefault(int(match.key), match)
        return list(found.items())

    def candidates(self, reading: Reading, slots: Collection[int], limit: int) -> list[int]:
        """The slots that the words of ``reading`` point at most, best first."""
        score: defaultdict[int, float] = defaultdict(float)
        for gram in reading.grams:
            owners = self._terms.get(gram)
            if owners is None or min(len(owners), len(slots)) > _MAX_OWNERS:
                continue
            for slot in owners.keys() & slots:
                score[slot] += owners.get(slot, 0.0)
        return sorted(score, key=lambda slot: (-score[slot], slot))[:limit]

    def corrected(self, words: Sequence[Word]) -> list[Word]:
        """``words`` with slips in names undone: "Stephn King" is read as "Stephen King".

        A word is taken for a misspelled name word only if it is no English word and stands beside another word of
        the same name, so that somebody else's rare name is left alone.
        """
        found = list(words)
        for index, word in enumerate(words):
            if len(word.key) < _MIN_TYPO_LETTERS - 1 or word.key in self._spellings or is_known(word.text):
                continue
            beside = [words[index - 1]] if index and word.joined else []
            beside += [words[index + 1]] if index + 1 < len(words) and words[index + 1].joined else []
            near = {
                name for shape in _shapes(word.key) for name in self._shapes.get(shape, ()) if _one_slip(word.key, name)
            }
            fitting = [name for name in near if any(self._together(name, other.key) for other in beside)]
            if fitting:
                found[index] = word._replace(key=min(fitting))
        return found

    def _together(self, name: str, other: str) -> bool:
        """Whether some target has both words in its name."""
        return name != other and bool(self._terms.get(name, {}).keys() & self._terms.get(other, {}).keys())


def _weights(target: Compiled) -> dict[str, float]:
    return {**target.terms, **dict.fromkeys(target.parts, _PART)}


def _long_words(target: Compiled) -> list[str]:
    return [key for key in target.own if len(key) >= _MIN_TYPO_LETTERS]


def _shapes(word: str) -> Iterable[str]:
    """``word`` and each way of leaving one letter out (symmetric delete; Garbe, 2012)."""
    return {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}


def _one_slip(left: str, right: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours turns one word into the other."""
    if abs(len(left) - len(right)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    rest, other = left[start:], right[start:]
    return (
        rest[1:] == other[1:]
        or rest[1:] == other
        or rest == other[1:]
        or (rest[:2] == other[:2][::-1] and rest[2:] == other[2:])
    )
