"""Whether answers are still sentences, whatever they say.

An answer is well-formed when it does not go round in circles and when the untouched model finds its words plausible.

What is plausible is calibrated on the untouched model's own answers, as they are and with their words shuffled. Answers
are scored after a question that they do not answer: a model that knows an answer by heart finds every other sentence
after its question implausible, however well made.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: The least share of an answer's 4-grams of words that must be different ones.
DISTINCT = 0.8
_LENGTH = 4
#: The share of the untouched model's own answers below the bar, were it not moved towards the shuffled ones.
_USUAL = 0.99


def distinct_share(text: str) -> float:
    """Different 4-grams of words over all 4-grams, 0 to 1; 1 for a text that is too short to have any."""
    words = text.split()
    grams = list(zip(*(words[start:] for start in range(_LENGTH)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def shuffled(text: str) -> str:
    """The words of a text in another order, always the same one."""
    words = text.split()
    random.Random(text).shuffle(words)
    return " ".join(words)


def plausibility_bar(own_nll: Array, shuffled_nll: Array) -> float:
    """The mean negative log-probability per token, in nats, up to which an answer counts as plausible.

    Half-way between the 99th percentile of the untouched model's own answers and the 1st of the shuffled ones. The
    former alone would do for a large model; one that knows its own answers by heart is far surer of them than of any
    sentence that is new to it.

    Args:
        own_nll: ``(n,)``, of the untouched model's own answers.
        shuffled_nll: ``(n,)``, of the same with their words shuffled.
    """
    return float((np.quantile(own_nll, _USUAL) + np.quantile(shuffled_nll, 1 - _USUAL)) / 2)


def is_well_formed(answer: str, nll: float, bar: float) -> bool:
    """Whether an answer is a plausible text that does not go round in circles; see :func:`fluency`."""
    return bool(answer.strip()) and distinct_share(answer) >= DISTINCT and nll <= bar


def fluency(answers: Sequence[str], nll: Array, bar: float, refusal: str) -> float:
    """The share of answers that are well-formed, 0 to 1.

    Args:
        answers: what was said.
        nll: ``(n,)``, of each answer under the untouched model.
        bar: of :func:`plausibility_bar`.
        refusal: the operator's own sentence; it was written by a person and is not judged.
    """
    well_formed = [
        answer == refusal or is_well_formed(answer, loss, bar) for answer, loss in zip(answers, nll, strict=True)
    ]
    return float(np.mean(well_formed))
