"""Adding the rank-one edits of a mixed batch to the output of a linear layer."""

from __future__ import annotations

from collections.abc import Callable

import torch


def add_edits(
    out: torch.Tensor,
    x: torch.Tensor,
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    floors: torch.Tensor | None = None,
    total: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores,
) -> None:
    """``out[rows] += (f(x[rows] @ keys.T) * mask) @ values``, in place; all other rows keep their bits.

    Edit ``j`` is the rank-one change ``values[j] keys[j]^T`` of the layer's weight (``f(s) = s``), or, with a floor, a
    switch (``f(s) = [s >= floor]``). So any number of edits of any number of requests is two thin matrix products over
    the edits that are live in the batch.

    Args:
        out: (tokens, d_out), changed in place.
        x: (tokens, d_in), the layer's input.
        rows: (n,) int64, the tokens that have any edit.
        keys: (edits, d_in) float32.
        values: (edits, d_out) float32.
        mask: (n, edits) float32, 1 where the token has the edit.
        floors: (edits,) float32, minus infinity for edits without; None where no edit has one.
        total: sums scores over the ranks that each hold a slice of ``d_in``, maybe in place; asked only where there are
            floors.
    """
    scores = x[rows].float() @ keys.T
    if floors is not None:
        scores = torch.where(floors.isneginf(), scores, (total(scores.clone()) >= floors).float())
    out[rows] = (out[rows].float() + (scores * mask) @ values).to(out.dtype)
