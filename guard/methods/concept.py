"""Concept vectors (Hong et al., arXiv 2406.11614; yihuaihong/ConceptVectors): where a model keeps what it knows.

What an MLP adds to the residual is a sum of value vectors, ``sum_j a_j v_j``: ``a`` is the input of ``down_proj``, and
``v_j`` its columns. Some of them stand for one concept. Without them the model loses what it says of it:

    dW = - v_j e_j^T   (the published "Needle" drowns ``v_j`` in noise instead)

The paper finds them by reading, with a language model, which words every ``v_j`` promotes. Here they are those through
which more of the residual comes when the concept is spoken of than otherwise.
"""

from __future__ import annotations

import torch

from guard.methods.edit import RankOne


def excess(forget: torch.Tensor, retain: torch.Tensor) -> torch.Tensor:
    """How much more a dimension is used on the concept: ``max(0, E_forget[a_j^2] - E_retain[a_j^2])``, (d_in,).

    Args:
        forget: (n, d_in), inputs of ``down_proj`` where the concept is spoken of.
        retain: (m, d_in), likewise elsewhere.
    """
    return (forget.float().square().mean(0) - retain.float().square().mean(0)).clamp(min=0)


def ablate(dims: torch.Tensor, vectors: torch.Tensor, width: int) -> tuple[RankOne, ...]:
    """The edit of one layer that takes value vectors out.

    Args:
        dims: (k,) int64, which.
        vectors: (k, hidden), themselves.
        width: ``d_in``.
    """
    keys = torch.nn.functional.one_hot(dims, width).float()
    return tuple(RankOne(key, -vector.float()) for key, vector in zip(keys, vectors, strict=True))
