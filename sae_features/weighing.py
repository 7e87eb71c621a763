"""Features that are weighed: a logistic regression on what the features do on average over a sequence.

The share rule of the paper counts a token for a target if any selected feature is active, however weakly, whichever it
is, and whatever speaks against it. Weighed features tell one person from another where the share does not. The
cost is the same, for the mean of a weighted sum is the weighted sum of the means: a token says
``activations @ weights`` to the same running mean (:mod:`sae_features.rule`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True, eq=False)
class Weighing:
    """Some features and their weights.

    Attributes:
        ids: int64 (n,), features of the autoencoder.
        weights: float32 (n,), the larger the more a unit of activation speaks for the target; some speak against it.
    """

    ids: torch.Tensor
    weights: torch.Tensor


def fit(forget: torch.Tensor, retain: torch.Tensor, *, n: int = 64) -> Weighing:
    """The ``n`` features whose means differ most, in units of their spread, under a strong L2 penalty.

    Where a target has few sequences, an L1 penalty leaves one feature where many say the same, and another form of a
    question may lack just that one.

    Args:
        forget: (sequences, features), mean activations over the tokens of each sequence of the target, the first
            token left out.
        retain: (sequences, features), of other text.
        n: at most so many features.

    Raises:
        ValueError: there is no sequence of the target, or none of other text.
    """
    from sklearn.linear_model import LogisticRegression  # scikit-learn is only needed to fit

    means = torch.cat([forget, retain]).float()
    spread = means.std(dim=0)
    varies = spread.nonzero().squeeze(1)
    apart = (forget[:, varies].float().mean(0) - retain[:, varies].float().mean(0)).abs() / spread[varies]
    kept = varies[apart.argsort(descending=True)[:n]].sort().values
    labels = np.repeat([1, 0], [len(forget), len(retain)])
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    model.fit((means[:, kept] / spread[kept]).cpu().numpy(), labels)
    weights = torch.from_numpy(model.coef_[0]).to(spread.dtype) / spread[kept].cpu()
    return Weighing(kept.cpu(), weights)
