"""Which features speak of a target: those that matter on its text and little on other text.

Dynamic SAE Guardrails (arXiv 2504.08192): the importance of feature ``j`` on a corpus is its mean squared activation
over the tokens, ``I(j) = E_t[a_j(t)^2]`` (the diagonal of the Fisher information of the decoder's output, up to the
decoder's norm); kept are those whose ratio ``I_forget / I_retain`` lies in the highest percentiles, and of them the
``n`` of largest ``I_forget``.

Percentiles here are over the features that fire on the target's text, and not over all: where most features never do,
as on a few questions about one person, the 95th percentile of all ratios is 0, the condition is void, and the commonest
features of any text are selected.

What is wrong in the authors' code (github.com/aashiqmuhamed/DynamicSAEGuardrails) and right here and in
:mod:`sae_features.rule`: the importance is the square of the mean activation (``** 2`` is commented out), which counts
a rare but strong feature for less; the threshold comes from the very retain text that the features were chosen on,
with end-of-text and padding tokens counted as text; its shares are summed over the batch, so they are right for
batches of one sequence only; and ``Dataset.shuffle`` is called without taking its result. Its upper limit on
``I_retain`` is the 100th percentile, that is none, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

#: Keeps the ratio finite for a feature that never fires on the retain text (the authors' value).
_EPSILON = 1e-21


@dataclass(slots=True)
class Importance:
    """Mean squared activations of a corpus, added up as it streams by; the activations themselves are not kept."""

    features: int
    tokens: int = 0
    _sum: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._sum = torch.zeros(self.features, dtype=torch.float64)

    def add(self, activations: torch.Tensor) -> None:
        """Add tokens.

        Args:
            activations: (tokens, features). Leave out the first token of a sequence and special tokens: nearly every
                feature fires there, whatever the text is about.
        """
        self._sum += activations.double().square().sum(dim=0).cpu()
        self.tokens += len(activations)

    @property
    def mean_square(self) -> torch.Tensor:
        """float64 (features,); zeros before the first token."""
        return self._sum / max(1, self.tokens)


def select(
    forget: Importance,
    retain: Importance,
    *,
    n: int = 20,
    ratio_percentile: float = 95.0,
    forget_percentile: float = 5.0,
) -> torch.Tensor:
    """The features of a target, most important first.

    Args:
        forget: of the target's text.
        retain: of other text.
        n: at most so many. Of the paper: 20 to 200 for WMDP-bio, 30 for WMDP-cyber, 10 to 30 for MUSE.
        ratio_percentile: the ratio must reach this percentile. Of the paper: 95 for WMDP-bio, 90 for WMDP-cyber and
            MUSE news, 90 or 95 for MUSE books.
        forget_percentile: the importance on the target's text must reach this percentile.

    Returns:
        int64 (at most n,); empty if nothing fires on the target's text.
    """
    fires = forget.mean_square.nonzero().squeeze(1)
    if not len(fires):
        return fires
    importance = forget.mean_square[fires]
    ratio = importance / (retain.mean_square[fires] + _EPSILON)
    telling = ratio >= ratio.quantile(ratio_percentile / 100)
    kept = telling & (importance >= importance.quantile(forget_percentile / 100))
    return fires[kept][importance[kept].argsort(descending=True)[:n]]
