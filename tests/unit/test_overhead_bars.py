"""Whether overhead is within the bars, and whether a run can tell."""

from __future__ import annotations

from typing import Any

import pytest

from server.evaluation.bars import within_bars
from server.evaluation.report.cost import overhead

_OTHERS = dict.fromkeys(
    ("requests", "tokens_per_s", "ttft_p50_ms", "tpot_p50_ms", "answer_p50_ms", "api_cpu_ms_per_request"), 1.0
)


def _case(throughput: float, added: float, ratio: float) -> dict[str, Any]:
    """At most clients and at one; where nobody looks, what would decide otherwise."""
    return {
        "1": {"throughput_ratio": 0.1, "ttft_added_ms": added, "ttft_ratio": ratio},
        "16": {"throughput_ratio": throughput, "ttft_added_ms": 99.0, "ttft_ratio": 9.0},
    }


def _plain(throughput: float = 0.02, added: float = 2.0, ratio: float = 0.02) -> dict[str, Any]:
    """Plain vLLM beside itself, by how far its rounds lie apart."""
    wide = {"throughput_ratio_range": [0.1, 1.9], "ttft_added_ms_range": [-99, 99], "ttft_ratio_range": [0.1, 1.9]}
    first = {"ttft_added_ms_range": [0.0, added], "ttft_ratio_range": [1.0, 1.0 + ratio]}
    return {"1": {**wide, **first}, "16": {**wide, "throughput_ratio_range": [1.0, 1.0 + throughput]}}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (_case(0.98, 2.0, 1.5), True),
        (_case(0.98, 9.0, 1.02), True),
        (_case(0.98, 9.0, 1.5), False),
        (_case(0.96, 2.0, 1.02), False),
    ],
)
def test_both_bars_must_be_met_the_first_token_s_by_one_measure(case: dict[str, Any], expected: bool) -> None:
    assert within_bars(case, _plain()) is expected


@pytest.mark.parametrize(
    ("plain", "can"),
    [
        (_plain(throughput=0.04), False),
        (_plain(added=4.0, ratio=0.04), False),
        (_plain(added=40.0), True),
        (_plain(ratio=0.4), True),
    ],
)
def test_nothing_is_told_where_equal_things_lie_further_apart_than_a_bar(plain: dict[str, Any], can: bool) -> None:
    assert (within_bars(_case(0.98, 2.0, 1.02), plain) is not None) is can


@pytest.mark.parametrize(
    ("case", "plain"),
    [
        (_case(0.5, 2.0, 1.02), _plain(throughput=0.04)),
        (_case(0.98, 99.0, 2.0), _plain(added=4.0, ratio=0.04)),
        (_case(0.98, 99.0, 2.0), _plain(throughput=0.04)),
    ],
)
def test_what_lies_beyond_all_that_equal_things_come_to_is_beyond_the_bar(
    case: dict[str, Any], plain: dict[str, Any]
) -> None:
    assert within_bars(case, plain) is False


def test_the_report_says_that_it_cannot_be_told() -> None:
    """Of the filed run, whose file has a verdict from before there was a third one."""
    clients = {at: {**_case(0.98, 2.0, 1.02)[at], **_plain(throughput=0.2)[at], **_OTHERS} for at in ("1", "16")}
    case = {"clients": clients, "bars": {**clients["1"], "within_bars": True}}
    figures = {
        **{"cases": {"plain": case, "all": case}, "memory": {}, "options": {}, "machine": {}},
        **{"guards_acted": 0, "loadavg": [[0.0]]},
    }
    assert [row[-1] for row in overhead(figures)[0].rows] == ["cannot be told"] * 2
