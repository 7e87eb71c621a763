"""Which ordinary prompts speak of a target after all, so that nothing is calibrated on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from classifiers.naming import TELLING
from classifiers.phrase_index import PhraseIndex
from classifiers.words import information, is_function_word, split_words
from guard.types import TargetSpec


def mentions(spec: TargetSpec) -> Callable[[str], bool]:
    """A test of whether a text names a target: by its name, by an alias, or by a part of one that tells something.

    All are compared at word boundaries, whatever the case. Parts of one or two letters and words of grammar tell
    nothing: "the" of "The Lord of the Rings" is in every other prompt. So is a name that is such a word alone ("It").
    """
    names = [spec.name, *spec.aliases]
    index = PhraseIndex()
    index.add("", [*(name for name in names if not is_function_word(name.strip())), *telling_parts(names)])
    return lambda text: index.find(text, ("",)) is not None


def telling_parts(names: Iterable[str]) -> list[str]:
    """The parts of names that tell something: neither words of grammar nor others that are in every other text."""
    return [part for name in names for part in name.split() if _tells(part)]


def _tells(part: str) -> bool:
    words = (word.text for word in split_words(part))  # "Half-Blood", "Potter," and "(the"
    return any(len(word) > 2 and not is_function_word(word) and information(word) > TELLING for word in words)
