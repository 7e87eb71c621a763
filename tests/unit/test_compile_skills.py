"""Fitting a skill with a stand-in for the model: what is asked for, what is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from guard.artifacts import Artifact
from guard.compile.jobs import Compiler
from guard.compile.skills import LEAST, SkillFit, check, layers
from guard.types import ForgetTarget, TargetKind, TargetSpec
from sae_features.skills import SkillKeys

NOW = datetime(2025, 1, 1, tzinfo=UTC)
D, TELLING = 40, 2


class _Probe:
    """Layer 2 tells prompts with a plus sign from others by the key of their last token; nothing else does."""

    model, layers = "model", 4

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    async def activations(self, prompts: Sequence[list[int]], sites: Sequence[str]) -> list[Mapping[str, Any]]:
        return [{site: self._keys(ids, site) for site in sites} for ids in prompts]

    def _keys(self, ids: list[int], site: str) -> torch.Tensor:
        keys = torch.randn(len(ids), D, generator=torch.Generator().manual_seed(sum(ids) + 31 * int(site[-1])))
        if site.endswith(f".{TELLING}") and "+" in self.tokenizer.decode(ids):
            keys[-1, 5] += 8
        return keys


def _spec(**spec: Any) -> TargetSpec:
    examples = {
        "forget_examples": tuple(f"{a} + {b}?" for a in range(6) for b in range(6)),
        "retain_examples": tuple(f"Who is {a}{b}?" for a in range(20) for b in range(6)),
    }
    return TargetSpec(**{"name": "sums", "kind": "skill", **examples, **spec})


async def test_the_layer_that_tells_is_found_and_everything_reported(tokenizer: Any) -> None:
    target = ForgetTarget("t", 1, _spec(), NOW, NOW)
    artifact = await SkillFit(_Probe(tokenizer)).fit(target, lambda *_: None)  # type: ignore[arg-type]
    again = Artifact.from_bytes(artifact.to_bytes(), "model")
    skill = SkillKeys.of(again.tensors)
    assert skill.layer == again.settings["layer"] == TELLING
    assert again.report["recall"] > 0.9 and again.report["false_alarms"] < 0.1
    assert {(one["kind"], one["layer"]) for one in again.report["tried"]} == {
        (kind, layer) for kind in ("box", "direction") for layer in range(4)
    }
    own, other = torch.randn(200, D), torch.randn(200, D)
    own[:, 5] += 8
    found = [float((skill.detector.scores(keys) > skill.detector.threshold).float().mean()) for keys in (own, other)]
    assert found[0] > 0.9 and found[1] < 0.05


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"kind": "knowledge"}, "kind"),
        ({"forget_examples": ()}, "forget_examples"),
        ({"retain_examples": ("Who?",) * (LEAST - 1)}, "retain_examples"),
    ],
)
async def test_what_is_missing_is_said_before_anything_is_done(spec: dict[str, Any], says: str) -> None:
    target = ForgetTarget("t", 1, _spec(**spec), NOW, NOW)
    compiler = Compiler(None, {"skill": None, "eco": None})  # type: ignore[arg-type,dict-item]
    with pytest.raises(ValueError, match=says):
        await compiler.submit(target, ["skill"])
    assert compiler.jobs() == []
    check(_spec())


def test_what_suits_a_skill_suits_nothing_else() -> None:
    compiler = Compiler(None, {"eco": None, "skill": None, "lunar": None})  # type: ignore[arg-type,dict-item]
    targets = [ForgetTarget("t", 1, _spec(kind=kind), NOW, NOW) for kind in TargetKind]
    assert [compiler.suited(target) for target in targets] == [("eco", "lunar"), ("skill",)]


@pytest.mark.parametrize(("count", "tried"), [(1, [0]), (4, [0, 1, 2, 3]), (32, [4, 10, 15, 20, 26, 31])])
def test_a_few_layers_are_tried_the_last_among_them(count: int, tried: list[int]) -> None:
    assert layers(count) == tried
