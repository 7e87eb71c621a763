"""Putting the masks of a batch on its logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from guard.decoding.automaton import Mask
from guard.kernels.token_ranges import subtract_ranges


def apply_masks(logits: torch.Tensor, masks: Sequence[Mask | None], order: torch.Tensor) -> None:
    """Take off the logits what the masks say, in place; what they forbid becomes minus infinity.

    Args:
        logits: (batch, width) float32, contiguous; at least as wide as the vocabulary has tokens.
        masks: one for each row; None for a row that may say anything.
        order: (entries,) int32 on the device of the logits, the vocabulary's ``table.order``.
    """
    forbidden = [(row, mask.forbidden) for row, mask in enumerate(masks) if mask is not None and len(mask.forbidden)]
    if forbidden:
        rows, ids = zip(*forbidden, strict=True)
        places = np.repeat(np.asarray(rows) * logits.shape[1], list(map(len, ids))) + np.concatenate(ids)
        logits.view(-1).index_fill_(0, torch.from_numpy(places).to(logits.device, non_blocking=True), -math.inf)
    ranges = [
        (row, *span) for row, mask in enumerate(masks) if mask is not None and mask.ranges for span in mask.ranges
    ]
    if ranges:
        rows, lows, highs, amounts = zip(*ranges, strict=True)
        subtract_ranges(logits, order, _ints(rows), _ints(lows), _ints(highs), torch.tensor(amounts))
    lists = [(row, *one) for row, mask in enumerate(masks) if mask is not None for one in mask.lists]
    if lists:
        rows, ids, amounts = zip(*lists, strict=True)
        bounds = [0, *accumulate(map(len, ids))]
        listed = torch.from_numpy(np.concatenate(ids)).to(logits.device)
        subtract_ranges(logits, listed, _ints(rows), _ints(bounds[:-1]), _ints(bounds[1:]), torch.tensor(amounts))


def _ints(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)
