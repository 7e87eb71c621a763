"""Linear layers whose weights are laid out for the processor once and not at every call.

oneDNN, which multiplies matrices for PyTorch on x86, works on weights in blocks of its own; given a plain tensor it
lays them out anew at each call, which for a few short texts is most of the work. PyTorch has operators for weights in
blocks, which its compiler uses (``torch._inductor``, "freezing"); they are not part of its public interface, so nothing
here is done where they are missing or do not compute what the plain layer computes.
"""

from __future__ import annotations

import torch
from torch import nn


class PackedLinear(nn.Module):
    """``linear`` for inference, its weights in oneDNN's layout.

    Raises:
        RuntimeError, AttributeError: this PyTorch or processor has no such layout.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x @ weight.T + bias``: ``(..., in)`` to ``(..., out)``, in the dtype of the weights."""
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")


def pack_linear(model: nn.Module) -> int:
    """Replace the linear layers of ``model``, which is not to be trained or moved any more, by packed ones.

    Returns:
        How many; a layer that packed computes anything else of some rows, to the last bit, stays as it is.
    """
    count = 0
    for name, child in list(model.named_children()):
        if type(child) is not nn.Linear:
            count += pack_linear(child)
        elif (packed := _packed(child)) is not None:
            setattr(model, name, packed)
            count += 1
    return count


@torch.inference_mode()
def _packed(linear: nn.Linear) -> PackedLinear | None:
    weight = linear.weight
    x = torch.linspace(-1, 1, 3 * linear.in_features, dtype=torch.float32).sin().reshape(3, -1).to(weight)
    try:
        packed = PackedLinear(linear)
        same = torch.equal(packed(x), linear(x))
    except (RuntimeError, AttributeError):  # no such operator, or not on this processor
        return None
    return packed if same else None
