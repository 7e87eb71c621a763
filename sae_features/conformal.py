"""Split conformal prediction: thresholds that a further benign score exceeds with at most a stated probability."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(scores: Sequence[float], rate: float) -> float:
    """The ``ceil((n + 1)(1 - rate))``-th smallest of ``n`` benign scores.

    A further score that is exchangeable with them lies above it with probability at most ``rate`` (Vovk et al., 2005;
    Angelopoulos and Bates, 2021, arXiv 2107.07511), ties included.

    Args:
        scores: of benign text that nothing was fitted on.
        rate: in (0, 1).

    Raises:
        ValueError: there are too few scores for the rate.
    """
    above = math.floor((len(scores) + 1) * rate)
    if above < 1:
        raise ValueError(
            f"a false-alarm rate of {rate} needs {math.ceil(1 / rate) - 1} scores, there are {len(scores)}"
        )
    return sorted(scores)[-above]


def enough(count: int, rate: float) -> bool:
    """Whether so many scores give a threshold for the rate."""
    return (count + 1) * rate >= 1
