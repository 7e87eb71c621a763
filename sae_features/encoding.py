"""Feature activations of residual-stream vectors: of all features, or of those alone that somebody asked for."""

from __future__ import annotations

from dataclasses import replace

import torch

from sae_features.autoencoder import SparseAutoencoder


def encode(autoencoder: SparseAutoencoder, residual: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
    """Activations of the features ``ids``, or of all of them.

    With a gate of its own for each feature (standard, JumpReLU, gated) this costs ``tokens * n * hidden``. TopK has
    no such shortcut: whether a feature stays depends on the k-th largest of *all* pre-activations of the token, so
    all of them are computed here and the result is exact. For serving, :func:`thresholded` makes the gates fixed.

    Features tied at the k-th place all stay, where sae-lens keeps an arbitrary one.

    Args:
        autoencoder: with tensors on the device of ``residual``.
        residual: (tokens, hidden), any floating dtype; what is narrower than the weights is widened.
        ids: int64 (n,).

    Returns:
        (tokens, n), in the dtype of the weights; 0 where a feature is not active.
    """
    centred = residual.to(autoencoder.encoder.dtype) - autoencoder.shift
    if autoencoder.k is not None:
        pre = _pre_activations(autoencoder, centred)
        least = pre.topk(autoencoder.k, dim=1).values[:, -1:]
        pre = torch.where(pre >= least, pre, 0).relu()
        return pre if ids is None else pre[:, ids]
    return _gated(autoencoder if ids is None else autoencoder.only(ids), centred)


def decode(autoencoder: SparseAutoencoder, activations: torch.Tensor) -> torch.Tensor:
    """The residual stream (tokens, hidden) that activations (tokens, features) stand for."""
    return activations @ autoencoder.decoder + autoencoder.b_dec


def thresholded(autoencoder: SparseAutoencoder, residual: torch.Tensor) -> SparseAutoencoder:
    """A TopK autoencoder with one fixed threshold in place of ``k``: an approximation that serves a few features alone.

    The threshold is the one at which the tokens of ``residual`` have ``k`` active features on average, as in BatchTopK
    (Bussmann et al., 2024; arXiv 2412.06410), where a batch of tokens shares its ``k * tokens`` places. A single token
    may have more or fewer than ``k``; a feature that stays has exactly its TopK activation.

    The threshold becomes part of the ``source``.

    Args:
        autoencoder: one with ``k``; others are returned as they are.
        residual: (tokens, hidden) of ordinary text, without the first token of a sequence, whose norm is far from
            that of others.
    """
    if autoencoder.k is None:
        return autoencoder
    pre = _pre_activations(autoencoder, residual.to(autoencoder.encoder.dtype) - autoencoder.shift).flatten()
    threshold = pre.kthvalue(pre.numel() - autoencoder.k * len(residual)).values
    # Fitted on other text it is another threshold, and the features are gated otherwise.
    source = f"{autoencoder.source}@{float(threshold):.9g}"
    return replace(autoencoder, gate=threshold - autoencoder.bias, k=None, source=source)


def _pre_activations(autoencoder: SparseAutoencoder, centred: torch.Tensor) -> torch.Tensor:
    return (centred @ autoencoder.encoder.T) * autoencoder.gain + autoencoder.bias


def _gated(autoencoder: SparseAutoencoder, centred: torch.Tensor) -> torch.Tensor:
    y = centred @ autoencoder.encoder.T
    return torch.where(y > autoencoder.gate, y * autoencoder.gain + autoencoder.bias, 0).relu()
