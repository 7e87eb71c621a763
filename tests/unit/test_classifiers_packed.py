"""Packed linear layers compute what the plain ones do, or are not used."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from classifiers import packed
from classifiers.packed import PackedLinear, pack_linear

needs_packing = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()),
    reason="oneDNN packs bfloat16 weights on processors that compute with them",
)


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Sequential(nn.Linear(96, 32, bias=False)))
    return model.to(torch.bfloat16).eval()


@needs_packing
@pytest.mark.parametrize("shape", [(1, 48), (3, 5, 48), (40, 48)])
def test_packed_layers_compute_the_same_to_the_last_bit(shape: tuple[int, ...]) -> None:
    plain = _model()
    model = copy.deepcopy(plain)
    assert pack_linear(model) == 2
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize("wrong", [RuntimeError, AttributeError, None])
def test_a_layer_that_cannot_be_packed_stays(monkeypatch: pytest.MonkeyPatch, wrong: type[Exception] | None) -> None:
    class Other(nn.Module):
        """Fails, or computes something else."""

        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            if wrong is not None:
                raise wrong("no such operator")
            self._linear = linear

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._linear(x) * 1.01

    monkeypatch.setattr(packed, "PackedLinear", Other)
    model = _model()
    assert pack_linear(model) == 0
    assert not any(isinstance(part, (PackedLinear, Other)) for part in model.modules())
