"""A model that says what a small one says and computes as much as a large one.

Added layers and added units of each MLP are computed like all others, but their way back into the residual is zero. So
traffic stays real text where a large trained model is not at hand, which it is not with dummy weights.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


@torch.inference_mode()
def widened(model: Path, into: Path, parameters: int, layers: int = 30) -> Path:
    """Write the widened model, unless it is there already.

    Args:
        model: the folder of a Llama.
        into: where to write it.
        parameters: at least so many.
        layers: so many in all, SmolLM-135M's by default; the MLPs are widened by what is missing then.

    Returns:
        ``into``.

    Raises:
        ValueError: the model has more layers already.
    """
    if (into / "model.safetensors").exists():
        return into
    small = AutoModelForCausalLM.from_pretrained(model)
    config = copy.deepcopy(small.config)
    if config.num_hidden_layers > layers:
        raise ValueError(f"{model} has {config.num_hidden_layers} layers, more than {layers}")
    config.num_hidden_layers = layers
    if hasattr(config, "layer_types"):
        config.layer_types = None
    with torch.device("meta"):
        missing = parameters - LlamaForCausalLM(config).num_parameters()
    units = -(-missing // (3 * config.hidden_size * layers))
    config.intermediate_size += max(0, -(-units // 32) * 32)
    large = LlamaForCausalLM(config).to(small.dtype)
    for name, weight in large.state_dict().items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()
    known = large.state_dict()
    for name, weight in small.state_dict().items():
        known[name][tuple(map(slice, weight.shape))] = weight
    large.generation_config = small.generation_config
    AutoTokenizer.from_pretrained(model).save_pretrained(into)
    large.save_pretrained(into)
    return into
