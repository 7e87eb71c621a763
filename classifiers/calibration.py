"""Thresholds: how high ordinary text scores on a target, and from where on a score is a finding.

Split conformal prediction (Vovk et al., 2005; Angelopoulos and Bates, 2021): the ceil((n + 1)(1 - a)) / n quantile of
the scores that a target gives to n benign prompts is exceeded by a further benign prompt with probability at most a.
Rates that n prompts cannot resolve are reached by taking the tail of the scores to be exponential (peaks over a
threshold; Pickands, 1975, with shape 0).

With m targets on, a prompt has m chances to be flagged. Giving each target a / m (Bonferroni) would hold the rate
however the targets' false alarms fall, but they fall on the few targets whose names or topics are everyday words: those
would be silenced for the sake of many that never alarm. Each gets a / sqrt(m); what that comes to is measured
(``lethe eval rwku``: at most 0.33 % of a benign set at 60 targets).
"""

from __future__ import annotations

import math

import numpy as np

#: Share of the benign scores that the tail is fitted to.
_TAIL = 0.02
#: A threshold is never put outside of these logits. Below, a text more likely than not speaks of something else; above,
#: it speaks of the target, and the benign prompts that score so high do too ("a recipe for pancakes" and cooking).
FLOOR, CEILING = -1.0, -0.4


def fit_tail(logits: np.ndarray) -> tuple[float, float]:
    """Level and scale of the upper tail of benign scores.

    Args:
        logits: float ``(n,)``, the scores of benign prompts.

    Returns:
        The (1 - ``_TAIL``) conformal quantile, and the mean excess over it.
    """
    level = conformal_quantile(logits, _TAIL)
    excess = logits[logits > level] - level
    return round(level, 4), round(float(excess.mean()) if len(excess) else 0.0, 4)


def conformal_quantile(scores: np.ndarray, rate: float) -> float:
    """The score that a further benign prompt exceeds with probability at most ``rate``; inf if ``n`` is too small."""
    ordered = np.sort(scores)
    rank = math.ceil((len(ordered) + 1) * (1 - rate))
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def threshold(tail: tuple[float, float], rate: float, targets: int) -> float:
    """The logit from which on a score is a finding.

    Args:
        tail: from :func:`fit_tail`.
        rate: accepted share of false alarms among benign prompts for a tenant with one target.
        targets: how many targets are on at once.
    """
    level, scale = tail
    share = min(_TAIL, rate / math.sqrt(max(1, targets)))
    return min(CEILING, max(FLOOR, level + scale * math.log(_TAIL / share)))


def probability(logit: float) -> float:
    """The logistic function: logits to scores in [0, 1]."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
