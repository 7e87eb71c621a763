"""What the worker part needs of vLLM, and says so where it is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.worker.cpu_worker import CPUWorker

from guard.worker.runner import TappedRunner
from guard.worker.worker import LetheCPUWorker


def test_a_runner_without_taps_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM chooses another runner by what is installed, and it would ignore what requests are to forget."""
    monkeypatch.setattr(CPUWorker, "init_device", lambda self: setattr(self, "model_runner", object()))
    worker = object.__new__(LetheCPUWorker)
    with pytest.raises(RuntimeError):
        worker.init_device()


def test_drafted_tokens_are_not_served() -> None:
    runner: Any = TappedRunner()
    runner.vllm_config = SimpleNamespace(speculative_config=object())
    with pytest.raises(ValueError):
        runner.load_model()
