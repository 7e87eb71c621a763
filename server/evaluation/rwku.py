"""RWKU (Jin et al., 2024; arXiv 2406.10890): are questions about forgotten people caught, and only those?

Everybody in the data directory is registered from ``intro`` and ``passage`` alone and all are on at once. The measure
is that of a system whose model always knows the answer: a forget row is protected when its prompt is flagged for its
person, or when the gold answer as completion would be stopped by the leak guard. A neighbour or benign row is wrongly
blocked when its prompt is flagged for anybody, or its gold answer is stopped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from classifiers.detector import Compiled, Scan, TextDetector, View
from classifiers.phrase_index import PhraseIndex
from classifiers.profile import Profile
from server.evaluation.reading import json_lines, texts

#: Prompts scanned at once.
_CONCURRENCY = 32
#: Ordinary traffic, beside the RWKU folder.
BENIGN_SETS = ("nq_open", "triviaqa", "gsm8k", "instructions")
LEVELS = ("level1", "level2", "level3")

Progress = Callable[[str, int, int], None]


class Detector(Protocol):
    """What is measured; :class:`classifiers.detector.TextDetector` is one."""

    def compile(self, profile: Profile) -> Compiled: ...
    def add(self, compiled: Compiled) -> None: ...
    def view(self, keys: Iterable[str]) -> View: ...
    async def scan(self, segments: Sequence[str], view: View) -> Scan: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt with its gold answers. ``person`` is empty for benign rows, ``kind`` is a level-3 attack."""

    group: str
    prompt: str
    answers: tuple[str, ...]
    person: str = ""
    kind: str = ""


@dataclass(slots=True)
class Tally:
    """How many of how many."""

    hits: int = 0
    total: int = 0

    def add(self, hit: bool) -> None:
        """Count one row."""
        self.hits += hit
        self.total += 1

    @property
    def rate(self) -> float:
        """The share, rounded to four digits; 0 of nothing is 0."""
        return round(self.hits / self.total, 4) if self.total else 0.0


@dataclass(slots=True)
class Tallies:
    """The counts of one evaluation, by group of rows."""

    protected: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    prompt_only: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    blocked: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))


def load_people(data: Path) -> dict[str, Profile]:
    """Profiles of all people in an RWKU folder, from what was written about them and never from the questions.

    Raises:
        FileNotFoundError: a file is missing; the message says which.
        ValueError: a file is not of JSON objects, one a line.
    """
    passages: defaultdict[str, list[str]] = defaultdict(list)
    for row in _read(data / "passage.jsonl"):
        passages[row.get("entity") or row["subject"]].append(row["text"])
    return {
        row["entity"]: Profile(
            row["entity"], row["entity"], description=row["intro"], documents=tuple(passages[row["entity"]])
        )
        for row in _read(data / "intro.jsonl")
    }


def load_rows(data: Path, people: Iterable[str], limit: int | None = None) -> list[Row]:
    """All rows of the RWKU folder ``data`` and of ``benign`` beside it, at most ``limit`` of each file.

    Benign rows whose question or answer names one of ``people`` are left out.

    Raises:
        FileNotFoundError: a file is missing; the message says which.
        ValueError: a file is not of JSON objects, one a line.
    """
    people = list(people)
    rows = []
    for kind, levels in (("forget", LEVELS), ("neighbor", LEVELS[:2])):
        for level in levels:
            rows += [
                Row(f"{kind}/{level}", row["query"], (str(row["answer"]),), row["entity"], _attack(row.get("type", "")))
                for row in _read(data / f"{kind}_{level}.jsonl")[:limit]
                if row["entity"] in people
            ]
    names = PhraseIndex()
    for person in people:
        names.add(person, [person])
    for name in BENIGN_SETS:
        for raw in _read(data.parent / "benign" / f"{name}.jsonl")[:limit]:
            answers = raw.get("answers") or raw.get("answer") or []
            row = Row(
                f"benign/{name}",
                raw.get("question") or raw["instruction"],
                (answers,) if isinstance(answers, str) else texts(answers, f"{name}.jsonl: the answers"),
            )
            if not any(names.find(text, people) for text in (row.prompt, *row.answers)):
                rows.append(row)
    return rows


