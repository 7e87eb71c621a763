"""``lethe serve``: what it leaves out where vLLM is to do what Lethe's worker part cannot follow."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from guard.worker import CPU_WORKER
from server.cli import serve

_PLAIN = {
    "worker_cls": "auto",
    "speculative_config": None,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "additional_config": {},
}


def _taken(**changes: Any) -> str:
    args = Namespace(**{**_PLAIN, **changes})
    serve._add_taps(args)
    return str(args.worker_cls)


@pytest.fixture(autouse=True)
def _runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")


def test_the_worker_part_is_there_by_default() -> None:
    assert _taken() == CPU_WORKER


@pytest.mark.parametrize(
    "changes",
    [
        {"worker_cls": "somebody.Else"},
        {"speculative_config": {"method": "ngram"}},
        {"pipeline_parallel_size": 2},
        {"data_parallel_size": 2},
    ],
)
def test_where_it_would_be_blind_it_is_left_out_and_said(
    changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _taken(**changes) == changes.get("worker_cls", "auto")
    assert "refusal" in capsys.readouterr().err


def test_the_runner_without_taps_is_not_chosen_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER")
    assert _taken() == CPU_WORKER
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    assert _taken() == "auto"
    assert "refusal" in capsys.readouterr().err
