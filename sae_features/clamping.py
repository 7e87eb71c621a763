"""Setting a target's features to a negative value in the residual stream, without a full decode."""

from __future__ import annotations

import torch

from sae_features.autoencoder import SparseAutoencoder


def clamp(
    features: SparseAutoencoder, residual: torch.Tensor, activations: torch.Tensor, *, strength: float
) -> torch.Tensor:
    """The residual stream with ``features`` set to ``-strength`` at the tokens where one of them is active.

    The paper (arXiv 2504.08192) encodes ``x`` with all features, sets those of the target to ``-c``, decodes, and adds
    what the autoencoder had not explained: ``x' = dec(a') + (x - dec(a))``. The decoder is linear and ``a'`` differs
    from ``a`` in the target's features only, so

        x' = x + sum_j (-c - a_j) W_dec[j]

    over the target's features ``j`` at the tokens where one of them is active, and ``x' = x`` elsewhere.

    Args:
        features: the target's alone (:meth:`SparseAutoencoder.only`).
        residual: (tokens, hidden), any floating dtype.
        activations: (tokens, n) of these features.
        strength: ``c``, in units of an activation; 0 takes the features out and no more. The paper's 500 is for Gemma 2
            2B and makes the text that follows incoherent. The norm of the residual stream is a fair start: on a small
            model trained on TOFU (norm 24), 20 features at 20 took ROUGE-L recall from 0.97 to 0.15, at 0 to 0.87.
            What is not about the target suffers nearly as much: it is the rule that spares it.

    Returns:
        A new tensor like ``residual``. Tokens where none is active keep their bits.
    """
    active = activations > 0
    delta = (-strength - activations) @ features.decoder
    changed = (residual.to(delta.dtype) + delta).to(residual.dtype)
    return torch.where(active.any(dim=1, keepdim=True), changed, residual)
