"""Whether overhead is within the bars, and whether a run can tell."""

from __future__ import annotations

from typing import Any

import pytest

from server.evaluation.bars import within_bars
from server.evaluation.report.cost import overhead

Interval = tuple[float, float] | None
_OTHERS = dict.fromkeys(
    ("requests", "tokens_per_s", "ttft_p50_ms", "tpot_p50_ms", "answer_p50_ms", "api_cpu_ms_per_request"), 1.0
)


def _case(throughput: Interval, added: Interval, ratio: Interval) -> dict[str, Any]:
    """At most clients and at one; where nobody looks, what would decide otherwise."""
    figures = ("throughput_ratio", "ttft_added_ms", "ttft_ratio")
    one, many = ((0.1, 0.2), added, ratio), (throughput, (99.0, 99.0), (9.0, 9.0))
    return {
        clients: {f"{name}_interval": of for name, of in zip(figures, some, strict=True)}
        for clients, some in (("1", one), ("16", many))
    }


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (_case((0.98, 1.1), (-1, 2), (0.9, 1.5)), True),
        (_case((0.98, 1.1), (-1, 9), (0.9, 1.02)), True),
        (_case((0.98, 1.1), (4, 9), (1.04, 1.5)), False),
        (_case((0.90, 0.96), (-1, 2), (0.9, 1.02)), False),
        (_case((0.96, 1.1), (-1, 2), (0.9, 1.02)), None),
        (_case((0.98, 1.1), (2, 9), (1.02, 1.5)), None),
        (_case((0.96, 1.1), (4, 9), (1.04, 1.5)), False),
        (_case(None, None, None), None),
        (_case(None, (4, 9), (1.04, 1.5)), False),
    ],
)
def test_both_bars_must_be_met_the_first_token_s_by_one_measure(case: dict[str, Any], expected: bool | None) -> None:
    """An interval within a bar meets it, one beyond misses it, and of one with the bar inside nothing can be told."""
    assert within_bars(case) is expected


def test_the_report_judges_by_the_intervals() -> None:
    """And not by the verdict in the file."""
    case = _case(None, (-1, 2), (0.9, 1.02))
    clients = {
        at: {**dict.fromkeys(("throughput_ratio", "ttft_added_ms"), 1.0), **of, **_OTHERS} for at, of in case.items()
    }
    bars = {"throughput_ratio": 1.0, "ttft_added_ms": 1.0, "ttft_ratio": 1.0, "within_bars": True}
    figures = {
        **{"cases": {"plain": {"clients": clients, "bars": bars}}, "memory": {}, "options": {}, "machine": {}},
        **{"guards_acted": 0, "loadavg": [[0.0]]},
    }
    first, *by_clients = overhead(figures)[:3]
    assert first.rows[0][-1] == "cannot be told"
    assert ["(" in str(table.rows[0][3]) for table in by_clients] == [True, False]
