"""Taking amounts off ranges of a token order, in the rows of a batch of logits.

The ranges are positions in a permutation of the vocabulary (or any list of token ids), so that a few numbers stand for
many tokens. PyTorch reference, and a Triton kernel that equals it.
"""

from __future__ import annotations

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # a build of PyTorch without Triton: the reference serves
    triton = None

_BLOCK = 1024


def subtract_ranges(
    logits: torch.Tensor,
    order: torch.Tensor,
    rows: torch.Tensor,
    lows: torch.Tensor,
    highs: torch.Tensor,
    amounts: torch.Tensor,
) -> None:
    """``logits[rows[i], order[lows[i]:highs[i]]] -= amounts[i]`` for every ``i``, in place; amounts add up.

    Runs the kernel on a GPU, the reference elsewhere.

    Args:
        logits: (batch, vocabulary) float32, contiguous, below infinity.
        order: (entries,) int32 token ids below ``vocabulary``, on the device of the logits.
        rows: (ranges,) int32, on the CPU like all that follow.
        lows: (ranges,) int32.
        highs: (ranges,) int32.
        amounts: (ranges,) float32; infinity makes the logit minus infinity.
    """
    if triton is not None and logits.is_cuda:
        launch(logits, order, rows, lows, highs, amounts)
    else:
        reference(logits, order, rows, lows, highs, amounts)


def reference(
    logits: torch.Tensor,
    order: torch.Tensor,
    rows: torch.Tensor,
    lows: torch.Tensor,
    highs: torch.Tensor,
    amounts: torch.Tensor,
) -> None:
    """:func:`subtract_ranges` in PyTorch."""
    endless = amounts.isinf()
    if endless.any():  # what is forbidden needs no sum, which takes several times as long
        for row, low, high in torch.stack([rows, lows, highs], 1)[endless].tolist():
            logits[row].index_fill_(0, order[low:high].long(), -torch.inf)
        rows, lows, highs, amounts = rows[~endless], lows[~endless], highs[~endless], amounts[~endless]
        if not len(rows):
            return
    lengths = (highs - lows).long()
    ends = lengths.cumsum(0)
    # Position p of the concatenated ranges is in range which[p], at lows[which[p]] + (p - start of that range).
    which = torch.repeat_interleave(lengths)
    places = torch.arange(int(ends[-1])) + (lows - ends + lengths)[which]
    flat = (rows.long() * logits.shape[1])[which].to(logits.device) + order[places.to(order.device)]
    logits.view(-1).scatter_add_(0, flat, -amounts[which].to(logits.device))


if triton is not None:

    @triton.jit
    def _subtract(logits, order, ranges, amounts, count, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        number = tl.program_id(0)
        row = tl.load(ranges + number)
        low = tl.load(ranges + count + number)
        high = tl.load(ranges + 2 * count + number)
        amount = tl.load(amounts + number)
        places = low + tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        within = places < high
        tokens = tl.load(order + places, mask=within, other=0)
        # Ranges of one row may share tokens, so that the sum has to be atomic.
        tl.atomic_add(logits + row.to(tl.int64) * stride + tokens, -amount, mask=within, sem="relaxed")


def launch(
    logits: torch.Tensor,
    order: torch.Tensor,
    rows: torch.Tensor,
    lows: torch.Tensor,
    highs: torch.Tensor,
    amounts: torch.Tensor,
) -> None:
    """:func:`subtract_ranges` by the Triton kernel: one copy to the device, one launch."""
    longest = int((highs - lows).max())
    if not longest:
        return
    ranges = torch.stack([rows, lows, highs]).to(logits.device, non_blocking=True)
    grid = (len(rows), triton.cdiv(longest, _BLOCK))
    weights = amounts.to(logits.device, non_blocking=True)
    _subtract[grid](logits, order, ranges, weights, len(rows), logits.shape[1], BLOCK=_BLOCK)
