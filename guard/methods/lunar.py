"""LUNAR (Shen et al., NeurIPS 2025; arXiv 2502.07218; facebookresearch/LUNAR) in closed form.

LUNAR trains one ``mlp.down_proj`` so that what it adds for forget prompts moves by ``c r`` and for retain prompts
stays, where ``r`` is the mean difference of the residual between prompts that the model cannot answer and forget
prompts. The forget target being the same vector for every token, the ridge optimum is rank one:

    dW = c r s^T,   s = (X_f X_f^T + X_r X_r^T + lambda I)^{-1} sum_{t in forget} x_t.
"""

from __future__ import annotations

import torch

from guard.methods.edit import RankOne


def direction(unanswerable: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    """``r``: from the mean residual of forget prompts to that of prompts the model says it cannot answer.

    Args:
        unanswerable: (prompts, hidden), the residual after a layer at the last token of each prompt.
        forget: (prompts, hidden), likewise.
    """
    return unanswerable.float().mean(0) - forget.float().mean(0)


def second_moment(inputs: torch.Tensor) -> torch.Tensor:
    """``X X^T`` of inputs (tokens, d_in): (d_in, d_in) float32. Moments of several sets add up."""
    inputs = inputs.float()
    return inputs.T @ inputs


def fit(
    towards: torch.Tensor, forget: torch.Tensor, retain_moment: torch.Tensor, *, coefficient: float, ridge: float = 0.01
) -> RankOne:
    """The edit of one layer.

    Args:
        towards: (hidden,), the direction ``r``.
        forget: (tokens, d_in), inputs of ``down_proj`` on forget prompts.
        retain_moment: (d_in, d_in), :func:`second_moment` on what must stay.
        coefficient: ``c``.
        ridge: ``lambda`` as a share of the mean diagonal of the whole second moment.
    """
    moment = retain_moment + second_moment(forget)
    moment = moment + ridge * moment.diagonal().mean() * torch.eye(len(moment))
    key = torch.linalg.solve(moment, forget.float().sum(0))
    return RankOne(key, coefficient * towards)
