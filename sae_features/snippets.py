"""Where a feature is most active: what people read to see what it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Snippet:
    """Token ids around the one at which a feature was most active in a text, and how active it was."""

    before: Sequence[int]
    at: Sequence[int]
    after: Sequence[int]
    activation: float


def strongest(
    texts: Iterable[tuple[Sequence[int], torch.Tensor]], feature: int, *, count: int = 3, around: int = 8
) -> list[Snippet]:
    """The texts in which a feature is most active, strongest first; none in which it is not.

    Args:
        texts: token ids and activations (tokens, features).
        feature: the column.
        count: at most so many.
        around: tokens to either side.
    """
    found = []
    for ids, activations in texts:
        if not len(ids):
            continue
        at = int(activations[:, feature].argmax())
        if (value := float(activations[at, feature])) > 0:
            found.append(Snippet(ids[max(0, at - around) : at], ids[at : at + 1], ids[at + 1 : at + 1 + around], value))
    return sorted(found, key=lambda one: -one.activation)[:count]
