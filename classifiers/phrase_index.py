"""Finding protected phrases in a stream of text, for many targets at once.

A phrase matches when its letters appear in order from the start of a word on, whatever lies between the letters: case,
Unicode form, look-alikes, digits for letters, hyphens, spaces, zero-width characters and JSON escapes do not hide
it (see :mod:`classifiers.folding`). A word starts and ends at a separator, between a small letter and a capital, and
between a letter and a digit; long phrases (:mod:`classifiers.phrases`) start at every capital ("AStephen King").
"rapist" is not found in "therapist". Letters that follow do not hide a phrase either ("brewerx"), unless they make it
another word ("brewery"); short phrases need a word's end ("art", "artx").
A stream begins at the start of a word, whatever it continues: it may be shown alone.

One :class:`PhraseIndex` serves all targets and tenants; a :class:`PhraseMatcher` reads one stream on behalf of one
tenant and sees only the phrases of that tenant's targets. Adding a phrase costs its own length, however many there
are already; a matcher costs a few dictionary look-ups per character.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from threading import Lock

from classifiers.folding import squeeze
from classifiers.phrase_matcher import Match, PhraseMatcher, may_complete
from classifiers.phrase_tree import Node
from classifiers.phrases import forms


class PhraseIndex:
    """A set of phrases, each owned by a target; grows and shrinks while matchers are reading.

    Writers are serialised by a lock. Readers take none, see :class:`classifiers.phrase_tree.Node`.
    """

    def __init__(self) -> None:
        self._root = Node("")
        self._phrases: dict[str, tuple[str, ...]] = {}
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._phrases

    def add(self, key: str, phrases: Iterable[str]) -> None:
        """Make ``key`` the owner of ``phrases``; what folds to nothing is skipped. Adding a known key does nothing."""
        with self._lock:
            if key in self._phrases:
                return
            self._phrases[key] = kept = tuple(dict.fromkeys(phrase for phrase in phrases if squeeze(phrase)))
            for phrase in kept:
                for form in forms(phrase):
                    self._root.insert(form, key, phrase)

    def discard(self, key: str) -> None:
        """Forget a key and its phrases; unknown keys are ignored."""
        with self._lock:
            for phrase in self._phrases.pop(key, ()):
                for form in forms(phrase):
                    self._root.remove(form, key)

    def phrases(self, key: str) -> tuple[str, ...]:
        """The phrases of a key; none of an unknown one."""
        return self._phrases.get(key, ())

    def matcher(self, keys: Collection[str], *, prompt_tail: str = "", ignored: Collection[str] = ()) -> PhraseMatcher:
        """A matcher for one stream.

        Args:
            keys: the targets whose phrases it may find.
            prompt_tail: the text that the stream continues; a phrase begun there counts, one that ends there does not.
            ignored: phrases that it shall not find.
        """
        return PhraseMatcher(self._root, frozenset(keys), prompt_tail, frozenset(ignored))

    def may_hold(self, text: str) -> bool:
        """Whether a complete text may hold a phrase of any key. A no is certain, and much cheaper than a matcher's."""
        return may_complete(text, self._root, ())

    def find(self, text: str, keys: Collection[str]) -> Match | None:
        """The first phrase of ``keys`` in a complete text, or None."""
        if not self.may_hold(text):
            return None
        matcher = self.matcher(keys)
        return matcher.feed(text) or matcher.finish()

    def said(self, text: str, keys: Collection[str]) -> frozenset[str]:
        """All phrases of ``keys`` that occur in a complete text, which is read once."""
        if not self.may_hold(text):
            return frozenset()
        return frozenset(match.phrase for match in self.matcher(keys).every(text))
