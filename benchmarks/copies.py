"""What :mod:`classifiers.verbatim` costs, what it wrongly takes for copies, and which altered copies it finds."""

from __future__ import annotations

import operator
import random
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classifiers.verbatim import VerbatimIndex
from guard.service import GuardService
from guard.types import TargetSpec

_PIECE = 300  # words of an answer
_START = re.compile(r"\*\*\* ?START OF TH(?:IS|E) PROJECT GUTENBERG[^\n]*\n")
_END = re.compile(r"\*\*\* ?END OF TH|End of (?:the )?Project Gutenberg")
_WAYS = {"changed": ("change",), "left out": ("leave out",), "mixed": ("change", "leave out", "put in")}


def read_texts(folder: Path) -> dict[str, str]:
    """The texts of a folder by file name, without what Project Gutenberg wrote around them."""
    texts = {}
    for path in sorted(folder.glob("*.txt")):
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252")
        start, end = _START.search(text), _END.search(text)
        texts[path.stem] = text[start.end() if start else 0 : end.start() if end else len(text)]
    return texts


def registering(service: GuardService, texts: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Seconds until a target with a long document is in force, and how many of them the index of copies takes."""
    everything = "\n".join(texts.values())
    documents = {"100,000 words": " ".join(everything.split()[:100_000]), "10M characters": (everything * 10)[: 10**7]}
    service.registry.write(lambda db: db.create_target(TargetSpec(name="warm-up", documents=("A text.",))))
    figures = {}
    for name, document in documents.items():
        spec = TargetSpec(name=name, documents=(document,))
        began = time.perf_counter()
        service.registry.write(operator.methodcaller("create_target", spec))
        registered = time.perf_counter()
        VerbatimIndex().add("", [document], run=spec.verbatim_run)
        indexed = time.perf_counter()
        figures[name] = {"seconds": registered - began, "index_seconds": indexed - registered}
    return figures


def false_alarms(texts: Mapping[str, str], run: int) -> dict[str, Any]:
    """Pieces of each text that are taken for copies of another."""
    pieces, alarms = 0, []
    for key, document in texts.items():
        index = VerbatimIndex()
        index.add(key, [document], run=run)
        for words in (text.split() for other, text in texts.items() if other != key):
            for start in range(0, len(words), _PIECE):
                pieces += 1
                if match := index.find(" ".join(words[start : start + _PIECE]), {key}):
                    alarms.append(" ".join(match.phrase.split()))
    return {"pieces": pieces, "alarms": len(alarms), "examples": sorted(set(alarms))[:10]}


def near_copies(texts: Mapping[str, str], run: int, length: int, tries: int = 200) -> dict[str, float]:
    """The share of passages of ``length`` words, altered at random, that are found."""
    rng = random.Random(0)
    book = max(texts.values(), key=len)
    words, others = book.split(), " ".join(text for text in texts.values() if text is not book).split()
    index = VerbatimIndex()
    index.add("book", [book], run=run)
    figures = {}
    for name, ways in _WAYS.items():
        for rate in (0.05, 0.1, 0.2, 0.3):
            starts = [rng.randrange(len(words) - length) for _ in range(tries)]
            copies = [_altered(words[start : start + length], rate, ways, others, rng) for start in starts]
            figures[f"{rate:.0%} {name}"] = sum(index.find(copy, {"book"}) is not None for copy in copies) / tries
    return figures


def _altered(words: Sequence[str], rate: float, ways: Sequence[str], others: Sequence[str], rng: random.Random) -> str:
    said: list[str] = []
    for word in words:
        way = rng.choice(ways) if rng.random() < rate else "keep"
        said += {"keep": [word], "change": [rng.choice(others)], "put in": [word, rng.choice(others)]}.get(way, [])
    return " ".join(said)