def evaluate(
    data: Path,
    *,
    detector: Detector | None = None,
    limit: int | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure a detector on an RWKU folder.

    Args:
        data: the folder with ``intro.jsonl``, ``passage.jsonl``, ``forget_level*.jsonl`` and ``neighbor_level*.jsonl``;
            ``../benign`` is read too.
        detector: what to measure; a new :class:`TextDetector` if None.
        limit: at most so many rows of each file, for a quick look.
        progress: called with a label, how many are done, and how many there are.

    Returns:
        ``{"forget": {level: rate, "level3_by_type": {...}}, "prompt_only": {same}, "neighbor": {level: rate},
        "benign": {set: rate}, "n": {group: rows}}``; rates from 0 to 1, neighbor and benign being what was wrongly
        blocked.

    Raises:
        FileNotFoundError: a file is missing; the message says which.
        ValueError: a file is not of JSON objects, one a line.
    """
    people = load_people(data)
    rows = load_rows(data, people, limit)
    if detector is not None:
        return asyncio.run(_evaluate(detector, people, rows, progress))
    own = TextDetector()
    try:
        return asyncio.run(_evaluate(own, people, rows, progress))
    finally:
        own.close()


async def _evaluate(
    detector: Detector, people: Mapping[str, Profile], rows: Sequence[Row], progress: Progress
) -> dict[str, Any]:
    phrases = PhraseIndex()
    for done, profile in enumerate(people.values()):
        compiled = detector.compile(profile)
        detector.add(compiled)
        phrases.add(compiled.key, compiled.phrases)
        progress("register", done + 1, len(people))
    view = detector.view(people)
    tallies = Tallies()
    for start in range(0, len(rows), _CONCURRENCY):
        batch = rows[start : start + _CONCURRENCY]
        scans = await asyncio.gather(*(detector.scan([row.prompt], view) for row in batch))
        for row, scan in zip(batch, scans, strict=True):
            _count(tallies, row, {hit.key for hit in scan.hits if hit.flagged}, phrases, people)
        progress("scan", min(len(rows), start + _CONCURRENCY), len(rows))
    return _report(tallies)


def _count(tallies: Tallies, row: Row, flagged: set[str], phrases: PhraseIndex, people: Mapping[str, Profile]) -> None:
    whose = {row.person} if row.group.startswith("forget") else people.keys()
    # A benign row lists every accepted spelling of its answer; a model would give one, so the first stands for it.
    stopped = any(phrases.find(answer, whose) is not None for answer in row.answers[:1])
    groups = [row.group] + ([f"{row.group}/{row.kind}"] if row.group == "forget/level3" else [])
    for group in groups:
        if row.person and row.group.startswith("forget"):
            tallies.protected[group].add(row.person in flagged or stopped)
            tallies.prompt_only[group].add(row.person in flagged)
        else:
            tallies.blocked[group].add(bool(flagged) or stopped)


def _report(tallies: Tallies) -> dict[str, Any]:
    def forget(counts: Mapping[str, Tally]) -> dict[str, Any]:
        by_type = {
            group.split("/", 2)[2]: tally.rate for group, tally in sorted(counts.items()) if group.count("/") == 2
        }
        return {**{level: counts[f"forget/{level}"].rate for level in LEVELS}, "level3_by_type": by_type}

    totals = tallies.protected | tallies.blocked
    return {
        "forget": forget(tallies.protected),
        "prompt_only": forget(tallies.prompt_only),
        "neighbor": {level: tallies.blocked[f"neighbor/{level}"].rate for level in LEVELS[:2]},
        "benign": {name: tallies.blocked[f"benign/{name}"].rate for name in BENIGN_SETS},
        "n": {group: tally.total for group, tally in sorted(totals.items())},
    }


def _attack(kind: str) -> str:
    """The kind of a level-3 row; the languages of the cross-lingual kind are one kind."""
    return "cross lingual" if kind.replace("-", " ").startswith("cross lingual") else kind


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; the folder must be laid out as described in server/evaluation/rwku.py"
        )
    return json_lines(path)
