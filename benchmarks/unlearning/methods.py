"""The methods that are compared: what each minimises, what it is tried with, and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.unlearning.losses import answer_logprobs, kl_from_uniform, kl_to, nll, npo, read
from server.demo.batches import Batch

#: As in the paper and in open-unlearning.
_BETA = 0.1


class Forget(StrEnum):
    """The term on what is to be forgotten."""

    ASCENT = "minus cross-entropy"
    NPO = "NPO"
    REMEMBER = "cross-entropy"  # of an assistant whose logits are subtracted


class Retain(StrEnum):
    """The term on what is to be kept."""

    NLL = "cross-entropy"
    KL = "KL to the original"
    UNIFORM = "KL from uniform"


class Setting(NamedTuple):
    """What is tried: a learning rate, and the weight of the retain term, the other term weighing 1."""

    rate: float
    retain_weight: float | None = None


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        forget: its term on what is to be forgotten.
        retain: its term on what is to be kept, if it has one.
        grid: what it is tried with.
    """

    forget: Forget
    retain: Retain | None
    grid: tuple[Setting, ...]

    @property
    def has_assistant(self) -> bool:
        """Whether it trains an assistant beside the model, which itself stays as it is."""
        return self.forget is Forget.REMEMBER

    def needs(self) -> dict[str, object]:
        """What it asks of whoever uses it."""
        return {
            "weights": "unchanged" if self.has_assistant else "changed",
            "switchable": "per request, by its assistant" if self.has_assistant else "no: a copy of the model each",
            "retain_set": self.retain is not None,
            "at_inference": "an assistant model at every token" if self.has_assistant else "nothing",
        }


METHODS: Mapping[str, Method] = {
    "ga": Method(Forget.ASCENT, None, (Setting(1e-4), Setting(3e-4), Setting(1e-3))),
    "gd": Method(Forget.ASCENT, Retain.NLL, (Setting(1e-3, 10), Setting(3e-4, 1))),
    "kl": Method(Forget.ASCENT, Retain.KL, (Setting(1e-3, 10), Setting(3e-4, 1))),
    "npo": Method(Forget.NPO, None, (Setting(1e-4), Setting(3e-4), Setting(1e-3))),
    "npo_gd": Method(Forget.NPO, Retain.NLL, (Setting(3e-4, 10), Setting(1e-3, 10))),
    # 5 is the published weight (configs/unlearn_loss of UCSB-NLP-Chang/ULD).
    "uld": Method(Forget.REMEMBER, Retain.UNIFORM, (Setting(3e-3, 5), Setting(1e-2, 5))),
}


def objective(
    method: Method,
    model: LlamaForCausalLM,
    original: LlamaForCausalLM,
    forget: Batch,
    retain: tuple[Batch, float] | None,
) -> Tensor:
    """What a method minimises, of shape ().

    Args:
        method: the method.
        model: what is trained: the model, or the assistant.
        original: the model before unlearning.
        forget: answers to forget.
        retain: answers to keep, and the weight of the term on them; None for methods that have no such term.
    """
    given = read(model, forget)
    if method.forget is Forget.NPO:
        with torch.no_grad():
            before = answer_logprobs(read(original, forget))
        loss = npo(answer_logprobs(given), before, _BETA)
    else:
        loss = nll(given) if method.forget is Forget.REMEMBER else -nll(given)
    if retain is None:
        return loss
    batch, weight = retain
    kept = read(model, batch)
    if method.retain is Retain.KL:
        with torch.no_grad():
            reference = read(original, batch)
        term = kl_to(kept, reference)
    else:
        term = kl_from_uniform(kept) if method.retain is Retain.UNIFORM else nll(kept)
    return loss + weight * term
