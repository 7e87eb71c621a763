"""What clean traffic may lose, and whether a run of ``benchmarks/overhead.py`` can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: At least so much of plain vLLM's throughput at most clients, and for the first token at one client one of the other
#: two: at most so much of plain vLLM's, or so many milliseconds more.
THROUGHPUT, FIRST_RATIO, FIRST_MS = 0.97, 1.03, 3.0


def within_bars(case: Mapping[str, Any]) -> bool | None:
    """Whether a case is within the bars; None where the intervals of its figures leave it open.

    It is where the intervals lie within the bars, and is not where one lies beyond (of the first token's: both).

    Args:
        case: its figures by number of clients: for ``throughput_ratio``, ``ttft_added_ms`` and ``ttft_ratio`` the
            interval ``[least, most]`` in which the median lies with 95 % confidence, as ``throughput_ratio_interval``
            and so on; None where the rounds were too few to tell.
    """
    least, most = min(case, key=int), max(case, key=int)
    throughput = _interval(case[most], "throughput_ratio")
    first = [
        (_interval(case[least], name), bar) for name, bar in (("ttft_ratio", FIRST_RATIO), ("ttft_added_ms", FIRST_MS))
    ]
    if throughput[1] < THROUGHPUT or all(low > bar for (low, _), bar in first):
        return False
    if throughput[0] >= THROUGHPUT and any(high <= bar for (_, high), bar in first):
        return True
    return None


def _interval(figures: Mapping[str, Any], name: str) -> tuple[float, float]:
    low, high = figures[f"{name}_interval"] or (-math.inf, math.inf)
    return float(low), float(high)
