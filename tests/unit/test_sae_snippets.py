"""The places where a feature is most active."""

from __future__ import annotations

import torch

from sae_features.snippets import strongest


def _text(*activations: float) -> tuple[list[int], torch.Tensor]:
    return list(range(10, 10 + len(activations))), torch.tensor([[0.0, value] for value in activations])


def test_the_strongest_come_first_and_the_silent_not_at_all() -> None:
    texts = [_text(0, 1, 0, 0), _text(0, 0, 0, 5), _text(0, 0), _text(3), ([], torch.zeros(0, 2))]
    found = strongest(texts, 1, count=2, around=2)
    assert [(list(one.before), list(one.at), list(one.after), one.activation) for one in found] == [
        ([11, 12], [13], [], 5.0),
        ([], [10], [], 3.0),
    ]
    assert len(strongest(texts, 1)) == 3
    assert strongest(texts, 0) == []
