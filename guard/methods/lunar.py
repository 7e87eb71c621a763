"""LUNAR (Shen et al., NeurIPS 2025; arXiv 2502.07218; facebookresearch/LUNAR) in closed form.

LUNAR trains one ``mlp.down_proj`` so that what it adds for forget prompts moves by ``c r`` and for retain prompts
stays, where ``r`` is the mean difference of the residual between prompts that the model cannot answer and forget
prompts. The forget target being the same vector for every token, the ridge optimum is rank one:

    dW = c r s^T,   s = (X_f X_f^T + X_r X_r^T + lambda I)^{-1} sum_{t in forget} x_t.

``s`` is also what tells forget from retain inputs best in the sense of least squares, so it can be the key of a switch.
"""

from __future__ import annotations

import torch


def direction(unanswerable: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    """``r``: from the mean residual of forget prompts to that of prompts the model says it cannot answer.

    Args:
        unanswerable: (prompts, hidden), the residual after a layer at the last token of each prompt.
        forget: (prompts, hidden), likewise.
    """
    return unanswerable.float().mean(0) - forget.float().mean(0)


def key(forget: torch.Tensor, retain: torch.Tensor, *, ridge: float = 0.01) -> torch.Tensor:
    """``s`` of one layer: (d_in,). The edit is ``RankOne(s, c r)``.

    Args:
        forget: (n, d_in), inputs of ``down_proj`` on forget prompts; a row may be scaled to weigh its token.
        retain: (m, d_in), likewise on what must stay.
        ridge: ``lambda`` as a share of the mean square of the inputs.
    """
    rows = torch.cat([forget, retain]).float()
    penalty = ridge * float(rows.square().sum()) / rows.shape[1]
    return ridge_solve(rows, forget.float().sum(0), penalty)


def ridge_solve(rows: torch.Tensor, right: torch.Tensor, penalty: float) -> torch.Tensor:
    """``(X^T X + penalty I)^{-1} right`` for rows ``X`` (n, d), by way of whichever of n and d is smaller.

    Wide layers (d of many thousands) thus never need a (d, d) matrix (Woodbury's identity).
    """
    count, width = rows.shape
    if count >= width:
        return torch.linalg.solve(rows.T @ rows + penalty * torch.eye(width), right)
    inner = torch.linalg.solve(rows @ rows.T + penalty * torch.eye(count), rows @ right)
    return (right - rows.T @ inner) / penalty
