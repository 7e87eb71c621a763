"""Sets of protected phrases, one for each target, shared by all tenants."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from threading import Lock
from weakref import WeakValueDictionary

from classifiers.phrases import forms, is_open_ended, needs_end
from classifiers.words import longer_words
from guard.decoding.automaton import PhraseAutomaton
from guard.decoding.phrase_set import PhraseSet
from guard.decoding.reading import pattern
from guard.decoding.spared import Others
from guard.decoding.union import PhraseUnion
from guard.decoding.vocabulary import Vocabulary


class PhraseSets:
    """Every target's phrases, for one vocabulary; grows and shrinks while decoding goes on.

    A set is joined with the vocabulary once, when it is added. An automaton is made for a union of sets by merging what
    they hold, so adding or removing a target rebuilds no other; it is never changed, so a request ends under the
    phrases that it began with. Writers are serialised by a lock.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._sets: dict[str, PhraseSet] = {}
        self._automata: WeakValueDictionary[frozenset[str], PhraseAutomaton] = WeakValueDictionary()
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._sets

    def add(self, key: str, phrases: Iterable[str]) -> None:
        """Make ``key`` the owner of ``phrases``; what folds to nothing is skipped. Adding a known key does nothing."""
        with self._lock:
            if key not in self._sets:
                patterns: dict[str, Others | None] = {}
                for form in (form for phrase in phrases for form in forms(phrase)):
                    if not (letters := pattern(form)):
                        continue
                    if is_open_ended(form):
                        patterns[letters] = ()
                    elif needs_end(form):
                        patterns.setdefault(letters, None)
                    elif (others := patterns.get(letters)) != ():
                        patterns[letters] = (*(others or ()), longer_words(form))
                self._sets[key] = PhraseSet.join(patterns, self.vocabulary.table)

    def discard(self, key: str) -> None:
        """Forget a key and its phrases; unknown keys are ignored. Automata that are in use keep them."""
        with self._lock:
            self._sets.pop(key, None)
            for keys in [keys for keys in self._automata if key in keys]:
                self._automata.pop(keys, None)

    def automaton(self, keys: Collection[str]) -> PhraseAutomaton:
        """The automaton of a union of sets; the same object for the same keys, for as long as somebody holds it.

        Raises:
            KeyError: there is no such set.
        """
        wanted = frozenset(keys)
        with self._lock:
            found = self._automata.get(wanted)
            if found is None:
                found = PhraseAutomaton(PhraseUnion(self.vocabulary, [self._sets[key] for key in wanted]))
                self._automata[wanted] = found
            return found
