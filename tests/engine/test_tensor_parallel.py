"""Two tensor-parallel ranks, each with its shard of every edit and capture, do what one does; edits join an adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from tests.engine.ranks import LAYER, PROMPT, TOKENS, answers, edit_of

_SCRIPT = Path(__file__).parent / "ranks.py"
_RANK = 4


@pytest.fixture
def oracle(engine):
    return AutoModelForCausalLM.from_pretrained(engine.model_config.model, dtype=torch.float32).eval()


@pytest.fixture
def adapter(oracle, tmp_path) -> tuple[Path, torch.Tensor]:
    """A client's LoRA adapter of the layer that is edited, and what it adds to the weight there."""
    generator = torch.Generator().manual_seed(1)
    width, inner = oracle.model.layers[LAYER].mlp.down_proj.weight.shape
    a, b = torch.randn(_RANK, inner, generator=generator), torch.randn(width, _RANK, generator=generator)
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": _RANK, "target_modules": ["down_proj"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    place = f"base_model.model.model.layers.{LAYER}.mlp.down_proj"
    save_file({f"{place}.lora_A.weight": a, f"{place}.lora_B.weight": b}, tmp_path / "adapter_model.safetensors")
    return tmp_path, b @ a


def _greedy(oracle, *changes: torch.Tensor) -> list[int]:
    weight = oracle.model.layers[LAYER].mlp.down_proj.weight
    before = weight.data.clone()
    weight.data += sum(changes)
    with torch.inference_mode():
        output = oracle.generate(torch.tensor([PROMPT]), max_new_tokens=TOKENS, do_sample=False)
    weight.data = before
    return output[0, len(PROMPT) :].tolist()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="vLLM binds each rank to a core of its own")
@pytest.mark.asyncio(loop_scope="session")
async def test_two_ranks_are_as_one_and_edits_join_an_adapter(engine, oracle, adapter) -> None:
    folder, added = adapter
    # Without this vLLM looks for a NUMA node for each rank.
    env = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0|1", "PYTHONPATH": str(_SCRIPT.parents[2])}
    command = [sys.executable, str(_SCRIPT), engine.model_config.model, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads(done.stdout.splitlines()[-1])
    one = await answers(engine)
    captured = [torch.tensor(capture) for capture in two.pop("captured")]
    for mine, other in zip(one.pop("captured"), captured, strict=True):
        torch.testing.assert_close(torch.tensor(mine), other, atol=1e-3, rtol=1e-3)
    likely = sorted(logprob for _, logprob in two.values())
    assert all(after - before > 1e-3 for before, after in pairwise(likely)), f"some control did nothing: {two}"
    assert two.pop("adapted")[0] == _greedy(oracle, added)
    assert two.pop("adapted and edited")[0] == _greedy(oracle, added, edit_of(captured).delta(LAYER))
    for name, (tokens, logprob) in one.items():
        assert two[name] == [tokens, pytest.approx(logprob, abs=0.02)]
