"""Split conformal prediction: thresholds that a further benign score exceeds with at most a stated probability."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: What a product of a count and a rate may lack of a whole number by rounding: (1 / 49) * 49 is less than 1.
_ROUNDING = 1e-9


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
    above = _above(len(scores), rate)
    if above < 1:
        needed = math.ceil(1 / rate - _ROUNDING) - 1
        raise ValueError(f"a false-alarm rate of {rate} needs {needed} scores, there are {len(scores)}")
    return sorted(scores)[-above]


def enough(count: int, rate: float) -> bool:
    """Whether so many scores give a threshold for the rate."""
    return _above(count, rate) >= 1


def _above(count: int, rate: float) -> int:
    """How many of so many scores, and a further one, may lie at or above the threshold."""
    return math.floor((count + 1) * rate + _ROUNDING)
