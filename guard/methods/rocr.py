"""ROCR ("LLM Unlearning Should Be Form-Independent", arXiv 2506.07795; Acruxos/ORT): one concept becomes another.

At the last token of the subject's name the residual after the last edited layer is led to that of a neutral concept,
spread over a few layers. For a layer with key ``k`` (mean ``down_proj`` input over several templates), residual still
missing ``r`` and null-space projection ``P`` of what must stay, the closed form of AlphaEdit (arXiv 2410.02355) is

    dW = r (P k)^T / (L2 + k^T P k)         (one key)
    dW^T = [P (K K^T + C) + L2 I]^{-1} P K R^T   (several keys K, earlier edits' moment C).

Unlike the published code, whose neutral concept is a real person, use one that does not exist: nothing false is then
said of anybody.
"""

from __future__ import annotations

import torch

from guard.methods.edit import RankOne


def null_space(moment: torch.Tensor, threshold: float) -> torch.Tensor:
    """``P``: the projection onto the directions that hardly occur in what must stay.

    Args:
        moment: (d_in, d_in), mean of ``x x^T`` over its tokens.
        threshold: eigenvalues below this share of the largest count as hardly.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    rare = vectors[:, values < threshold * values[-1]]
    return (rare @ rare.T).float()


def fit(
    keys: torch.Tensor, missing: torch.Tensor, projection: torch.Tensor, earlier: torch.Tensor, *, l2: float
) -> tuple[RankOne, ...]:
    """The edit of one layer for one target: one rank for each of its keys.

    Args:
        keys: (n, d_in), the mean ``down_proj`` input at the last token of each of the target's names.
        missing: (n, hidden), what is to be added at each.
        projection: (d_in, d_in), ``P``.
        earlier: (d_in, d_in), the sum of ``k k^T`` over the keys of edits made before, ``C``.
        l2: the weight of staying close to the old weights.
    """
    keys = keys.float()
    system = projection @ (keys.T @ keys + earlier) + l2 * torch.eye(keys.shape[1])
    solved = torch.linalg.solve(system, projection @ keys.T)  # (d_in, n)
    return tuple(RankOne(solved[:, index], missing[index].float()) for index in range(len(keys)))
