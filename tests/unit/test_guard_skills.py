"""Skills behind the features guard, without an engine: watched by their keys and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from autoencoders import plain, target
from vllm.sampling_params import RequestOutputKind

from guard.artifacts import Artifact, Artifacts
from guard.features import FeatureGuard
from guard.interventions import Means, UnpreparedError
from guard.interventions.decoding import Constrain
from guard.policy import decide, resolve
from guard.prompt import PromptReader, opening
from guard.types import (
    ForgetTarget,
    Gating,
    GuardName,
    GuardToggle,
    Mode,
    TargetSpec,
    TargetToggle,
    Tenant,
    TenantSpec,
    Verdict,
)
from guard.worker.controls import Controls, Features, Told
from sae_features.skills import KeyDirection, SkillKeys

NOW = datetime(2025, 1, 1, tzinfo=UTC)
TENANT = Tenant("t", 1, TenantSpec(name="T"), NOW, NOW)
YES, NO = Told(2.0, 1.0, True, 0), Told(0.5, 1.0, False, -1)


class _Artifacts(Artifacts):
    changed = 0.0

    def __init__(self, *fitted: str) -> None:
        self.of = fitted

    async def fitted(self, targets: Sequence[ForgetTarget], intervention: str) -> dict[str, Artifact]:
        tensors = {
            "features": target(plain().only(torch.arange(3))).tensors(),
            "skill": SkillKeys(1, KeyDirection(torch.ones(3), 0.0)).tensors(),
        }
        assert all((one.spec.kind == "skill") is (intervention == "skill") for one in targets)
        found = [one for one in targets if one.id in self.of]
        return {one.key: Artifact(intervention, "model", tensors=tensors[intervention]) for one in found}


class _Probe:
    def __init__(self, told: Any = None) -> None:
        self.told = told

    async def load_features(self, features: object) -> str:
        return "set"

    async def load_skill(self, skill: SkillKeys) -> str:
        return "keys"

    async def verdicts(self, tickets: list[str]) -> list[Any]:
        return [self.told] * len(tickets)


def _policy(action: str = "refuse", mode: Mode = Mode.ENFORCE, **guard: Any) -> Any:
    specs = [TargetSpec(name="known"), TargetSpec(name="sums", kind="skill", mode=mode)]
    targets = [ForgetTarget(spec.name, 1, spec, NOW, NOW) for spec in specs]
    toggles = {one.id: TargetToggle(enabled=True, action=action) for one in targets}
    return resolve(TENANT, targets, toggles, {GuardName.FEATURES: GuardToggle(**guard)})


async def _judged(artifacts: _Artifacts, told: Any, policy: Any) -> Any:
    guard = FeatureGuard(artifacts, _Probe(told))  # type: ignore[arg-type]
    watch = await guard.watch(policy)
    assert watch is not None
    first = asyncio.get_running_loop().create_future()
    first.set_result(None)
    request: Any = SimpleNamespace(params=SimpleNamespace(output_kind=RequestOutputKind.DELTA, n=1))
    sight = await guard.judge(watch, Verdict(), request, policy.guards[GuardName.FEATURES], first)
    return watch, sight, decide(sight.verdict, policy)


async def test_a_flagged_skill_is_a_finding_like_any_other() -> None:
    _, _, plan = await _judged(_Artifacts("known", "sums"), {"set": NO, "keys": YES}, _policy())
    assert plan.action == "refuse" and [one.target_id for one in plan.findings] == ["sums"]
    _, _, plan = await _judged(_Artifacts("known", "sums"), {"set": NO, "keys": NO}, _policy())
    assert plan.action is None and not plan.findings


async def test_a_skill_is_asked_for_at_the_opening_and_never_clamped(tokenizer: Any) -> None:
    watch, sight, plan = await _judged(_Artifacts("known", "sums"), {"set": YES, "keys": YES}, _policy("clamp"))
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)["input_ids"]
    asked = _on(watch, tokenizer, ids)
    assert (asked.watch, asked.clamp, asked.skills) == (("set",), ("set",), ("keys",))
    assert asked.opening == len(ids) - 1
    assert not sight.carries_out(plan)


def _on(watch: Any, tokenizer: Any, ids: list[int]) -> Features:
    from guard.outputs import GuardedRequest

    view = PromptReader(tokenizer).read(ids)
    request = GuardedRequest({"prompt_token_ids": ids}, None, "r", view, tokenizer, 400, None)  # type: ignore[arg-type]
    controls: Controls = watch.on(request).controls
    assert controls.features is not None
    return controls.features


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("fitted", [("known",), ()])
@pytest.mark.parametrize("on_error", ["closed", "open"])
async def test_a_skill_that_was_not_fitted_cannot_be_judged(fitted: Any, mode: Mode, on_error: str) -> None:
    policy = _policy(mode=mode, on_error=on_error)
    told = {"set": NO}
    if not fitted and mode is Mode.MONITOR:
        assert await FeatureGuard(_Artifacts(), _Probe()).watch(policy) is None  # type: ignore[arg-type]
        return
    _, sight, plan = await _judged(_Artifacts(*fitted), told, policy)
    blind = mode is Mode.ENFORCE
    assert (GuardName.FEATURES in sight.verdict.unavailable) is blind
    assert plan.action == ("refuse" if blind and on_error == "closed" else None)


async def test_what_was_fitted_is_judged_beside_what_was_not() -> None:
    _, sight, plan = await _judged(_Artifacts("known"), {"set": YES}, _policy("prefix", on_error="open"))
    assert plan.action == "prefix" and sight.verdict.unavailable == (GuardName.FEATURES,)


class _Phrases:
    """Holds any phrases."""

    def holds(self, name: str) -> bool:
        return True

    async def load_phrases(self, phrases: Any) -> str:
        return "phrases"


def _request(prompt_logprobs: int | None = None) -> Any:
    return SimpleNamespace(params=SimpleNamespace(prompt_logprobs=prompt_logprobs), view=SimpleNamespace(tail=""))


async def _refused(constrain: Constrain, request: Any, target: ForgetTarget, gating: Gating) -> bool:
    try:
        await constrain.controls(request, (target,), gating)
    except UnpreparedError:
        return True
    return False


async def test_a_constraint_that_forbids_nothing_is_not_one() -> None:
    """A skill need not have any phrase; its answers would come unchanged."""
    means = Means("sorry", probe=_Probe(), protected=lambda *_: ())  # type: ignore[arg-type]
    one = ForgetTarget("sums", 1, TargetSpec(name="sums", kind="skill"), NOW, NOW)
    with pytest.raises(UnpreparedError):
        await Constrain(means).controls(_request(), (one,), Gating.GATED)


@pytest.mark.parametrize("gating", Gating)
async def test_what_is_not_said_is_not_told_by_the_prompts_log_probabilities(gating: Gating) -> None:
    """They are none of the tokens that a constraint keeps from being chosen."""
    means = Means("sorry", probe=_Phrases(), protected=lambda *_: ("Ada Rook",))  # type: ignore[arg-type]
    one = ForgetTarget("ada", 1, TargetSpec(name="Ada Rook"), NOW, NOW)
    asked = [await _refused(Constrain(means), _request(prompt_logprobs=count), one, gating) for count in (None, 0, 5)]
    assert asked == [False, *[gating is Gating.GATED] * 2]


def test_the_opening_is_where_the_answer_begins_also_where_the_client_began_it(tokenizer: Any) -> None:
    reader = PromptReader(tokenizer)

    def at(ids: list[int]) -> int:
        return opening(reader.read(ids), len(ids))

    chat = [{"role": "user", "content": "Who wrote It?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    begun = [*ids, *tokenizer.encode("Stephen King wrote")]
    assert at(ids) == len(ids) - 1
    assert at(begun) == len(ids) - 1
    plain_text = tokenizer.encode("Who wrote It?")
    assert at(plain_text) == len(plain_text) - 1
    special = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert at([special, *plain_text]) == len(plain_text)
