"""Fitting features with a stand-in for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from autoencoders import plain, residual

from guard.compile.features import FeaturesFit
from guard.compile.grounds import Grounds
from guard.types import ForgetTarget, TargetSpec

NOW = datetime(2025, 1, 1, tzinfo=UTC)
NOTHING = Grounds(layers={}, retain={}, refuses=True, refusal="No.", opening=torch.zeros(1))


class _Probe:
    """Its residual stream is noise, the same for the same prompt."""

    model, layers = "model", 4

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    async def generate(self, prompts: Sequence[list[int]], max_tokens: int) -> list[str]:
        return ["No."] * len(prompts)

    async def activations(self, prompts: Sequence[list[int]], sites: Sequence[str]) -> list[Mapping[str, Any]]:
        return [{site: residual(len(ids), seed=sum(ids)) for site in sites} for ids in prompts]


@pytest.mark.parametrize("name", ["The Lord of the Rings", "Harry Potter and the Half-Blood Prince"])
async def test_a_name_with_words_of_grammar_leaves_prompts_to_calibrate_on(tokenizer: Any, name: str) -> None:
    fit = FeaturesFit(_Probe(tokenizer), plain())  # type: ignore[arg-type]
    target = ForgetTarget("t", 1, TargetSpec(name=name), NOW, NOW)
    artifact = await fit.fit(target, NOTHING, lambda *_: None)
    assert artifact.report["benign_prompts"] >= 399
    assert all(limit < float("inf") for limit in artifact.settings["limits"])
