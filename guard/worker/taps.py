"""The taps on the forward pass: custom ops, so that they survive torch.compile, around three kinds of module.

Each op finds its :class:`Taps` in vLLM's forward context, as vLLM's own attention does, and returns at once when no
request of the step has controls. What a step needs is worked out before it starts (:meth:`Taps.begin`); the ops do no
bookkeeping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.linear import RowParallelLinear
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.utils import extract_layer_index
from vllm.utils.torch_utils import direct_register_custom_op

from guard.kernels.corruption import corrupt
from guard.kernels.low_rank import add_edits
from guard.worker.batch import Stretch, corrupted, echoed
from guard.worker.capture import Captures
from guard.worker.controls import mlp_input, residual
from guard.worker.edits import EditTable, LiveEdits
from guard.worker.features import FeatureTaps

_KEY = "lethe.taps"


@dataclass(slots=True)
class Taps:
    """What the ops of one model read. :meth:`begin` before every step, :meth:`end` after it."""

    edits: EditTable
    embed: Callable[[torch.Tensor], torch.Tensor]
    spread: float  # standard deviation of the embeddings' entries, the unit of noise
    features: FeatureTaps
    captures: Captures = field(default_factory=Captures)
    live: dict[int, LiveEdits] = field(default_factory=dict)
    replaced: tuple[torch.Tensor, torch.Tensor] | None = None  # rows of the batch (n,), their embeddings (n, hidden)
    capturing: bool = False

    def begin(
        self, stretches: Sequence[Stretch], token_ids: torch.Tensor, answers: Callable[[str], tuple[list[int], int]]
    ) -> None:
        """Prepare a step.

        Args:
            stretches: of the requests with controls.
            token_ids: (tokens,) of the flat batch, on the model's device.
            answers: gives for a request id what it has generated and the length of its prompt.
        """
        self.live = self.edits.live(stretches)
        self.replaced = self._corrupted(stretches, token_ids, answers)
        self.features.begin(stretches, lambda request_id: answers(request_id)[1])
        self.captures.begin(stretches)
        self.capturing = any(stretch.controls.capture is not None for stretch in stretches)

    def end(self) -> None:
        """Leave the taps idle."""
        self.live, self.replaced, self.capturing = {}, None, False
        self.features.end()

    def _corrupted(
        self, stretches: Sequence[Stretch], token_ids: torch.Tensor, answers: Callable[[str], tuple[list[int], int]]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        rows: list[int] = []
        parts = []
        for stretch in stretches:
            how = stretch.controls.corruption
            if how is None:
                continue
            told = corrupted(how, stretch, *answers(stretch.request_id))
            for positions, kind, dims, strength in (
                (told, how.kind, how.dims, how.strength),
                (echoed(how, stretch, told), "noise", 2**31, how.echo),
            ):
                if not positions:
                    continue
                mine = [stretch.first_row + position - stretch.position for position in positions]
                clean = self.embed(token_ids[torch.tensor(mine, device=token_ids.device)])
                parts.append(corrupt(clean, positions, kind, dims, strength * self.spread, how.seed))
                rows += mine
        if not parts:
            return None
        return torch.tensor(rows, device=token_ids.device), torch.cat(parts)


class _EditedMethod:
    """Stands before a linear layer's quantisation method, where the output is not yet reduced over the ranks.

    There an edit is linear in each rank's slice of the input, so that the layer's own reduction adds it up. One with a
    floor must know the whole score, and has it summed over the ranks first.
    """

    def __init__(self, inner: Any, layer: int) -> None:
        self.inner = inner
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def apply(self, layer: nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        out: torch.Tensor = self.inner.apply(layer, x, bias)
        torch.ops.vllm.lethe_mlp(out, x, self._layer)
        return out


class _CorruptedEmbedding(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.inner(input_ids)
        torch.ops.vllm.lethe_embedding(hidden)
        return hidden


class _TappedLayer(nn.Module):
    def __init__(self, inner: nn.Module, layer: int) -> None:
        super().__init__()
        self.inner = inner
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        result = self.inner(*args, **kwargs)
        # vLLM's layers leave the residual unadded: (what the MLP adds, residual).
        hidden, rest = result if isinstance(result, tuple) else (result, torch.zeros_like(result))
        torch.ops.vllm.lethe_residual(hidden, rest, self._layer)
        return result


def install(model: nn.Module, config: VllmConfig, edits: EditTable) -> Taps:
    """Put the taps into a loaded model.

    Raises:
        ValueError: the model is not built as expected: one input embedding, decoder layers with ``mlp.down_proj``.
    """
    embeddings = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    ]
    projections = list(_down_projections(model))
    if len(embeddings) != 1 or not projections:
        raise ValueError(
            f"Lethe cannot tap {type(model).__name__}: {len(embeddings)} input embeddings and {len(projections)} "
            "mlp.down_proj layers were found; forgetting inside the model needs exactly one and at least one"
        )
    name, embedding = embeddings[0]
    # Through the layer itself, so that all ranks of a sharded vocabulary find the same.
    sample = embedding(torch.arange(min(1024, embedding.num_embeddings), device=edits.device))
    features = FeatureTaps(edits.device, tensor_model_parallel_all_gather)
    taps = Taps(edits, embedding, float(sample.float().std()), features)
    config.compilation_config.static_forward_context[_KEY] = taps
    _replace(model, name, _CorruptedEmbedding(embedding))
    for path, projection in projections:
        layer = extract_layer_index(path)
        projection.quant_method = _EditedMethod(projection.quant_method, layer)
        block = path.split(".mlp.")[0]
        _replace(model, block, _TappedLayer(model.get_submodule(block), layer))
    return taps


def value_vectors(
    model: nn.Module, layer: int, dims: Sequence[int], device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Columns of a layer's ``down_proj`` as this rank knows them: (dims, hidden) float32; all ranks add up to them.

    They are what the layer makes of unit vectors, so they are right for quantised weights too.
    """
    for path, projection in _down_projections(model):
        if extract_layer_index(path) == layer:
            width = projection.input_size_per_partition
            mine = torch.tensor(dims) - get_tensor_model_parallel_rank() * width
            units = torch.zeros(len(dims), width)
            here = (mine >= 0) & (mine < width)
            units[here] = nn.functional.one_hot(mine[here], width).float()
            method: Any = projection.quant_method
            vectors: torch.Tensor = method.inner.apply(projection, units.to(device, dtype))  # as it is without edits
            return vectors.float().cpu()
    raise ValueError(f"the model has no layer {layer} with a down_proj")


