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


def common_directions(inputs: torch.Tensor, threshold: float) -> torch.Tensor:
    """The directions that occur in what must stay; ``P`` is the projection onto all others.

    Args:
        inputs: (n, d_in), ``down_proj`` inputs on what must stay.
        threshold: directions whose mean square is below this share of the largest do not count.

    Returns:
        (d_in, k), orthonormal columns ``V``; ``P = I - V V^T``.
    """
    inputs = inputs.float()
    wide = inputs.shape[1] > len(inputs)
    squares, vectors = torch.linalg.eigh(inputs @ inputs.T if wide else inputs.T @ inputs)
    common = squares >= threshold * squares[-1]
    if wide:  # eigenvectors of the other Gram matrix lead to these
        return inputs.T @ vectors[:, common] / squares[common].sqrt()
    return vectors[:, common]


def fit(
    keys: torch.Tensor, missing: torch.Tensor, common: torch.Tensor, earlier: torch.Tensor, *, l2: float
) -> tuple[RankOne, ...]:
    """The edit of one layer for one target: one rank for each of its keys.

    Args:
        keys: (n, d_in), the mean ``down_proj`` input over the tokens of each of the target's names.
        missing: (n, hidden), what is to be added at each.
        common: (d_in, k), :func:`common_directions`.
        earlier: (e, d_in), the keys of edits made before, ``C = earlier^T earlier``.
        l2: the weight of staying close to the old weights.
    """
    keys = keys.float()
    rows = torch.cat([keys, earlier.float()])
    projected = rows - rows @ common @ common.T
    # [P (K K^T + C) + L2 I]^{-1} P K by Woodbury's identity: only as many unknowns as there are keys.
    inner = torch.linalg.solve(l2 * torch.eye(len(rows)) + rows @ projected.T, rows @ projected[: len(keys)].T)
    solved = (projected[: len(keys)].T - projected.T @ inner) / l2
    return tuple(RankOne(solved[:, index], missing[index].float()) for index in range(len(keys)))
