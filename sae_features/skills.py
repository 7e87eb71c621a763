"""Recognising a skill (arithmetic, programming, a language) by the keys of one MLP: the inputs of its ``down_proj``.

Effective Skill Unlearning (NAACL 2025, arXiv 2503.21730), "Key Space Detection": the keys of a skill lie in a box
around their mean, and an answer is withheld when a key of any of its tokens falls into the box. The box is
:func:`fit_box`; :func:`fit_linear` finds the same skill by a linear discriminant. A box asks every one of thousands of
coordinates by itself, so it must be wide enough for the worst coordinate of the worst probe key, and then holds
much else; the discriminant weighs them together.

What is wrong in the published code (github.com/Trustworthy-ML-Lab/effective_skill_unlearning, ``NetProbe``) and right
here: the statistic called "std" is the variance; with ``last_token`` one row is summed but all rows are counted, so
mean and variance are too small; hooks read the first sequence of a batch only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from sae_features.conformal import quantile

#: No standard deviation is taken to be smaller than this part of the median one: a coordinate that did not vary over
#: the probe says nothing about how far another key may lie.
_SMALLEST_STD = 1e-2
#: Keys are projected onto so many principal components before the covariance is estimated.
_COMPONENTS = 256


#: Both have ``scores`` and ``threshold``: a key belongs to the skill when its score lies above the threshold.
DetectorT = TypeVar("DetectorT", "KeyBox", "KeyDirection")


@dataclass(frozen=True, slots=True, eq=False)
class KeyBox:
    """The box ``mean +- width * std``. A score is minus the largest deviation of any coordinate, in units of its std.

    Attributes:
        mean: float32 (d_ff,).
        std: float32 (d_ff,), positive.
        threshold: ``-width``.
    """

    mean: torch.Tensor
    std: torch.Tensor
    threshold: float

    def scores(self, keys: torch.Tensor) -> torch.Tensor:
        """float32 (tokens,), at most 0."""
        return -((keys.float() - self.mean) / self.std).abs().amax(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class KeyDirection:
    """A linear discriminant: a score is ``keys @ weight + bias``, the log-odds of the skill under two Gaussians.

    Attributes:
        weight: float32 (d_ff,).
        bias: for equally frequent classes.
        threshold: 0 until it is calibrated.
    """

    weight: torch.Tensor
    bias: float
    threshold: float = 0.0

    def scores(self, keys: torch.Tensor) -> torch.Tensor:
        """float32 (tokens,)."""
        return keys.float() @ self.weight + self.bias


@dataclass(frozen=True, slots=True, eq=False)
class SkillKeys:
    """What has to be known of one skill while the model runs.

    Attributes:
        layer: whose MLP's keys are judged.
        detector: of the skill.
    """

    layer: int
    detector: KeyBox | KeyDirection

    @property
    def kind(self) -> str:
        """Which of the two the detector is."""
        return "box" if isinstance(self.detector, KeyBox) else "direction"

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it as tensors, for a safetensors file."""
        detector = self.detector
        if isinstance(detector, KeyBox):
            numbers, parts = [self.layer, detector.threshold], {"mean": detector.mean, "std": detector.std}
        else:
            numbers, parts = [self.layer, detector.threshold, detector.bias], {"weight": detector.weight}
        return {"numbers": torch.tensor(numbers, dtype=torch.float64), **parts}

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> SkillKeys:
        """Read what :meth:`tensors` gave.

        Raises:
            KeyError: a tensor is missing.
        """
        layer, threshold, *bias = tensors["numbers"].tolist()
        if bias:
            return cls(int(layer), KeyDirection(tensors["weight"], bias[0], threshold))
        return cls(int(layer), KeyBox(tensors["mean"], tensors["std"], threshold))


def fit_box(skill: torch.Tensor, *, spread: float = 2.0) -> KeyBox:
    """The paper's box: ``mean +- k h std`` with the smallest ``k`` whose box at ``h = 1`` holds all keys of the skill.

    Args:
        skill: (tokens, d_ff), keys at the last token of prompts that need the skill.
        spread: ``h``. The paper's: 2 for GSM8K, 1.4 for MBPP, 0.06 to 0.08 for languages.
    """
    keys = skill.float()
    std = keys.std(dim=0, correction=0)
    std = std.clamp(min=max(float(std.median()) * _SMALLEST_STD, torch.finfo(torch.float32).tiny))
    box = KeyBox(keys.mean(dim=0), std, 0.0)
    edge = box.scores(keys).min() * spread
    return replace(box, threshold=float(edge.nextafter(torch.tensor(-torch.inf))))  # the edge belongs to the box


def fit_linear(skill: torch.Tensor, other: torch.Tensor) -> KeyDirection:
    """Fisher's linear discriminant between keys of the skill and others, the covariance shrunk by Ledoit and Wolf.

    With more coordinates than keys a covariance cannot be estimated; keys are first projected onto the principal
    components of all of them. The result is one vector, whatever it took to find it.

    Args:
        skill: (tokens, d_ff), at such tokens as the detector will be asked about: keys of an answer are unlike those
            at the end of a prompt.
        other: (tokens, d_ff), at such tokens of ordinary prompts.
    """
    from sklearn.decomposition import PCA  # scikit-learn is only needed to fit
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    keys = torch.cat([skill, other]).float().cpu().numpy()
    labels = np.repeat([1, 0], [len(skill), len(other)])
    pca = PCA(n_components=min(_COMPONENTS, *keys.shape), svd_solver="randomized", random_state=0)
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
    discriminant.fit(pca.fit_transform(keys), labels)
    weight = discriminant.coef_[0] @ pca.components_
    return KeyDirection(
        torch.from_numpy(weight.astype(np.float32)), float(discriminant.intercept_[0] - weight @ pca.mean_)
    )


def calibrate(detector: DetectorT, benign: Iterable[torch.Tensor], rate: float) -> DetectorT:
    """The detector with the threshold that at most ``rate`` of benign sequences exceed at any of their tokens.

    Split conformal prediction on the largest score of each sequence, as an answer is withheld for a single token.

    Args:
        detector: fitted on other text.
        benign: keys (tokens, d_ff) of one sequence each.
        rate: accepted share of false alarms.

    Raises:
        ValueError: there are too few sequences for the rate.
    """
    return replace(detector, threshold=quantile([float(detector.scores(keys).max()) for keys in benign], rate))


def centre(detector: DetectorT, skill: torch.Tensor, least: float = 0.1) -> DetectorT:
    """The detector with its threshold moved up to the middle of the gap, where there is one.

    A conformal threshold is the score of some benign key, however far above it those of the skill lie. Moving it up
    costs no false alarms.

    Args:
        detector: calibrated.
        skill: keys of the skill (tokens, d_ff) that it was not fitted on.
        least: the share of them whose scores may lie below the gap.
    """
    gap = float(torch.quantile(detector.scores(skill), least)) - detector.threshold
    return replace(detector, threshold=detector.threshold + max(gap, 0.0) / 2)
