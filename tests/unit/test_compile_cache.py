"""vLLM's compile cache must neither hand Lethe a graph without taps nor plain vLLM one with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig
from vllm.compilation.caching import aot_compile_hash_factors
from vllm.engine.arg_utils import EngineArgs

from guard.worker import COMPILE_SALT, CPU_WORKER


@pytest.fixture
def key(tmp_path: Path):
    LlamaConfig(
        architectures=["LlamaForCausalLM"], hidden_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=128
    ).save_pretrained(tmp_path)

    def of(**flags: Any) -> list[str]:
        config = EngineArgs(model=str(tmp_path), skip_tokenizer_init=True, dtype="float32", **flags)
        return aot_compile_hash_factors(config.create_engine_config())

    return of


def test_a_graph_with_taps_has_a_key_of_its_own(key) -> None:
    plain, tapped = key(), key(worker_cls=CPU_WORKER, additional_config=COMPILE_SALT)
    assert plain == key() != tapped
    assert tapped == key(worker_cls=CPU_WORKER, additional_config=COMPILE_SALT)


def test_the_worker_class_alone_does_not_give_it_one(key) -> None:
    """Why there is a salt; with another vLLM it may not be needed."""
    assert key() == key(worker_cls=CPU_WORKER)
