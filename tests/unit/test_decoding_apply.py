"""Masks on logits: the reference does what the masks say, and the Triton kernel what the reference does."""

import importlib
import math
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

from guard.decoding import Mask, apply_masks
from guard.kernels import token_ranges

ROWS, SIZE = 5, 3000


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The kernel's module, run by Triton's interpreter on the CPU."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    yield importlib.reload(token_ranges)
    monkeypatch.undo()
    importlib.reload(token_ranges)


def some_ranges(seed: int, count: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(SIZE, generator=generator, dtype=torch.int32).repeat(2)
    rows = torch.randint(ROWS, (count,), generator=generator, dtype=torch.int32)
    bounds = torch.randint(len(order), (2, count), generator=generator, dtype=torch.int32).sort(0).values
    amounts = torch.randint(1, 9, (count,), generator=generator).float()
    amounts[::2] = math.inf
    return order, rows, bounds[0].contiguous(), bounds[1].contiguous(), amounts


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_reference_takes_every_amount_off(count: int) -> None:
    order, rows, lows, highs, amounts = some_ranges(count, count)
    logits = torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(0))
    expected = logits.clone()
    for row, low, high, amount in zip(rows.tolist(), lows.tolist(), highs.tolist(), amounts.tolist(), strict=True):
        for token in order[low:high].tolist():
            expected[row, token] -= amount
    token_ranges.reference(logits, order, rows, lows, highs, amounts)
    torch.testing.assert_close(logits, expected)
    assert torch.isneginf(logits).any()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_kernel_equals_the_reference(interpreted: ModuleType, count: int) -> None:
    order, *ranges = some_ranges(count, count)
    logits = torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(0))
    expected = logits.clone()
    interpreted.reference(expected, order, *ranges)
    interpreted.launch(logits, order, *ranges)
    torch.testing.assert_close(logits, expected)


def test_empty_ranges_change_nothing(interpreted: ModuleType) -> None:
    order, rows, lows, _, amounts = some_ranges(3, 4)
    logits = torch.randn(ROWS, SIZE)
    expected = logits.clone()
    interpreted.reference(logits, order, rows, lows, lows, amounts)
    interpreted.launch(logits, order, rows, lows, lows, amounts)
    assert torch.equal(logits, expected)


def test_masks_concern_their_own_rows_and_add_up() -> None:
    order = torch.tensor([4, 2, 0, 1, 3], dtype=torch.int32)
    ids = np.array([3, 0], dtype=np.int32)
    masks = [
        None,
        Mask(ranges=((0, 2, math.inf), (1, 3, 0.5)), lists=()),
        Mask(ranges=(), lists=((ids, 2.0), (ids[:1], math.inf))),
        Mask((), ((ids, 3.0),), np.array([0, 4], dtype=np.int32)),
    ]
    logits = torch.ones(4, 7)  # two more tokens than the vocabulary names
    apply_masks(logits, masks, order)
    gone = -math.inf
    assert logits.tolist() == [
        [1, 1, 1, 1, 1, 1, 1],
        [0.5, 1, gone, 1, gone, 1, 1],
        [-1, 1, 1, gone, 1, 1, 1],
        [gone, 1, 1, -2, gone, 1, 1],
    ]
