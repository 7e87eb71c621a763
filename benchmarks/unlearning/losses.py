"""The terms that unlearning objectives are made of, over the positions at which answers are predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid
from transformers import LlamaForCausalLM

from server.demo.batches import IGNORED, Batch


@dataclass(frozen=True)
class Read:
    """What a model makes of the answers of a batch, at the N positions that have a label.

    Attributes:
        logits: float32, of shape (N, vocabulary).
        labels: the tokens of the answers, int64, of shape (N,).
        rows: the row of the batch that each is from, int64, of shape (N,).
    """

    logits: Tensor
    labels: Tensor
    rows: Tensor


def read(model: LlamaForCausalLM, batch: Batch) -> Read:
    """Run a model over a batch, in bfloat16 as it was trained; logits only where there is a label."""
    labelled = batch.labels != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # Padding stands on the right, where the causal mask already hides it.
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[labelled])
    return Read(logits.float(), batch.labels[labelled], labelled.nonzero()[:, 0])


def nll(given: Read) -> Tensor:
    """Mean cross-entropy of the answers in nats a token. Its negative is what gradient ascent minimises."""
    return cross_entropy(given.logits, given.labels)


def answer_logprobs(given: Read) -> Tensor:
    """The log-probability in nats of each whole answer, of shape (rows,)."""
    logprobs = -cross_entropy(given.logits, given.labels, reduction="none")
    return torch.zeros(int(given.rows.max()) + 1).index_add(0, given.rows, logprobs)


def npo(logprobs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Negative Preference Optimisation (Zhang et al., 2024; arXiv 2404.05868): mean over answers of
    ``-2/beta log sigmoid(-beta (log p - log p_reference))``.

    Args:
        logprobs: of whole answers under the model, of shape (rows,).
        reference: the same under the model before unlearning.
        beta: how soon an answer that became unlikely stops to count; towards 0 it is gradient ascent.
    """
    return -2 / beta * logsigmoid(-beta * (logprobs - reference)).mean()


def kl_to(given: Read, reference: Read) -> Tensor:
    """Mean over positions of ``KL(reference || model)`` in nats, as in TOFU (Maini et al., 2024)."""
    return kl_div(
        log_softmax(given.logits, -1), log_softmax(reference.logits, -1), reduction="batchmean", log_target=True
    )


def kl_from_uniform(given: Read) -> Tensor:
    """Mean over positions of ``KL(uniform || model)`` in nats, as ULD has it: 0 where all tokens are as likely."""
    logprobs = log_softmax(given.logits, -1)
    return kl_div(logprobs, torch.full_like(logprobs, 1 / logprobs.shape[-1]), reduction="batchmean")
