"""Reading the sparse features of some tokens of a mixed batch: gather, encode, threshold, add up.

One pass over the residual stream of the tokens that are watched. What it leaves is what
:mod:`guard.kernels.sae_clamp` needs, in the same forward pass and without the host: the activations, which target
fired at which token, and for each request the sum of what its tokens said.
"""

from __future__ import annotations

import torch

from sae_features.table import FeatureTable

try:
    import triton
    import triton.language as tl
except ImportError:  # not every CPU has a build
    triton = None

#: Tile of tokens, features and hidden coordinates; ``tl.dot`` wants at least 16 of each.
_TOKENS, _FEATURES, _HIDDEN, _LEAST = 16, 32, 64, 16


def tap(
    residual: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor, table: FeatureTable, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode the watched tokens with the features in ``table`` and add up, for each request and target, what they say.

    A token says 1 for a target if one of its members is active, or the weighted sum of its features' activations; see
    :class:`sae_features.table.FeatureTable`.

    Args:
        residual: (tokens, hidden), any floating dtype, rows contiguous.
        rows: int64 (n,), the watched tokens; -1 pads, so that a captured graph has one shape. Leave out the first
            token of a request.
        slots: int64 (n,), of each row the slot of its request; any value in range where a row pads.
        table: float32, on the device of ``residual``.
        sums: float32 (slots, targets), added to in place; counts are exact up to 2**24.

    Returns:
        Activations, float32 (n, features), and whether a target fired, bool (n, targets). Padding has none.
    """
    run = tap_triton if triton is not None and residual.is_cuda else tap_reference
    return run(residual, rows, slots, table, sums)


def tap_reference(
    residual: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor, table: FeatureTable, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`tap` in PyTorch, on any device."""
    features = table.features
    y = (residual[rows.clamp(min=0)].float() - features.shift) @ features.encoder.T
    open_gate = (y > features.gate) & (rows >= 0)[:, None]
    activations = torch.where(open_gate, y * features.gain + features.bias, 0).relu()
    fired = (activations > 0).float() @ table.member.T.float() > 0
    says = fired * table.counts
    if table.weights is not None:
        says = says + activations @ table.weights.T
    sums.index_add_(0, slots, says)
    return activations, fired


def tap_triton(
    residual: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor, table: FeatureTable, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`tap` as one kernel."""
    features, (targets, count) = table.features, table.member.shape
    activations = torch.empty(len(rows), count, dtype=torch.float32, device=residual.device)
    fired = torch.empty(len(rows), targets, dtype=torch.bool, device=residual.device)
    _tap_kernel[(triton.cdiv(len(rows), _TOKENS),)](
        residual,
        rows,
        slots,
        features.encoder,
        features.gate,
        features.gain,
        features.bias,
        features.shift,
        table.member.view(torch.int8),
        table.counts,
        sums if table.weights is None else table.weights,  # read only if WEIGHED
        activations,
        fired.view(torch.int8),
        sums,
        len(rows),
        count,
        targets,
        features.hidden_size,
        residual.stride(0),
        WEIGHED=table.weights is not None,
        TOKENS=_TOKENS,
        FEATURES=_FEATURES,
        HIDDEN=_HIDDEN,
        TARGETS=max(_LEAST, triton.next_power_of_2(targets)),
    )
    return activations, fired


if triton is not None:

    @triton.jit
    def _tap_kernel(  # type: ignore[no-untyped-def]  # Triton reads annotations as code
        residual,
        rows,
        slots,
        encoder,
        gate,
        gain,
        bias,
        shift,
        member,
        counts,
        weights,
        activations,
        fired,
        sums,
        n_rows,
        n_features,
        n_targets,
        hidden,
        residual_stride,
        WEIGHED: tl.constexpr,
        TOKENS: tl.constexpr,
        FEATURES: tl.constexpr,
        HIDDEN: tl.constexpr,
        TARGETS: tl.constexpr,
    ):
        """One program: a tile of tokens, all features, all targets."""
        r = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
        inside = r < n_rows
        row = tl.load(rows + r, mask=inside, other=-1)
        live = row >= 0
        t = tl.arange(0, TARGETS)
        active = tl.zeros((TOKENS, TARGETS), tl.float32)  # active features of each target; exact, they are few
        says = tl.zeros((TOKENS, TARGETS), tl.float32)
        for first in range(0, n_features, FEATURES):
            f = first + tl.arange(0, FEATURES)
            known = f < n_features
            y = tl.zeros((TOKENS, FEATURES), tl.float32)
            for begin in range(0, hidden, HIDDEN):
                d = begin + tl.arange(0, HIDDEN)
                within = d < hidden
                at = residual + row[:, None] * residual_stride + d[None, :]
                x = tl.load(at, mask=live[:, None] & within[None, :], other=0.0).to(tl.float32)
                x -= tl.load(shift + d, mask=within, other=0.0)[None, :]
                directions = tl.load(
                    encoder + f[None, :] * hidden + d[:, None], mask=known[None, :] & within[:, None], other=0.0
                )
                # tf32 keeps ten bits: too few to compare with a threshold.
                y += tl.dot(x, directions, input_precision="ieee")
            scale = tl.load(gain + f, mask=known, other=0.0)[None, :]
            a = y * scale + tl.load(bias + f, mask=known, other=0.0)[None, :]
            passes = (y > tl.load(gate + f, mask=known, other=float("inf"))[None, :]) & live[:, None]
            a = tl.where(passes, tl.maximum(a, 0.0), 0.0)
            tl.store(activations + r[:, None] * n_features + f[None, :], a, mask=inside[:, None] & known[None, :])
            at = t[None, :] * n_features + f[:, None]
            real = (t < n_targets)[None, :] & known[:, None]
            belongs = tl.load(member + at, mask=real, other=0).to(tl.float16)
            active += tl.dot((a > 0).to(tl.float16), belongs)
            if WEIGHED:
                says += tl.dot(a, tl.load(weights + at, mask=real, other=0.0), input_precision="ieee")
        hit = active > 0
        says += hit.to(tl.float32) * tl.load(counts + t, mask=t < n_targets, other=0.0)[None, :]
        cell = inside[:, None] & (t < n_targets)[None, :]
        tl.store(fired + r[:, None] * n_targets + t[None, :], hit.to(tl.int8), mask=cell)
        slot = tl.load(slots + r, mask=inside, other=0)
        tl.atomic_add(sums + slot[:, None] * n_targets + t[None, :], says, mask=cell & live[:, None])
