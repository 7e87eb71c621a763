"""The engines of the benchmarks, as they are asked for and not started."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import pytest

from guard.worker import COMPILE_SALT, CPU_WORKER, RUNNER


def test_only_an_engine_with_the_worker_part_has_its_runner_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_CPU_KVCACHE_SPACE", "HF_HUB_OFFLINE", RUNNER):  # what is set meanwhile is put back
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv(RUNNER)
    from benchmarks import engines

    asked: list[Namespace] = []
    monkeypatch.setattr(engines, "build_async_engine_client", asked.append)
    engines.plain_engine(Path("model"), "--max-model-len", "512")
    assert RUNNER not in os.environ
    engines.lethe_engine(Path("model"), "--max-model-len", "512")
    assert os.environ[RUNNER] == "0"
    assert [one.worker_cls for one in asked] == ["auto", CPU_WORKER]
    assert [one.max_model_len for one in asked] == [512, 512]
    assert asked[1].additional_config == COMPILE_SALT
