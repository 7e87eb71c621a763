"""``lethe serve``: what it leaves out where vLLM is to do what Lethe's worker part cannot follow."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

import pytest

from guard.worker import CPU_WORKER, RUNNER
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
    monkeypatch.setenv(RUNNER, "0")


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
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(RUNNER)
    assert _taken(**changes) == changes.get("worker_cls", "auto")
    assert "refusal" in capsys.readouterr().err
    assert RUNNER not in os.environ  # the runner is vLLM's choice


def test_on_another_device_it_is_left_out_and_the_runner_is_vllms_choice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(RUNNER)
    monkeypatch.setattr("vllm.platforms.current_platform.is_cpu", lambda: False)
    assert _taken() == "auto"
    assert "every action but prefix is a refusal" in capsys.readouterr().err
    assert RUNNER not in os.environ


def test_the_runner_without_taps_is_not_chosen_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(RUNNER)
    assert _taken() == CPU_WORKER
    assert os.environ[RUNNER] == "0"
    monkeypatch.setenv(RUNNER, "1")
    assert _taken() == "auto"
    assert "refusal" in capsys.readouterr().err