def _down_projections(model: nn.Module) -> Iterator[tuple[str, RowParallelLinear]]:
    """Every ``mlp.down_proj``, also beneath a LoRA wrapper."""
    for name, module in list(model.named_modules()):
        if isinstance(module, RowParallelLinear) and name.removesuffix(".base_layer").endswith(".mlp.down_proj"):
            yield name, module


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    if isinstance(owner, nn.ModuleList):
        owner[int(child)] = module
    else:
        setattr(owner, child, module)


def _taps() -> Taps:
    taps: Taps = get_forward_context().no_compile_layers[_KEY]
    return taps


def _mlp(out: torch.Tensor, x: torch.Tensor, layer: int) -> None:
    taps = _taps()
    if taps.capturing:
        taps.captures.see(mlp_input(layer), x)
    features = taps.features
    if layer in features.skills.live:
        features.skills.see(x, layer, features.ledger)
    live = taps.live.get(layer)
    if live is not None:
        add_edits(out, x, live.rows, live.keys, live.values, live.mask, live.floors, tensor_model_parallel_all_reduce)


def _embedding(hidden: torch.Tensor) -> None:
    replaced = _taps().replaced
    if replaced is not None:
        rows, embeddings = replaced
        hidden[rows] = embeddings


def _residual(hidden: torch.Tensor, rest: torch.Tensor, layer: int) -> None:
    taps = _taps()
    if layer in taps.features.live:
        taps.features.see(hidden, rest, layer)
    if taps.capturing:
        taps.captures.see(residual(layer), hidden.float() + rest.float())


def _nothing(*_: object) -> None:
    """The shape of what an op returns, for compilers: nothing."""


# The output is declared as changed in all three, also where it is only read, so that no compiler drops the op.
direct_register_custom_op("lethe_mlp", _mlp, mutates_args=["out"], fake_impl=_nothing)
direct_register_custom_op("lethe_embedding", _embedding, mutates_args=["hidden"], fake_impl=_nothing)
direct_register_custom_op("lethe_residual", _residual, mutates_args=["hidden"], fake_impl=_nothing)
