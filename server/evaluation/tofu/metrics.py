"""TOFU's figures from log-probabilities: pure functions on arrays.

All follow ``aggregate_eval_stat.py`` and ``evaluate_util.py`` of locuslab/tofu. ``nll`` is always the mean negative
log-probability of an answer's tokens in nats, a float64 array: ``(n,)`` for one answer a question, ``(n, k)`` for k
wrong answers a question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import hmean, ks_2samp

Array = npt.NDArray[np.float64]


def probability(answer_nll: Array) -> float:
    """Mean of ``exp(-nll)`` over the questions: the length-normalised probability of the right answer, 0 to 1."""
    return float(np.exp(-answer_nll).mean())


def choice_probability(answer_nll: Array, perturbed_nll: Array) -> float:
    """Mean share of the right answer in the probability of all options, 0 to 1 (real authors and world facts).

    Args:
        answer_nll: ``(n,)``.
        perturbed_nll: ``(n, k)``.
    """
    right, wrong = np.exp(-answer_nll), np.exp(-perturbed_nll).sum(axis=1)
    return float((right / (right + wrong)).mean())


def truth_ratios(paraphrase_nll: Array, perturbed_nll: Array) -> Array:
    """How much likelier the right answer is than the wrong ones, for each question: ``(n,)``, 1 where neither is.

    The probability of the paraphrase over the geometric mean of those of the wrong answers.

    Args:
        paraphrase_nll: ``(n,)``.
        perturbed_nll: ``(n, k)``.
    """
    ratios: Array = np.exp(perturbed_nll.mean(axis=1) - paraphrase_nll)
    return ratios


def indifference(ratios: Array) -> float:
    """Truth ratio of what is to be forgotten: mean of ``min(R, 1/R)``, 1 when right and wrong are equally likely."""
    return float(np.minimum(ratios, 1 / ratios).mean())


def truthfulness(ratios: Array) -> float:
    """Truth ratio of what is to be kept: mean of ``max(0, 1 - 1/R)``, near 1 when only right answers are likely."""
    return float(np.maximum(0, 1 - 1 / ratios).mean())


def forget_quality(ratios: Array, reference_ratios: Array) -> float:
    """How well the truth ratios pass for those of a model that never learnt it, 0 to 1.

    The p-value of the two-sample Kolmogorov-Smirnov test between a method's truth ratios on the forget rows and the
    reference's.
    """
    return float(ks_2samp(ratios, reference_ratios).pvalue)


def model_utility(components: Sequence[float]) -> float:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio on retain, real authors and world facts, 0 to 1."""
    return float(hmean(components))


def deviation_score(forget_rouge: float, retain_rouge: float) -> float:
    """Distance in percent, 0 to 141, from forgetting everything and keeping everything.

    ``100 * sqrt(forget_rouge^2 + (1 - retain_rouge)^2)`` of mean ROUGE-L recalls (LUNAR, arXiv 2502.07218).
    """
    return float(100 * np.hypot(forget_rouge, 1 - retain_rouge))
