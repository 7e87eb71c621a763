"""Putting the masks of a batch on its logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from guard.decoding.automaton import Mask
from guard.decoding.spared import Ids
from guard.kernels.token_ranges import subtract_ranges


def apply_masks(logits: torch.Tensor, masks: Sequence[Mask | None], order: torch.Tensor) -> None:
    """Take off the logits what the masks say, in place; what they forbid becomes minus infinity.

    Args:
        logits: (batch, width) float32, contiguous; at least as wide as the vocabulary has tokens.
        masks: one for each row; None for a row that may say anything.
        order: (entries,) int32 on the device of the logits, the vocabulary's ``table.order``.
    """
    starts: list[int] = []
    forbidden: list[Ids] = []
    ranges: list[tuple[int, int, int, float]] = []
    lists: list[tuple[int, Ids, float]] = []
    for row, mask in enumerate(masks):
        if mask is None:
            continue
        if mask.only is not None:
            ids = torch.from_numpy(mask.only.astype(np.int64)).to(logits.device, non_blocking=True)
            kept = logits[row, ids]
            logits[row] = -math.inf
            logits[row, ids] = kept
        if len(mask.forbidden):
            starts.append(row * logits.shape[1])
            forbidden.append(mask.forbidden)
        if mask.ranges:
            ranges += [(row, *span) for span in mask.ranges]
        if mask.lists:
            lists += [(row, *one) for one in mask.lists]
    if forbidden:
        places = np.concatenate(forbidden, dtype=np.int64)
        places += np.repeat(starts, list(map(len, forbidden)))
        logits.view(-1).index_fill_(0, torch.from_numpy(places).to(logits.device, non_blocking=True), -math.inf)
    if ranges:
        numbers, lows, highs, amounts = zip(*ranges, strict=True)
        subtract_ranges(logits, order, _ints(numbers), _ints(lows), _ints(highs), torch.tensor(amounts))
    if lists:
        numbers, ids, amounts = zip(*lists, strict=True)
        bounds = [0, *accumulate(map(len, ids))]
        listed = torch.from_numpy(np.concatenate(ids)).to(logits.device)
        subtract_ranges(logits, listed, _ints(numbers), _ints(bounds[:-1]), _ints(bounds[1:]), torch.tensor(amounts))


def _ints(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)
