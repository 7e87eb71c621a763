"""Targets as they stand in the indexes, and the comparison of one window with one of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cachetools import LRUCache

from classifiers.compiled import Compiled
from classifiers.features import Reading, measure, mentions, of_others
from classifiers.results import Hit
from classifiers.windows import Window

#: The cosine that stands for "unknown" when only the lexicon judges; ordinary for unrelated text.
_UNKNOWN_COSINE = 0.1
#: How many texts are remembered for each tenant: the old turns of a conversation come again with every new one.
_SEEN = 4096


@dataclass(frozen=True, eq=False)
class Slot:
    """A target in the indexes. Lives as long as the detector or a view refers to it, and so do its index entries."""

    number: int
    target: Compiled
    sentences: tuple[tuple[str, ...], ...]  # word keys of each evidence sentence
    names: tuple[frozenset[str], ...]  # those of them that are names


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The targets that one tenant may match. Immutable; stays valid when targets are discarded."""

    slots: Mapping[int, Slot]
    names: frozenset[str]  # the slots' numbers as the phrase index spells them
    rows: np.ndarray  # bitmap of their evidence rows
    seen: LRUCache[Hashable, tuple[Hit, ...]] = field(default_factory=lambda: LRUCache(_SEEN))  # what texts said

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(slots=True)
class Pair:
    """A window compared with a target."""

    window: Window
    slot: Slot
    named: bool
    features: np.ndarray
    evidence: str
    of_others: bool  # whether the text has other names where the evidence has its own


def compare(window: Window, reading: Reading, slot: Slot, vectors: np.ndarray | None) -> Pair:
    """Features of one window and one target; ``vectors`` are those of the window's passages."""
    target = slot.target
    named, part = mentions(reading, target)
    cosine, evidence = _UNKNOWN_COSINE, ""
    sentence: tuple[str, ...] = ()
    others = False
    boundary = len(target.evidence) - target.retain
    if vectors is not None and boundary:
        similar = vectors @ target.vectors.T.astype(np.float32)
        column = int(similar[:, :boundary].max(axis=0).argmax())
        cosine, sentence, evidence = float(similar[:, column].max()), slot.sentences[column], target.evidence[column]
        others = of_others(reading, target, sentence, slot.names[column])
        if target.retain:
            cosine -= max(0.0, float(similar[:, boundary:].max()) - cosine)
    if max(part.values()) > 0 or named:
        evidence = target.phrases[0] if target.phrases else evidence
    return Pair(window, slot, named, measure(reading, target, part, cosine, sentence), evidence, others)
