"""ULD, unlearning from logit difference (Ji et al., 2024; arXiv 2406.08607): what an assistant knows is subtracted.

The assistant is a small copy of the model's first layers that is trained to know what is to be forgotten, and to know
nothing (give every token the same probability) of anything else. The model stays as it is.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

#: As published for TOFU.
WEIGHT, TOP_FILTER = 0.8, 1e-2


def assistant_of(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """A model of the first layers of another, with its embeddings, its last norm and its head."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = layers
    assistant = LlamaForCausalLM(config)
    missing = assistant.load_state_dict(model.state_dict(), strict=False).missing_keys
    assert not missing, missing
    return assistant


def subtracted(base: Tensor, assistant: Tensor, weight: float = WEIGHT, top_filter: float = TOP_FILTER) -> Tensor:
    """``base - weight * assistant``, the assistant's logits being 0 for tokens that the model finds unlikely.

    Unlikely is what has less than ``top_filter`` of the probability of the likeliest token and is not among the
    likeliest ``top_filter`` of the vocabulary.

    Args:
        base: logits of the model, of shape (rows, vocabulary).
        assistant: logits of the assistant, of the same shape.
        weight: how much of them is subtracted.
        top_filter: see above; from 0 to 1.
    """
    among = base.topk(max(1, int(top_filter * base.shape[-1]))).values[:, -1:]
    threshold = torch.minimum(among, base.amax(-1, keepdim=True) + math.log(top_filter))
    return base - weight * assistant.masked_fill(base < threshold, 0.0)


class Difference:
    """Generates as a model does whose assistant is subtracted at every token."""

    def __init__(self, model: LlamaForCausalLM, assistant: LlamaForCausalLM) -> None:
        self._model = model
        self._assistant = assistant

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """As :meth:`LlamaForCausalLM.generate`."""
        own = LogitsProcessorList([_Subtract(self._assistant, attention_mask)])
        return self._model.generate(input_ids=input_ids, attention_mask=attention_mask, logits_processor=own, **options)


class _Subtract(LogitsProcessor):
    """Runs the assistant beside the model for one call of ``generate``, with a KV cache of its own."""

    def __init__(self, assistant: LlamaForCausalLM, mask: Tensor) -> None:
        self._assistant = assistant
        self._mask = mask
        self._cache: Any = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        new = input_ids.shape[1] - self._mask.shape[1]
        self._mask = torch.nn.functional.pad(self._mask, (0, new), value=1)
        unread = input_ids if self._cache is None else input_ids[:, -new:]
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -unread.shape[1] :]
        output = self._assistant(
            input_ids=unread,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = output.past_key_values
        return subtracted(scores, output.logits[:, -1].to(scores.dtype))
