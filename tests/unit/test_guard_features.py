"""The features guard without an engine: what is watched, when a verdict is asked for, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from autoencoders import plain, target
from vllm.sampling_params import RequestOutputKind

from guard.artifacts import Artifact, Artifacts
from guard.features import FeatureGuard, Sight, Watch
from guard.policy import decide, resolve
from guard.types import (
    Finding,
    ForgetTarget,
    GuardName,
    GuardToggle,
    Mode,
    TargetSpec,
    TargetToggle,
    Tenant,
    TenantSpec,
    Verdict,
)
from guard.worker.controls import Told
from sae_features.joint import Joint, Scale

NOW = datetime(2025, 1, 1, tzinfo=UTC)
TENANT = Tenant("t", 1, TenantSpec(name="T"), NOW, NOW)
TARGETS = [ForgetTarget(name, 1, TargetSpec(name=name), NOW, NOW) for name in "ab"]
YES, NO, LATE = Told(2.0, 1.0, True, 0), Told(0.5, 1.0, False, -1), Told(2.0, 1.0, True, 64)
TOGGLE = GuardToggle()


class _Artifacts(Artifacts):
    """Those of target "a" alone."""

    changed = 0.0

    def __init__(self, joint: Joint | None = None) -> None:
        self.asked = 0
        self.joint = joint

    async def fitted(self, targets: Sequence[ForgetTarget], intervention: str) -> dict[str, Artifact]:
        self.asked += 1
        tensors = replace(target(plain().only(torch.arange(3))), joint=self.joint).tensors()
        return {one.key: Artifact(intervention, "model", tensors=tensors) for one in targets if one.id == "a"}


class _Probe:
    """Says what it is told to, one answer for each round."""

    def __init__(self, *rounds: Any) -> None:
        self.rounds = list(rounds)
        self.asked: list[list[str]] = []

    async def load_features(self, features: object) -> str:
        return "set-a"

    async def verdicts(self, tickets: list[str]) -> list[Any]:
        self.asked.append(tickets)
        await asyncio.sleep(0)
        told = self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]
        if isinstance(told, Exception):
            raise told
        return [told] * len(tickets)


def _policy(action: str = "refuse", mode: Mode = Mode.ENFORCE, **guard: Any) -> Any:
    targets = [ForgetTarget(one.id, 1, TargetSpec(name=one.id, mode=mode), NOW, NOW) for one in TARGETS]
    toggles = {one.id: TargetToggle(enabled=True, action=action) for one in targets}
    return resolve(TENANT, targets, toggles, {GuardName.FEATURES: GuardToggle(**guard)})


def _request(kind: RequestOutputKind = RequestOutputKind.DELTA, n: int = 1) -> Any:
    return SimpleNamespace(params=SimpleNamespace(output_kind=kind, n=n))


async def _judge(
    probe: _Probe, *, clamped: bool = False, final: bool = False, toggle: GuardToggle = TOGGLE, n: int = 1
) -> Sight:
    guard = FeatureGuard(_Artifacts(), probe)  # type: ignore[arg-type]
    watch = Watch("ticket", {"set-a": TARGETS[0]}, frozenset({"set-a"} if clamped else ()))
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if not final:
        first.set_result(None)
    kind = RequestOutputKind.FINAL_ONLY if final else RequestOutputKind.DELTA
    return await guard.judge(watch, Verdict(), _request(kind, n), toggle, first)


async def test_only_targets_with_features_are_watched_and_looked_up_once() -> None:
    artifacts = _Artifacts()
    guard = FeatureGuard(artifacts, _Probe(None))  # type: ignore[arg-type]
    policy = _policy()
    watches = [await guard.watch(policy) for _ in range(3)]
    assert all(one is not None and [t.id for t in one.targets.values()] == ["a"] for one in watches)
    assert len({one.ticket for one in watches if one is not None}) == 3
    assert artifacts.asked == 1
    artifacts.changed = float("inf")
    await guard.watch(policy)
    assert artifacts.asked == 2
    assert await guard.watch(_policy(enabled=False)) is None


@pytest.mark.parametrize(
    ("action", "mode", "clamped"),
    [("clamp", Mode.ENFORCE, {"set-a"}), ("clamp", Mode.MONITOR, set()), ("refuse", Mode.ENFORCE, set())],
)
async def test_only_what_is_to_be_clamped_is(action: str, mode: Mode, clamped: set[str]) -> None:
    watch = await FeatureGuard(_Artifacts(), _Probe(None)).watch(_policy(action, mode))  # type: ignore[arg-type]
    assert watch is not None and watch.clamped == clamped


@pytest.mark.parametrize(("told", "flagged"), [(YES, True), (LATE, True), (NO, False)])
async def test_what_is_flagged_is_a_finding(told: Told, flagged: bool) -> None:
    sight = await _judge(_Probe({"set-a": told}))
    assert [(one.target_id, one.guard) for one in sight.verdict.findings] == [("a", GuardName.FEATURES)] * flagged
    assert all(one.flagged for one in sight.verdict.findings)
    assert (decide(sight.verdict, _policy()).action == "refuse") is flagged


@pytest.mark.parametrize(("told", "clamped", "done"), [(YES, True, True), (YES, False, False), (LATE, True, False)])
async def test_only_a_clamp_from_the_first_token_on_needs_no_second_serving(
    told: Told, clamped: bool, done: bool
) -> None:
    sight = await _judge(_Probe({"set-a": told}), clamped=clamped)
    strictness = {"clamp": 25, "refuse": 100}
    assert sight.carries_out(decide(sight.verdict, _policy("clamp"), strictness)) is done
    assert not sight.carries_out(decide(sight.verdict, _policy("refuse"), strictness))
    another = Finding("b", 1, GuardName.LEXICON, 1.0, 0.5, "", "")
    both = Verdict((*sight.verdict.findings, another))
    assert not sight.carries_out(decide(both, _policy("clamp"), strictness))


async def test_of_several_choices_the_first_does_not_speak_for_the_others() -> None:
    sight = await _judge(_Probe({"set-a": YES}), clamped=True, n=2)
    assert not sight.carries_out(decide(sight.verdict, _policy("clamp"), {"clamp": 25, "refuse": 100}))


JOINT = Joint(Scale(-6.0, 4.0), Scale(-1.0, 0.5), 1.6, 5.0)


async def _judge_jointly(told: Told, verdict: Verdict, *, clamped: bool = False) -> Sight:
    guard = FeatureGuard(_Artifacts(), _Probe({"set-a": told}))  # type: ignore[arg-type]
    watch = Watch("ticket", {"set-a": TARGETS[0]}, frozenset({"set-a"} if clamped else ()), joint={"set-a": JOINT})
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    first.set_result(None)
    return await guard.judge(watch, verdict, _request(), TOGGLE, first)


def _seen(score: float) -> Finding:
    return Finding("a", 1, GuardName.SEMANTIC, score, 0.3, "", "")


@pytest.mark.parametrize(("score", "told", "about"), [(0.2, YES, True), (0.2, NO, False), (0.0, YES, False)])
async def test_text_and_features_decide_together(score: float, told: Told, about: bool) -> None:
    sight = await _judge_jointly(told, Verdict((_seen(score),)))
    assert (decide(sight.verdict, _policy()).action == "refuse") is about


async def test_what_the_text_says_for_sure_needs_no_features() -> None:
    sight = await _judge_jointly(NO, Verdict((_seen(1.0),)))
    assert decide(sight.verdict, _policy()).action == "refuse"


@pytest.mark.parametrize("findings", [(), (_seen(0.0),)])
async def test_features_far_beyond_all_benign_prompts_decide_alone(findings: tuple[Finding, ...]) -> None:
    sight = await _judge_jointly(Told(7.0, 1.0, True, 0), Verdict(findings), clamped=True)
    assert any(finding.flagged for finding in sight.verdict.findings) and not sight.spoilt


async def test_a_request_that_is_served_again_is_still_watched_for_what_is_not_joined() -> None:
    watch = Watch("t", {"a": TARGETS[0], "b": TARGETS[1]}, frozenset({"a", "b"}), joint={"a": JOINT})
    again = watch.cleared()
    assert set(again.targets) == again.clamped == {"b"} and not again.joint and again.ticket != watch.ticket


async def test_features_decide_alone_where_the_text_could_not_be_judged() -> None:
    sight = await _judge_jointly(YES, Verdict(unavailable=(GuardName.SEMANTIC,)))
    assert any(finding.flagged for finding in sight.verdict.findings)


@pytest.mark.parametrize(("score", "spoilt"), [(0.0, True), (0.2, False), (0.9, False)])
async def test_a_request_that_was_clamped_for_nothing_is_served_again(score: float, spoilt: bool) -> None:
    sight = await _judge_jointly(YES, Verdict((_seen(score),)), clamped=True)
    plan = decide(sight.verdict, _policy("clamp"), {"clamp": 25, "refuse": 100})
    assert (plan.action is None) is spoilt
    assert sight.carries_out(plan) is not spoilt


async def test_the_text_is_told_however_little_it_says_where_it_is_joined() -> None:
    guard = FeatureGuard(_Artifacts(JOINT), _Probe(None))  # type: ignore[arg-type]
    watch = await guard.watch(_policy())
    assert watch is not None and watch.scored == {TARGETS[0].key}
    off = resolve(TENANT, TARGETS, {"a": TargetToggle(enabled=True)}, {GuardName.SEMANTIC: GuardToggle(enabled=False)})
    watch = await guard.watch(off)
    assert watch is not None and watch.scored == frozenset()


@pytest.mark.parametrize("told", [None, RuntimeError("no answer")])
async def test_no_verdict_is_not_a_clean_one(told: Any) -> None:
    sight = await _judge(_Probe(told))
    assert sight.verdict.unavailable == (GuardName.FEATURES,)


async def test_a_verdict_that_is_late_is_none() -> None:
    class _Slow(_Probe):
        async def verdicts(self, tickets: list[str]) -> list[Any]:
            await asyncio.sleep(60)
            return []

    sight = await _judge(_Slow(None), toggle=GuardToggle(deadline_ms=10))
    assert sight.verdict.unavailable == (GuardName.FEATURES,)


@pytest.mark.parametrize("final", [True, False])
async def test_a_long_step_of_the_engine_is_not_the_guards_delay(final: bool) -> None:
    class _Busy(_Probe):
        """Answers only between two steps."""

        async def verdicts(self, tickets: list[str]) -> list[Any]:
            await asyncio.sleep(0.2)
            return await super().verdicts(tickets)

    guard = FeatureGuard(_Artifacts(), _Busy({"set-a": YES}))  # type: ignore[arg-type]
    watch = Watch("ticket", {"set-a": TARGETS[0]}, frozenset())
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.3, first.set_result, None)
    request = _request(RequestOutputKind.FINAL_ONLY if final else RequestOutputKind.DELTA)
    sight = await guard.judge(watch, Verdict(), request, GuardToggle(deadline_ms=20), first)
    assert sight.verdict.findings and not sight.verdict.unavailable


async def test_a_verdict_that_never_comes_is_waited_for_until_the_deadline_after_the_answer() -> None:
    class _Hung(_Probe):
        async def verdicts(self, tickets: list[str]) -> list[Any]:
            await asyncio.sleep(60)
            return []

    guard = FeatureGuard(_Artifacts(), _Hung(None))  # type: ignore[arg-type]
    watch = Watch("ticket", {"set-a": TARGETS[0]}, frozenset())
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.1, first.set_result, None)
    judging = guard.judge(watch, Verdict(), _request(RequestOutputKind.FINAL_ONLY), GuardToggle(deadline_ms=20), first)
    sight = await asyncio.wait_for(judging, 10)
    assert sight.verdict.unavailable == (GuardName.FEATURES,)


async def test_what_does_not_stream_is_judged_before_it_ends() -> None:
    probe = _Probe(None, None, {"set-a": YES})
    sight = await _judge(probe, final=True)
    assert len(probe.asked) == 3 and sight.verdict.findings


async def test_a_request_that_failed_is_left_to_its_error() -> None:
    guard = FeatureGuard(_Artifacts(), _Probe(None))  # type: ignore[arg-type]
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    first.set_exception(ValueError("too long"))
    watch = Watch("ticket", {"set-a": TARGETS[0]}, frozenset())
    assert (await guard.judge(watch, Verdict(), _request(), TOGGLE, first)).verdict.unavailable == ()


async def test_verdicts_that_are_wanted_meanwhile_are_fetched_together() -> None:
    probe = _Probe({"set-a": NO})
    guard = FeatureGuard(_Artifacts(), probe)  # type: ignore[arg-type]
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    first.set_result(None)
    watches = [Watch(f"ticket-{n}", {"set-a": TARGETS[0]}, frozenset()) for n in range(20)]
    sights = await asyncio.gather(*(guard.judge(one, Verdict(), _request(), TOGGLE, first) for one in watches))
    assert all(not sight.verdict.unavailable for sight in sights)
    assert sorted(ticket for some in probe.asked for ticket in some) == sorted(one.ticket for one in watches)
    assert len(probe.asked) < 5
