"""O3's score over several layers (ICLR 2025, arXiv 2407.10223), read from the model that is served.

O3 compares a prompt with what is to be forgotten at every layer of an encoder that it trains for that purpose, by the
greatest cosine and by Mahalanobis's distance, and lets a one-class SVM join the layers. Here the encoder is the served
model itself, which costs no second one, and each part is put on the scale of benign prompts before the mean is taken:
with the two dozen questions that a target has, an SVM's weights would be noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.covariance import LedoitWolf

from guard.compile.grounds import render
from guard.probe import Probe
from guard.worker.controls import residual
from sae_features.joint import Scale

_BATCH = 64


async def pooled(probe: Probe, texts: Sequence[str], layers: Sequence[int]) -> np.ndarray:
    """The mean of the residual stream over each prompt but its first token: (texts, layers, hidden) float32."""
    found = []
    sites = [residual(layer) for layer in layers]
    for first in range(0, len(texts), _BATCH):
        prompts = [render(probe.tokenizer, text) for text in texts[first : first + _BATCH]]
        seen = await probe.activations(prompts, sites)
        found += [torch.stack([one[site][1:].mean(0) for site in sites]).numpy() for one in seen]
    return np.stack(found)


class LayerScore:
    """How like what is known of a target a prompt is, over all layers.

    Args:
        own: (questions on the target, layers, hidden).
        benign: (prompts on nothing of the kind, layers, hidden); the scale.
    """

    def __init__(self, own: np.ndarray, benign: np.ndarray) -> None:
        self._own = own / np.linalg.norm(own, axis=2, keepdims=True)
        self._middle = own.mean(0)
        self._precision = [LedoitWolf().fit(own[:, layer]).precision_ for layer in range(own.shape[1])]
        parts = self._parts(benign)
        self._scales = [Scale.of(parts[:, at]) for at in range(parts.shape[1])]

    def __call__(self, prompts: np.ndarray) -> np.ndarray:
        """The score of each prompt, more being more like the target: (prompts,)."""
        parts = self._parts(prompts)
        return np.mean([scale(parts[:, at]) for at, scale in enumerate(self._scales)], axis=0)

    def _parts(self, prompts: np.ndarray) -> np.ndarray:
        """By layer, the greatest cosine, and minus half of the squared distance: (prompts, 2 * layers)."""
        unit = prompts / np.linalg.norm(prompts, axis=2, keepdims=True)
        cosine = np.einsum("plh,olh->plo", unit, self._own).max(2)
        apart = prompts - self._middle
        distance = [np.einsum("ph,hk,pk->p", apart[:, at], one, apart[:, at]) for at, one in enumerate(self._precision)]
        return np.concatenate([cosine, -0.5 * np.stack(distance, axis=1)], axis=1)
