"""Clamping the sparse features of some tokens of a mixed batch, after :mod:`guard.kernels.sae_tap` has read them."""

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


def clamp(
    residual: torch.Tensor,
    rows: torch.Tensor,
    slots: torch.Tensor,
    table: FeatureTable,
    activations: torch.Tensor,
    fired: torch.Tensor,
    flagged: torch.Tensor,
) -> None:
    """Set the members of the targets that a request is flagged for to minus their strength, where they fire, in place.

    ``residual[row] += sum_j (-c_j - a_j) decoder_j`` over the members ``j`` of the targets that fired at the row and
    are flagged for its request; see :func:`sae_features.clamping.clamp`. All other rows keep their bits.

    Args:
        residual: (tokens, hidden), any floating dtype, rows contiguous; changed in place.
        rows: int64 (n,), no row twice; -1 pads.
        slots: int64 (n,), of each row the slot of its request.
        table: as for the tap.
        activations: float32 (n, features), from the tap.
        fired: bool (n, targets), from the tap.
        flagged: bool (slots, targets), for which targets the rule has fired.
    """
    run = clamp_triton if triton is not None and residual.is_cuda else clamp_reference
    run(residual, rows, slots, table, activations, fired, flagged)


def clamp_reference(
    residual: torch.Tensor,
    rows: torch.Tensor,
    slots: torch.Tensor,
    table: FeatureTable,
    activations: torch.Tensor,
    fired: torch.Tensor,
    flagged: torch.Tensor,
) -> None:
    """:func:`clamp` in PyTorch, on any device; the number of changed rows is read by the host."""
    clamped = (fired & flagged[slots]).float() @ table.member.float() > 0
    changed = (clamped.any(dim=1) & (rows >= 0)).nonzero().squeeze(1)
    change = torch.where(clamped, -table.strength - activations, 0)[changed]
    delta = change @ table.features.decoder
    residual[rows[changed]] = (residual[rows[changed]].float() + delta).to(residual.dtype)


def clamp_triton(
    residual: torch.Tensor,
    rows: torch.Tensor,
    slots: torch.Tensor,
    table: FeatureTable,
    activations: torch.Tensor,
    fired: torch.Tensor,
    flagged: torch.Tensor,
) -> None:
    """:func:`clamp` as one kernel, which reads nothing back."""
    (targets, count), hidden = table.member.shape, table.features.hidden_size
    _clamp_kernel[(triton.cdiv(len(rows), _TOKENS), triton.cdiv(hidden, _HIDDEN))](
        residual,
        rows,
        slots,
        table.features.decoder,
        table.member.view(torch.int8),
        activations,
        fired.view(torch.int8),
        flagged.view(torch.int8),
        table.strength,
        len(rows),
        count,
        targets,
        hidden,
        residual.stride(0),
        TOKENS=_TOKENS,
        FEATURES=_FEATURES,
        HIDDEN=_HIDDEN,
        TARGETS=max(_LEAST, triton.next_power_of_2(targets)),
    )


if triton is not None:

    @triton.jit
    def _clamp_kernel(  # type: ignore[no-untyped-def]  # Triton reads annotations as code
        residual,
        rows,
        slots,
        decoder,
        member,
        activations,
        fired,
        flagged,
        strength,
        n_rows,
        n_features,
        n_targets,
        hidden,
        residual_stride,
        TOKENS: tl.constexpr,
        FEATURES: tl.constexpr,
        HIDDEN: tl.constexpr,
        TARGETS: tl.constexpr,
    ):
        """One program: a tile of tokens and a tile of hidden coordinates."""
        r = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
        d = tl.program_id(1) * HIDDEN + tl.arange(0, HIDDEN)
        within = d < hidden
        row = tl.load(rows + r, mask=r < n_rows, other=-1)
        live = row >= 0
        t = tl.arange(0, TARGETS)
        cell = live[:, None] & (t < n_targets)[None, :]
        slot = tl.load(slots + r, mask=live, other=0)
        flag = tl.load(flagged + slot[:, None] * n_targets + t[None, :], mask=cell, other=0)
        acts = tl.load(fired + r[:, None] * n_targets + t[None, :], mask=cell, other=0) * flag
        touched = tl.max(acts.to(tl.int32), axis=1) > 0
        if tl.max(touched.to(tl.int32), axis=0) > 0:
            delta = tl.zeros((TOKENS, HIDDEN), tl.float32)
            for first in range(0, n_features, FEATURES):
                f = first + tl.arange(0, FEATURES)
                known = f < n_features
                belongs = tl.load(
                    member + t[:, None] * n_features + f[None, :],
                    mask=(t < n_targets)[:, None] & known[None, :],
                    other=0,
                )
                clamped = tl.dot(acts.to(tl.float16), belongs.to(tl.float16)) > 0
                at = activations + r[:, None] * n_features + f[None, :]
                a = tl.load(at, mask=live[:, None] & known[None, :], other=0.0)
                directions = tl.load(
                    decoder + f[:, None] * hidden + d[None, :], mask=known[:, None] & within[None, :], other=0.0
                )
                c = tl.load(strength + f, mask=known, other=0.0)[None, :]
                delta += tl.dot(tl.where(clamped, -c - a, 0.0), directions, input_precision="ieee")
            at = residual + row[:, None] * residual_stride + d[None, :]
            mask = touched[:, None] & within[None, :]
            x = tl.load(at, mask=mask, other=0.0)
            tl.store(at, (x.to(tl.float32) + delta).to(x.dtype), mask=mask)
