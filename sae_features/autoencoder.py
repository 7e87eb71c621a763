"""A sparse autoencoder as plain tensors: one form for every architecture that is served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch


class AutoencoderError(ValueError):
    """An autoencoder that cannot be used, for the reason that the message gives."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What must be known of the served model."""

    hidden_size: int
    layers: int


@dataclass(frozen=True, slots=True, eq=False)
class SparseAutoencoder:
    """Features of the residual stream after one layer. Feature ``j`` of a residual ``x`` is

        y_j = (x - shift) . encoder_j        a_j = relu(gain_j * y_j + bias_j) where y_j > gate_j, else 0

    which is what four architectures come to:

    ============  ======================  ==========  ======  =====================================
    architecture  gate                    gain        bias
    ============  ======================  ==========  ======  =====================================
    standard      -inf                    1           b_enc
    jumprelu      threshold - b_enc       1           b_enc
    gated         -b_gate                 exp(r_mag)  b_mag
    topk          -inf                    1           b_enc   and only the ``k`` largest of a token
    ============  ======================  ==========  ======  =====================================

    ``shift`` is subtracted before the product and not folded into the biases: residual streams have coordinates in
    the hundreds, and the two large products would cancel. The reconstruction is ``a @ decoder + b_dec``.

    Attributes:
        encoder: (features, hidden), one row a feature, so that a few of them are gathered contiguously.
        decoder: (features, hidden).
        gate: (features,).
        gain: (features,).
        bias: (features,).
        shift: (hidden,).
        b_dec: (hidden,).
        ids: int64 (features,), which of the features of ``source`` these are.
        layer: it reads the residual stream *after* this decoder layer, counted from 0.
        k: how many features a token keeps, where that is decided among all of them (TopK); else None.
        source: where it came from, and a digest of the tensors that were there (:func:`identified`); features of
            different sources have nothing to do with each other.
    """

    encoder: torch.Tensor
    decoder: torch.Tensor
    gate: torch.Tensor
    gain: torch.Tensor
    bias: torch.Tensor
    shift: torch.Tensor
    b_dec: torch.Tensor
    ids: torch.Tensor
    layer: int
    k: int | None = None
    source: str = ""

    @property
    def features(self) -> int:
        """How many features there are."""
        return self.encoder.shape[0]

    @property
    def hidden_size(self) -> int:
        """The width of the residual stream."""
        return self.encoder.shape[1]

    def only(self, ids: torch.Tensor) -> SparseAutoencoder:
        """The features ``ids`` (int64 ``(n,)``) alone, in that order; what a worker needs of a target.

        Raises:
            AutoencoderError: which features of a token stay is decided among all of them (``k`` is set); see
                :func:`sae_features.encoding.thresholded`.
        """
        if self.k is not None:
            raise AutoencoderError("a TopK autoencoder must be given a fixed threshold before features are taken alone")
        return replace(
            self,
            encoder=self.encoder[ids],
            decoder=self.decoder[ids],
            gate=self.gate[ids],
            gain=self.gain[ids],
            bias=self.bias[ids],
            ids=self.ids[ids],
        )


def identified(autoencoder: SparseAutoencoder) -> SparseAutoencoder:
    """The autoencoder with a digest of its tensors after the name of its source.

    A path alone does not say which autoencoder was there: it may be trained anew, or loaded with another scaling.

    Args:
        autoencoder: whole, with tensors on the CPU, and a source without a digest.
    """
    digest = hashlib.sha256(str(autoencoder.k).encode())
    for name in ("encoder", "decoder", "gate", "gain", "bias", "shift", "b_dec"):
        digest.update(getattr(autoencoder, name).contiguous().numpy().data)
    return replace(autoencoder, source=f"{autoencoder.source}#{digest.hexdigest()[:12]}")


def check(autoencoder: SparseAutoencoder, model: ModelShape) -> None:
    """Whether an autoencoder fits the served model.

    Raises:
        AutoencoderError: it reads another width or a layer that the model does not have.
    """
    if autoencoder.hidden_size != model.hidden_size:
        raise AutoencoderError(
            f"the autoencoder {autoencoder.source!r} reads a residual stream of width {autoencoder.hidden_size}, "
            f"the served model's is {model.hidden_size} wide: it was trained on another model"
        )
    if not 0 <= autoencoder.layer < model.layers:
        raise AutoencoderError(
            f"the autoencoder {autoencoder.source!r} reads the residual stream after layer {autoencoder.layer}, "
            f"the served model has layers 0 to {model.layers - 1}"
        )
