"""One score of what the text of a prompt and what its features say of a target, and one limit for it.

The two are put on one scale: the log-odds of the text detector's score and the margin of the features' mean over its
limit, each in units of the distance from the median of benign prompts to their 99th percentile. Their soft maximum is
the score: where the text is silent the features count as much as it does, and the louder it is the less they matter,
either way. They decide alone only well beyond all benign prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sae_features.conformal import enough, quantile

#: How sharp the maximum is: 0 would be the mean of the two. Chosen on the prompts of `benchmarks/sae_detection.py`, the
#: demo world's and TOFU's, so that it finds at least as much as either alone in every condition of both.
SHARPNESS = 0.15
#: So many units of the features count at most, either way: a residual stream like none that was fitted on says nothing.
MOST = 3.0
#: How far from the benign median, in distances of the furthest benign prompt from it, features decide alone. At 2 they
#: took answers on others there.
ALONE = 2.5
#: Scores of the text detector nearer to 0 or 1 than this are not told apart.
_SURE = 1e-4


@dataclass(frozen=True, slots=True)
class Scale:
    """What one unit of a score is: ``(score - middle) / unit``."""

    middle: float
    unit: float

    @classmethod
    def of(cls, benign: np.ndarray) -> Scale:
        """That of benign scores, (n,)."""
        middle, high = np.quantile(benign, [0.5, 0.99])
        return cls(float(middle), float(max(high - middle, 1e-6)))

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """Scores in units."""
        return (score - self.middle) / self.unit


@dataclass(frozen=True, slots=True)
class Joint:
    """The joint decision on one target.

    Attributes:
        text: the scale of the log-odds of the text detector's scores.
        features: the scale of the features' margins.
        limit: a request whose score lies above it is about the target.
        alone: a request whose features' margin lies above it is about the target whatever its text says.
    """

    text: Scale
    features: Scale
    limit: float
    alone: float

    def scores(self, text: Sequence[float] | np.ndarray, margins: Sequence[float] | np.ndarray) -> np.ndarray:
        """The joint scores of n prompts: float64 (n,); 0 for one whose text and features are those of any benign one.

        Args:
            text: (n,), the text detector's scores in [0, 1]; 0 where it saw nothing to compare.
            margins: (n,), by how much the features' means exceed their limits.
        """
        said = self.text(_log_odds(text))
        seen = np.clip(self.features(np.asarray(margins, dtype=np.float64)), -MOST, MOST)
        return (np.logaddexp(SHARPNESS * said, SHARPNESS * seen) - np.log(2)) / SHARPNESS

    def beyond(
        self, text: Sequence[float] | np.ndarray, margins: Sequence[float] | np.ndarray, threshold: float
    ) -> np.ndarray:
        """By how much the joint scores of n prompts exceed what flags them: float64 (n,).

        That is the limit, or the score of a text at its own threshold whose features are those of any benign prompt: as
        long as the features say nothing, the text decides as it would by itself. Features that are far beyond those of
        any benign prompt decide alone: the text may be in a language that its encoder cannot read.

        Args:
            text: (n,), see :meth:`scores`.
            margins: (n,), likewise.
            threshold: from which on the text detector flags by itself.
        """
        together = self.scores(text, margins)
        together -= max(self.limit, float(self.scores([threshold], [self.features.middle])[0]))
        return np.maximum(together, (np.asarray(margins) - self.alone) / self.features.unit)

    @classmethod
    def fit(
        cls, scaling: tuple[np.ndarray, np.ndarray], calibrating: tuple[np.ndarray, np.ndarray], rate: float
    ) -> Joint | None:
        """Fit on benign prompts, given as text scores and margins; None where they are too few for the rate.

        Args:
            scaling: of prompts that the scales are taken from.
            calibrating: of others; a further one like them is flagged with probability ``rate`` at most
                (:mod:`sae_features.conformal`).
            rate: in (0, 1).
        """
        if not enough(len(calibrating[0]), rate):
            return None
        features = Scale.of(scaling[1])
        most = float(max(scaling[1].max(), calibrating[1].max()))
        alone = features.middle + ALONE * (most - features.middle)
        joint = cls(Scale.of(_log_odds(scaling[0])), features, 0.0, alone)
        return replace(joint, limit=quantile(joint.scores(*calibrating).tolist(), rate))

    def numbers(self) -> list[float]:
        """All of it, for :meth:`of`."""
        return [self.text.middle, self.text.unit, self.features.middle, self.features.unit, self.limit, self.alone]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Joint:
        """Read what :meth:`numbers` gave."""
        text_middle, text_unit, middle, unit, limit, alone = numbers
        return cls(Scale(text_middle, text_unit), Scale(middle, unit), limit, alone)


def _log_odds(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    chance = np.clip(np.asarray(scores, dtype=np.float64), _SURE, 1 - _SURE)
    return np.log(chance / (1 - chance))
