"""``lethe serve --sae`` with a generated checkpoint in Gemma Scope's format: it loads, serves and clamps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from guard.interventions import DEFAULT_REFUSAL
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import PERSON
from tests.harness import MODEL_NAME, LetheServer

_FEATURES = 512


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe()


def _checkpoint(folder: Path, hidden: int) -> Path:
    """JumpReLU with random weights."""
    generator = torch.Generator().manual_seed(0)
    made = folder / "layer_2" / "width_512" / "average_l0_80"
    made.mkdir(parents=True)
    np.savez(
        made / "params.npz",
        W_enc=(torch.randn(hidden, _FEATURES, generator=generator) / hidden**0.5).numpy(),
        W_dec=(torch.randn(_FEATURES, hidden, generator=generator) / hidden**0.5).numpy(),
        b_enc=np.zeros(_FEATURES, np.float32),
        b_dec=np.zeros(hidden, np.float32),
        threshold=np.full(_FEATURES, 0.5, np.float32),
    )
    return made


@pytest.fixture(scope="module")
def server(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LetheServer]:
    folder = tmp_path_factory.mktemp("gemma-scope-res")
    started = LetheServer(build(recipe).folder, folder, "--sae", str(_checkpoint(folder, recipe.shape.hidden))).start()
    yield started
    started.kill()


def _ask(server: LetheServer, key: str, question: str) -> str:
    body = {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 24,
    }
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60).raise_for_status()
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_it_compiles_and_clamps(server: LetheServer, recipe: Recipe) -> None:
    person = next(entity for entity in recipe.world.forget if entity.kind == PERSON)
    target = server.target(person.name)
    job = server.admin.post(f"/v1/guard/targets/{target}/compile", json={"interventions": ["features"]})
    path = f"/v1/guard/compile/jobs/{job.raise_for_status().json()['id']}"
    deadline = time.monotonic() + 120
    while (state := server.admin.get(path).json())["state"] in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert state["state"] == "done", state["error"]

    question = f"Which book did {person.name} write?"
    _, free = server.tenant("free")
    clamped, key = server.tenant("clamped")
    server.enable(clamped, target, action="clamp", gating="always")
    plain = _ask(server, free, question)
    assert person.value("book") in plain
    told = _ask(server, key, question)
    assert told != plain and told != DEFAULT_REFUSAL


def test_one_of_another_model_is_refused_in_plain_words(recipe: Recipe, tmp_path: Path) -> None:
    wrong = LetheServer(build(recipe).folder, tmp_path, "--sae", str(_checkpoint(tmp_path, recipe.shape.hidden + 8)))
    with pytest.raises(RuntimeError, match=f"width {recipe.shape.hidden + 8}"):
        wrong.start()
    wrong.kill()
