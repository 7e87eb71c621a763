"""LUNAR (Shen et al., NeurIPS 2025; arXiv 2502.07218; facebookresearch/LUNAR) in closed form.

LUNAR trains one ``mlp.down_proj`` so that what it adds for forget prompts moves by ``c r`` and for retain prompts
stays, where ``r`` is the mean difference of the residual between prompts that the model cannot answer and forget
prompts. The forget target being the same vector for every token, the ridge optimum is rank one:

    dW = c r s^T,   s = (X_f X_f^T + X_r X_r^T + lambda I)^{-1} sum_{t in forget} x_t.

``s`` is also what tells forget from retain inputs best in the sense of least squares, so it can be the key of a switch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: A switch is on half-way between what its key says of most inputs that it is for and of hardly any other, and not
#: before it says half of what it says of the former on average: on TOFU a lower floor finds little more of them and,
#: with twenty switches at once, loses 0.13 of what others are asked.
_MOST, _HARDLY, _LEAST = 0.1, 0.99, 0.5


def direction(unanswerable: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    """``r``: from the mean residual of forget prompts to that of prompts the model says it cannot answer.

    Args:
        unanswerable: (prompts, hidden), the residual after a layer at the last token of each prompt.
        forget: (prompts, hidden), likewise.
    """
    return unanswerable.float().mean(0) - forget.float().mean(0)


@dataclass(frozen=True, slots=True)
class Switch:
    """When an edit is on.

    Attributes:
        key: (d_in,); it says 1 of the target on average.
        floor: from what it says on.
        margin: how far apart lie what the key says of most inputs of the target and of hardly any other, none of which
            it was made from; negative where it cannot tell them apart.
    """

    key: torch.Tensor
    floor: float
    margin: float


class Retained:
    """What stays, whatever is to move: its part of the normal equations is worked out once for many keys."""

    def __init__(self, rows: torch.Tensor) -> None:
        """Take ``rows`` (n, d_in), inputs of ``down_proj``; a row may be scaled to weigh its token."""
        self._rows = rows.float()
        # By way of whichever of n and d_in is smaller: wide layers never need a (d_in, d_in) matrix.
        self._wide = rows.shape[1] > len(rows)
        self._gram = self._rows @ self._rows.T if self._wide else self._rows.T @ self._rows
        self._square = float(self._rows.square().sum())

    def key(self, forget: torch.Tensor, retain: torch.Tensor | None = None, *, ridge: float = 0.01) -> torch.Tensor:
        """``s`` of one layer: (d_in,). The edit is ``RankOne(s, c r)``.

        Args:
            forget: (n, d_in), inputs of ``down_proj`` on forget prompts.
            retain: (m, d_in), more of what stays.
            ridge: ``lambda`` as a share of the mean square of the inputs.
        """
        right = forget.float().sum(0)
        more = forget.float() if retain is None else torch.cat([forget, retain]).float()
        penalty = ridge * (self._square + float(more.square().sum())) / more.shape[1]
        if not self._wide:
            return torch.linalg.solve(self._gram + more.T @ more + penalty * torch.eye(more.shape[1]), right)
        # Woodbury's identity.
        rows, cross = torch.cat([self._rows, more]), self._rows @ more.T
        gram = torch.cat([torch.cat([self._gram, cross], 1), torch.cat([cross.T, more @ more.T], 1)])
        inner = torch.linalg.solve(gram + penalty * torch.eye(len(rows)), rows @ right)
        return (right - rows.T @ inner) / penalty

    def switch(self, target: torch.Tensor, others: torch.Tensor) -> Switch:
        """The switch that tells a target from others.

        Args:
            target: (n, d_in), inputs at which it is to be on.
            others: (m, d_in), of the same kind, at which it is not; inputs that go together next to each other.
        """

        def key(target: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
            return normal(self.key(weighed(target), weighed(others)), target)

        # What keys say of inputs that they were not made from; in runs of ten, so that few that go together are parted.
        half = torch.arange(len(others)) // 10 % 2 == 0
        hardly = (others[half] @ key(target, others[~half])).quantile(_HARDLY)
        most = (target[1::2] @ key(target[::2], others)).quantile(_MOST) if len(target) > 1 else torch.tensor(1.0)
        return Switch(key(target, others), max(float(hardly + most) / 2, _LEAST), float(most - hardly))


def weighed(rows: torch.Tensor) -> torch.Tensor:
    """Inputs (n, d_in) scaled so that they weigh as much together, whatever their number."""
    return rows / len(rows) ** 0.5


def normal(key: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A key (d_in,) that says 1 of ``target`` (n, d_in) on average: ridge shrinks it, and coefficients should not."""
    return key / float((target @ key).mean())
