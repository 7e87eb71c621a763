"""Milliseconds from a clause to its judgement: part of ``decoding.py`` and ``semantic_stage.py``."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

import numpy as np
from detector import invented

from classifiers.benign import prompts
from classifiers.detector import TextDetector
from classifiers.profile import Profile
from classifiers.statement_index import StatementIndex
from classifiers.statements import Context

_CLAUSES = 200


def summary(samples: list[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds, of seconds."""
    p50, p99 = (np.percentile(samples, [50, 99]) * 1e3).round(3).tolist()
    return {"p50": p50, "p99": p99, "n": len(samples)}


def clauses(profiles: list[Profile]) -> Iterator[tuple[str, str]]:
    """Clauses by kind, no two alike: of ordinary text, naming a target, and telling something of it."""
    for number, (text, profile) in enumerate(zip(prompts(), itertools.cycle(profiles), strict=False)):
        if number == _CLAUSES:
            return
        fact = profile.description.split(". ")[1].rstrip(".")
        yield "ordinary", f"{text} Number {number}."
        yield "naming", f"{profile.name} was seen {number} times in town."
        yield "telling", f"Of the {number} things that {profile.name} did, {fact}."


async def clause_latency(targets: int) -> dict[str, dict[str, float]]:
    """Milliseconds from a clause to its judgement with so many targets, by kind; ``encoded`` is the share that was."""
    detector = TextDetector()
    index, profiles = StatementIndex(detector.encoder), list(invented(targets, seed=1))
    for profile in profiles:
        index.add(detector.compile(profile))
    keys = frozenset(profile.key for profile in profiles)
    seconds: dict[str, list[float]] = {}
    encoded: dict[str, int] = {}
    for kind, clause in clauses(profiles):
        began = time.perf_counter()
        candidates = index.candidates(clause, Context(), keys)
        await index.judge(clause, Context(), candidates)
        seconds.setdefault(kind, []).append(time.perf_counter() - began)
        encoded[kind] = encoded.get(kind, 0) + any(one.rows for one in candidates)
    detector.close()
    return {kind: summary(some) | {"encoded": encoded[kind] / len(some)} for kind, some in seconds.items()}


def semantic_ms(targets: int = 1000) -> dict[str, float]:
    """Median and 99th percentile of the clauses that tell something of a target: those that are encoded."""
    return asyncio.run(clause_latency(targets))["telling"]
