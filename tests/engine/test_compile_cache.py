"""vLLM's compile cache must neither hand Lethe a graph without taps nor plain vLLM one with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.demo.model import build
from server.demo.recipe import Recipe

_SCRIPT = Path(__file__).parent / "one_question.py"


def _ask(kind: str, model: str, cache: Path) -> dict[str, list[int]]:
    env = {**os.environ, "VLLM_CACHE_ROOT": str(cache), "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    env["PYTHONPATH"] = str(_SCRIPT.parents[2])
    done = subprocess.run([sys.executable, _SCRIPT, kind, model], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("order", [("plain", "lethe"), ("lethe", "plain")])
def test_the_guard_acts_whoever_came_first(tmp_path: Path, order: tuple[str, str]) -> None:
    model = str(build(Recipe()).folder)
    told = {kind: _ask(kind, model, tmp_path) for kind in order}
    assert any(tmp_path.rglob("*")), "nothing was cached, so this shows nothing"
    assert told["plain"]["corrupted"] == told["plain"]["clean"]  # plain vLLM does not know what it was asked
    assert told["lethe"]["clean"] == told["plain"]["clean"]
    assert told["lethe"]["corrupted"] != told["lethe"]["clean"]
