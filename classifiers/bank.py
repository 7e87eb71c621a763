"""Benign prompts as the detector sees them, encoded once per encoder and kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from platformdirs import user_cache_dir

from classifiers.benign import prompts
from classifiers.compiled import Compiled
from classifiers.encoder import SentenceEncoder
from classifiers.features import Reading, measure, mentions
from classifiers.head import Head
from classifiers.phrase_index import PhraseIndex
from classifiers.windows import split
from classifiers.words import split_words

logger = logging.getLogger(__name__)

#: How many prompts are scored in full for a target: those nearest to it by words and by meaning. The others score
#: lower than these, and the tail that calibration looks at is shorter than this.
_NEAREST = 80


class BenignBank:
    """What ordinary traffic looks like to a target.

    Args:
        encoder: the encoder whose embeddings to use.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        windows = [split([prompt]) for prompt in prompts()]
        self._texts = prompts()
        self._prompt = np.array([i for i, found in enumerate(windows) for _ in found])
        self._readings = [Reading.of(split_words(window.text)) for found in windows for window in found]
        passages = [passage for found in windows for window in found for passage in window.passages]
        sizes = [len(window.passages) for found in windows for window in found]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._window_of = np.repeat(np.arange(len(sizes)), sizes)
        self._vectors = _cached(passages, encoder)
        self._grams: dict[str, list[int]] = {}
        for index, reading in enumerate(self._readings):
            for gram in reading.grams:
                self._grams.setdefault(gram, []).append(index)

    def cosines(self, vectors: np.ndarray) -> np.ndarray:
        """Best cosine of each window to any of ``vectors``, float ``(n, dimension)``; float32 ``(windows,)``."""
        if not len(vectors):
            return np.zeros(len(self._readings), np.float32)
        best = (self._vectors @ vectors.astype(np.float32).T).max(axis=1)
        return np.maximum.reduceat(best, self._starts)

    def cap(self, term: str) -> float:
        """The most that meeting ``term`` can tell, in nats, given how many of the prompts have it; inf if none has."""
        found = len(self._grams.get(term, ()))
        return math.log(len(self._readings) / found) if found else math.inf

    def logits(self, target: Compiled, head: Head, cosines: np.ndarray) -> np.ndarray:
        """The logits that the prompts get for ``target``, float64 ``(prompts,)``.

        Prompts that name it are left out, and those that were not scored because they are far from it get -inf.
        ``cosines`` are those of :meth:`cosines` to its evidence.
        """
        evidence = len(target.evidence) - target.retain
        forget = target.vectors[:evidence].astype(np.float32)
        told: Counter[int] = Counter()
        for term, nats in {**target.terms, **dict.fromkeys(target.parts, 16.0)}.items():
            told.update(dict.fromkeys(self._grams.get(term, ()), nats))
        nearest = {int(i) for i in np.argsort(-cosines)[:_NEAREST]} | {i for i, _ in told.most_common(_NEAREST)}
        chosen = sorted(nearest)
        rows, named = [], set()
        names = PhraseIndex()
        names.add("", target.phrases)
        for index in chosen:
            reading = self._readings[index]
            is_named, part = mentions(reading, target)
            close = bool(reading.keys & target.own)  # matching phrases is costly
            if is_named or (close and names.find(self._texts[self._prompt[index]], {""}) is not None):
                named.add(self._prompt[index])
            sentence: list[str] = []
            if evidence:
                rows_here = self._vectors[self._window_of == index] @ forget.T
                column = int(np.unravel_index(int(rows_here.argmax()), rows_here.shape)[1])
                sentence = [word.key for word in split_words(target.evidence[column])]
            rows.append(measure(reading, target, part, float(cosines[index]), sentence))
        scores = np.full(len(self._texts), -np.inf)
        np.maximum.at(scores, self._prompt[chosen], head.logits(np.array(rows), np.full(len(rows), target.person)))
        return np.delete(scores, sorted(named))


def digest(texts: Iterable[str]) -> str:
    """A short name for a list of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _cached(passages: list[str], encoder: SentenceEncoder) -> np.ndarray:
    """Embeddings of ``passages``, float32, from the user's cache where they are there."""
    path = Path(user_cache_dir("lethe")) / f"benign-{encoder.fingerprint}-{digest(passages)}.npy"
    try:
        vectors = np.load(path, allow_pickle=False)
        if vectors.shape == (len(passages), encoder.dimension):
            return vectors.astype(np.float32)
    except (OSError, ValueError):
        pass
    vectors = encoder.encode(passages)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, vectors.astype(np.float16))
        os.replace(file.name, path)
    except OSError as error:
        logger.warning("Cannot keep the benign embeddings in %s: %s", path, error)
    return vectors.astype(np.float16).astype(np.float32)
