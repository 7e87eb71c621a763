"""Whether a complete text contains one of a target's phrases; what a leak guard would stop."""

from __future__ import annotations

from collections.abc import Iterable

from classifiers.phrase_index import PhraseIndex


def contains(text: str, phrases: Iterable[str]) -> bool:
    """Whether ``text`` contains one of ``phrases`` as whole words, however it is written."""
    index = PhraseIndex()
    index.add("", phrases)
    return index.find(text, {""}) is not None
