"""PISTOL (Qiu et al., 2024; arXiv 2406.16810): one contract of many is to be forgotten, not those it is linked with.

No model here was trained on these contracts, so what is measured is the guards on a model that knows every answer. Each
contract is the only thing forgotten of a tenant of its own. What is asked about it should be blocked; what is asked
about contracts that share a party with it (``linked``), or none (``independent``), should not. Two ways to register it:

* ``parties``: the names of both parties. What is linked is lost with it, that is what a name means.
* ``contract``: the contract by the name "contract between A and B", with every second question on it as forget
  examples and every second on what is linked as retain examples. Only the other questions are asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from guard.types import Example, TargetSpec
from server.evaluation.reading import json_list
from server.evaluation.suites.judging import Case, Judged, Progress, judge, rates
from server.evaluation.tofu.metrics import deviation_score

FILE = "pistol_sample1.json"
WAYS = ("parties", "contract")
_PARTIES = re.compile(r"contract between (.+?) and (.+?)\?")
#: Retain examples of each linked contract.
_KEPT = 5


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract: its two parties, and what is asked about it as (question, answer)."""

    parties: frozenset[str]
    rows: tuple[tuple[str, str], ...]


def load(folder: Path) -> tuple[Contract, ...]:
    """The contracts of the sample.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not a JSON list of objects, or a contract's parties are not said.
        KeyError: a row lacks a field.
    """
    edges: dict[str, list[tuple[str, str]]] = {}
    for row in json_list(folder / FILE):
        edges.setdefault(row["edge"], []).append((row["question"], row["answer"]))
    return tuple(Contract(_parties(edge, rows), tuple(rows)) for edge, rows in edges.items())


def _parties(edge: str, rows: Sequence[tuple[str, str]]) -> frozenset[str]:
    found = next(filter(None, (_PARTIES.search(question) for question, _ in rows)), None)
    if found is None:
        raise ValueError(f"no question on contract {edge} names its parties")
    return frozenset(found.groups())


def evaluate(data: Path, *, limit: int | None = None, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Forget each contract in turn.

    Args:
        data: the folder of PISTOL's files.
        limit: at most so many contracts; the others are still asked about.
        progress: told how far it is.

    Returns:
        ``{way: {"forget", "linked", "independent"}, "deviation_score": {way: score}, "settings": {...}}`` with
        :func:`server.evaluation.suites.judging.rates`. The deviation score counts a blocked answer as ROUGE 0 and any
        other as ROUGE 1, and all contracts that are kept alike: it is that of a model that knows every answer.

    Raises:
        FileNotFoundError, ValueError, KeyError: as :func:`load`.
    """
    contracts = load(data)
    chosen = contracts[:limit]
    figures: dict[str, Any] = {}
    scores: dict[str, float] = {}
    with judge() as judging:
        for way in WAYS:
            cases: list[Case] = []
            judged: list[Judged] = []
            for number, contract in enumerate(chosen, 1):
                tenant = judging.tenant(f"{way} {number}", _targets(contract, contracts, way))
                asked = _cases(contract, contracts, way)
                judged += judging.judge(tenant, asked)
                cases += asked
                progress(way, number, len(chosen))
            figures[way] = rates(cases, judged)
            scores[way] = _deviation(cases, judged)
    return {
        **figures,
        "deviation_score": scores,
        "settings": {"data": str(data), "contracts": len(chosen), "limit": limit},
    }


def _targets(contract: Contract, contracts: Sequence[Contract], way: str) -> list[TargetSpec]:
    if way == "parties":
        return [TargetSpec(name=party) for party in sorted(contract.parties)]
    linked = (one for one in contracts if _link(contract, one) == "linked")
    return [
        TargetSpec(
            name=f"contract between {' and '.join(sorted(contract.parties))}",
            forget_examples=_examples(contract.rows[::2]),
            retain_examples=tuple(chain.from_iterable(_examples(one.rows[::2][:_KEPT]) for one in linked)),
        )
    ]


def _cases(contract: Contract, contracts: Sequence[Contract], way: str) -> list[Case]:
    rows = slice(None) if way == "parties" else slice(1, None, 2)
    return [Case(_link(contract, one), *row) for one in contracts for row in one.rows[rows]]


def _link(contract: Contract, other: Contract) -> str:
    if other is contract:
        return "forget"
    return "linked" if contract.parties & other.parties else "independent"


def _examples(rows: Iterable[tuple[str, str]]) -> tuple[Example, ...]:
    return tuple(Example(prompt=question, completion=answer) for question, answer in rows)


def _deviation(cases: Sequence[Case], judged: Sequence[Judged]) -> float:
    forgotten = [not one.blocked for case, one in zip(cases, judged, strict=True) if case.group == "forget"]
    kept = [not one.blocked for case, one in zip(cases, judged, strict=True) if case.group != "forget"]
    return round(deviation_score(fmean(forgotten), fmean(kept)), 2)
