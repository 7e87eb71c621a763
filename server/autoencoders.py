"""Autoencoders for a served model: opening one that fits it, and reading the activations that one is trained on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from vllm.config import ModelConfig

from guard.compile.grounds import render
from guard.probe import Probe
from guard.worker.controls import residual
from sae_features.autoencoder import ModelShape, SparseAutoencoder
from sae_features.loading import load
from server.settings import Settings

#: Texts that are read at once, and tokens of an answer that is read with its prompt.
_BATCH, _ANSWER = 64, 48


def shape_of(config: ModelConfig) -> ModelShape:
    """What an autoencoder must fit."""
    return ModelShape(config.get_hidden_size(), int(config.get_total_num_hidden_layers()))


def open_autoencoder(settings: Settings) -> SparseAutoencoder | None:
    """The autoencoder that the settings name.

    Raises:
        AutoencoderError: it cannot be used.
        FileNotFoundError: there is none.
    """
    if settings.sae is None:
        return None
    return load(settings.sae, settings.sae_id, layer=settings.sae_layer, norm_scaling=settings.sae_norm_scaling)


async def conversations(probe: Probe, prompts: Sequence[str]) -> list[list[int]]:
    """User messages with the model's answers to them, as token ids."""
    rendered = [render(probe.tokenizer, prompt) for prompt in prompts]
    answers = await probe.generate(rendered, max_tokens=_ANSWER)
    return [render(probe.tokenizer, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def pieces(tokenizer: Any, text: str, longest: int) -> list[list[int]]:
    """A text as token ids, cut where it is longer than ``longest``; pieces of one token are left out."""
    ids = tokenizer.encode(text)
    return [ids[at : at + longest] for at in range(0, len(ids), longest) if len(ids) - at > 1]


class Activations:
    """What the residual stream after a layer holds while texts are read, over and over in another order each time.

    Iterate in a thread: the event loop of the engine must be free to run it.

    Args:
        probe: the model.
        layer: after which.
        texts: token ids, at least one.
        loop: of the engine.
        seed: of the order.
    """

    def __init__(
        self, probe: Probe, layer: int, texts: Sequence[list[int]], loop: asyncio.AbstractEventLoop, seed: int
    ) -> None:
        self._probe, self._site, self._texts, self._loop = probe, residual(layer), texts, loop
        self._rng = random.Random(seed)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Batches (tokens, hidden) float32, without end; the first token of a text is left out."""
        order: list[int] = []
        ahead: Future[torch.Tensor] | None = None
        try:
            while True:
                if len(order) < _BATCH:
                    order += self._rng.sample(range(len(self._texts)), len(self._texts))
                some, order = order[:_BATCH], order[_BATCH:]
                # One batch is read while the trainer works on the one before it.
                reading = asyncio.run_coroutine_threadsafe(self.read([self._texts[at] for at in some]), self._loop)
                if ahead is not None:
                    yield ahead.result()
                ahead = reading
        finally:
            if ahead is not None:
                ahead.cancel()

    async def read(self, texts: Sequence[list[int]]) -> torch.Tensor:
        """The activations of some texts: (tokens, hidden) float32."""
        seen = await self._probe.activations(texts, [self._site])
        return torch.cat([one[self._site][1:] for one in seen])


def read_lines(files: Sequence[Path]) -> list[str]:
    """The lines of some files that hold anything."""
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
