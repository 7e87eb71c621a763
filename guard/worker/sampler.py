"""vLLM's sampler, for outputs that may run out of things to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.sample.sampler import Sampler


class EndingSampler(Sampler):
    """Ends an output in which the client's restrictions and ours together leave no token.

    Attributes:
        rows: of the step, in which that may be so.
    """

    def __init__(self, *args: Any, end: int, **kwargs: Any) -> None:
        """``end`` is the token that ends an output; the rest is for vLLM's sampler."""
        super().__init__(*args, **kwargs)
        self._end = end
        self.rows: Sequence[int] = ()

    def end(self, logits: torch.Tensor, rows: Sequence[int]) -> None:
        """Leave nothing but the end to some rows of ``logits`` (requests, vocabulary), in place."""
        if rows:
            logits[rows] = -math.inf
            logits[rows, self._end] = 0.0

    def apply_logits_processors(self, logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As vLLM's; then a row without a finite logit gets one, that of the end."""
        logits = super().apply_logits_processors(logits, *args, **kwargs)
        if self.rows:
            rows = torch.tensor(self.rows, device=logits.device)
            best = logits[rows].amax(dim=-1)
            logits[rows, self._end] = torch.where(best == -math.inf, 0.0, logits[rows, self._end])
        return logits
