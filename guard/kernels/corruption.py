"""ECO's corruption functions (Liu et al., NeurIPS 2024; arXiv 2406.07933; ``eco/attack/corrupt.py``), deterministic.

The published code draws new noise on every call. Here the noise of a token depends on a seed and on its position
alone, so a prompt is answered alike however it is batched, chunked or repeated.
"""

from __future__ import annotations

import torch

_PRIME = 0x9E3779B97F4A7C15  # spreads neighbouring positions over the seeds


def corrupt(
    embeddings: torch.Tensor, positions: list[int], kind: str, dims: int, strength: float, seed: int
) -> torch.Tensor:
    """Corrupted copies of token embeddings.

    * ``noise``: ``e[:dims] += N(0, strength^2)`` (the paper's ``rand_noise_first_n``);
    * ``zero``: the ``dims`` entries of largest magnitude become 0 (``zero_out_top_k``);
    * ``flip``: their sign changes (``flip_sign_top_k``).

    Args:
        embeddings: (tokens, hidden), any floating dtype.
        positions: of the tokens in their request, one for each row.
        kind: one of the three.
        dims: how many dimensions are touched; more than there are means all.
        strength: standard deviation of the noise.
        seed: 64 bits.

    Raises:
        ValueError: there is no such kind.
    """
    dims = min(dims, embeddings.shape[1])
    if kind == "noise":
        noise = torch.stack([_noise(dims, seed, position) for position in positions]).to(embeddings.device)
        result = embeddings.clone()
        result[:, :dims] = (result[:, :dims].float() + strength * noise).to(embeddings.dtype)
        return result
    if kind not in ("zero", "flip"):
        raise ValueError(f"no corruption is called {kind!r}")
    largest = embeddings.abs().topk(dims, dim=1).indices
    changed = torch.zeros_like(embeddings) if kind == "zero" else -embeddings
    return embeddings.scatter(1, largest, changed.gather(1, largest))


def _noise(dims: int, seed: int, position: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed((seed ^ (position + 1) * _PRIME) & (2**63 - 1))
    return torch.randn(dims, generator=generator)
