"""What clean traffic may lose, and whether a run of ``benchmarks/overhead.py`` can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: At least so much of plain vLLM's throughput at most clients, and for the first token at one client one of the other
#: two: at most so much of plain vLLM's, or so many milliseconds more.
THROUGHPUT, FIRST_RATIO, FIRST_MS = 0.97, 1.03, 3.0


def within_bars(case: Mapping[str, Any], plain: Mapping[str, Any]) -> bool | None:
    """Whether a case is within the bars; None if this cannot be told.

    It is not where it lies beyond a bar and beyond everything that plain vLLM beside itself comes to over the rounds.
    Otherwise it cannot be told where these lie further apart than a bar allows a case to lie from plain vLLM, in
    throughput, or by both measures of the first token.

    Args:
        case: its figures by number of clients, with medians of ``throughput_ratio``, ``ttft_added_ms`` and
            ``ttft_ratio``.
        plain: those of plain vLLM beside itself, with ``[least, most]`` as ``throughput_ratio_range`` and so on.
    """
    most, least = max(case, key=int), min(case, key=int)
    late = all(
        case[least][name] > max(bar, plain[least][f"{name}_range"][1])
        for name, bar in (("ttft_ratio", FIRST_RATIO), ("ttft_added_ms", FIRST_MS))
    )
    if late or case[most]["throughput_ratio"] < min(THROUGHPUT, plain[most]["throughput_ratio_range"][0]):
        return False
    first_cannot = _width(plain[least], "ttft_ratio") > FIRST_RATIO - 1 and (
        _width(plain[least], "ttft_added_ms") > FIRST_MS
    )
    if first_cannot or _width(plain[most], "throughput_ratio") > 1 - THROUGHPUT:
        return None
    first = case[least]["ttft_ratio"] <= FIRST_RATIO or case[least]["ttft_added_ms"] <= FIRST_MS
    return bool(case[most]["throughput_ratio"] >= THROUGHPUT and first)


def _width(figures: Mapping[str, Any], name: str) -> float:
    least, most = figures[f"{name}_range"]
    return float(most - least)
