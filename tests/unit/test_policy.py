"""Precedence and decisions, rule by rule as docs/policy.md states them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from guard.policy import (
    Defaults,
    decide,
    loosens_guard,
    resolve,
    resolve_target,
    strictest,
    tenant_may_set_guard,
    tenant_may_set_target,
)
from guard.types import (
    Finding,
    ForgetTarget,
    Gating,
    GuardName,
    GuardToggle,
    Mode,
    OnError,
    TargetSpec,
    TargetToggle,
    Tenant,
    TenantPolicy,
    TenantSpec,
    Verdict,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def target(target_id: str = "tgt_1", **spec: object) -> ForgetTarget:
    return ForgetTarget(target_id, 1, TargetSpec(name="x", **spec), NOW, NOW)


def tenant(**spec: object) -> Tenant:
    return Tenant("ten_1", 1, TenantSpec(name="t", **spec), NOW, NOW)


def policy_for(*targets: ForgetTarget, **guards: GuardToggle) -> TenantPolicy:
    toggles = {one.id: TargetToggle(enabled=True) for one in targets}
    return resolve(tenant(), targets, toggles, {GuardName(name): toggle for name, toggle in guards.items()})


def finding(target_id: str = "tgt_1", guard: GuardName = GuardName.LEXICON, score: float = 1.0) -> Finding:
    return Finding(target_id, 1, guard, score, 0.5, "window", "evidence")


class TestAuto:
    def test_it_is_open_to_a_choice_unless_somebody_said_otherwise(self) -> None:
        on, own, auto = (TargetToggle(enabled=True, action=action) for action in (None, "prefix", "auto"))
        locked = target(locked=True, all_tenants=True)
        chosen = {
            (name, toggle.action): resolve_target(one, toggle).auto  # type: ignore[union-attr]
            for name, one in {"plain": target(), "eco": target(action="eco"), "locked": locked}.items()
            for toggle in (on, own, auto)
        }
        assert {key for key, is_open in chosen.items() if is_open} == {
            ("plain", None),
            ("plain", "auto"),
            ("eco", "auto"),
            ("locked", None),
            ("locked", "auto"),
        }

    def test_going_to_it_loosens(self) -> None:
        refused, auto = TargetToggle(enabled=True, action="refuse"), TargetToggle(enabled=True, action="auto")
        assert not tenant_may_set_target(tenant(), target(), refused, auto)
        assert tenant_may_set_target(tenant(), target(), auto, refused)

    @pytest.mark.parametrize("default", ["prefix", "eco"])
    def test_going_from_it_loosens_but_for_a_refusal(self, default: str) -> None:
        defaults = Defaults(default, strictness={"refuse": 100, "lunar": 40, "eco": 20, "prefix": 10})
        for action, may in (("prefix", False), ("eco", False), ("lunar", False), ("refuse", True), ("odd", True)):
            named = TargetToggle(enabled=True, action=action)
            assert tenant_may_set_target(tenant(), target(all_tenants=True), None, named, defaults) is may

    @pytest.mark.parametrize(("action", "is_open"), [("prefix", True), ("lunar", True), ("refuse", False)])
    def test_a_locked_target_stays_open_to_a_choice_that_may_be_stricter(self, action: str, is_open: bool) -> None:
        defaults = Defaults("prefix", strictness={"refuse": 100, "lunar": 40, "prefix": 10})
        locked, named = target(locked=True, all_tenants=True), TargetToggle(enabled=True, action=action)
        active = resolve_target(locked, named, defaults)
        assert active and (active.action, active.auto) == (action, is_open)


class TestGating:
    def test_a_toggle_says_otherwise_unless_the_operator_locked_it(self) -> None:
        always = TargetToggle(enabled=True, gating=Gating.ALWAYS)
        gated = TargetToggle(enabled=True, gating=Gating.GATED)
        plain, strict = target(), target(gating=Gating.ALWAYS)
        assert resolve_target(plain, always).gating is Gating.ALWAYS  # type: ignore[union-attr]
        assert resolve_target(strict, TargetToggle(enabled=True)).gating is Gating.ALWAYS  # type: ignore[union-attr]
        assert resolve_target(strict, gated).gating is Gating.GATED  # type: ignore[union-attr]
        locked = target(gating=Gating.ALWAYS, locked=True, all_tenants=True)
        assert resolve_target(locked, gated).gating is Gating.ALWAYS  # type: ignore[union-attr]

    def test_gating_what_was_always_on_loosens_it(self) -> None:
        one = target(gating=Gating.ALWAYS, threshold=0.5)
        before, after = TargetToggle(enabled=True), TargetToggle(enabled=True, gating=Gating.GATED)
        assert not tenant_may_set_target(tenant(), one, before, after)
        assert tenant_may_set_target(tenant(), one, after, before)

    def test_a_tenant_without_detectors_is_not_idle_while_an_edit_is_always_on(self) -> None:
        off = {name: GuardToggle(enabled=False) for name in GuardName}
        assert policy_for(target(), **off).idle
        assert not policy_for(target(gating=Gating.ALWAYS), **off).idle


class TestPrecedence:
    def test_a_target_is_off_unless_someone_says_otherwise(self) -> None:
        assert resolve_target(target(), None) is None

    def test_all_tenants_is_a_default_that_a_toggle_overrides(self) -> None:
        everywhere = target(all_tenants=True)
        assert resolve_target(everywhere, None) is not None
        assert resolve_target(everywhere, TargetToggle(enabled=False)) is None

    def test_a_lock_on_a_target_for_all_overrides_the_toggle(self) -> None:
        locked = target(all_tenants=True, locked=True)
        assert resolve_target(locked, TargetToggle(enabled=False)) is not None

    def test_a_lock_on_a_target_that_is_not_for_all_switches_nothing_on(self) -> None:
        assert resolve_target(target(locked=True), None) is None
        assert resolve_target(target(locked=True), TargetToggle(enabled=False)) is None

    def test_a_toggle_says_action_and_threshold_and_inherits_what_it_does_not_say(self) -> None:
        one = target(action="prefix", threshold=0.3)
        inherited = resolve_target(one, TargetToggle(enabled=True))
        said = resolve_target(one, TargetToggle(enabled=True, action="refuse", threshold=0.9))
        assert inherited and (inherited.action, inherited.threshold) == ("prefix", 0.3)
        assert said and (said.action, said.threshold) == ("refuse", 0.9)

    def test_a_toggle_of_a_locked_target_tightens_only(self) -> None:
        locked = target(all_tenants=True, locked=True, action="prefix", threshold=0.5)
        looser = resolve_target(locked, TargetToggle(enabled=True, action="prefix", threshold=0.9))
        tighter = resolve_target(locked, TargetToggle(enabled=True, action="refuse", threshold=0.1))
        assert looser and (looser.action, looser.threshold) == ("prefix", 0.5)
        assert tighter and (tighter.action, tighter.threshold) == ("refuse", 0.1)

    def test_auto_is_the_default_action(self) -> None:
        active = resolve_target(target(all_tenants=True), None, Defaults(action="prefix"))
        assert active and active.action == "prefix"

    def test_every_guard_is_in_the_policy(self) -> None:
        resolved = resolve(tenant(), [], {}, {GuardName.LEAK: GuardToggle(enabled=False)})
        assert set(resolved.guards) == set(GuardName)
        assert not resolved.guards[GuardName.LEAK].enabled
        assert resolved.guards[GuardName.LEXICON] == GuardToggle()


class TestDecision:
    def test_nothing_found_means_nothing_done(self) -> None:
        assert decide(Verdict(), policy_for(target())).action is None

    def test_a_finding_below_its_threshold_counts_for_nothing(self) -> None:
        plan = decide(Verdict((finding(score=0.49),)), policy_for(target()))
        assert plan.action is None and not plan.findings

    def test_the_strictest_action_wins_in_any_order(self) -> None:
        policy = policy_for(target("tgt_1", action="prefix"), target("tgt_2", action="refuse"))
        for order in (("tgt_1", "tgt_2"), ("tgt_2", "tgt_1")):
            plan = decide(Verdict(tuple(map(finding, order))), policy)
            assert plan.action == "refuse" and len(plan.findings) == 2

    def test_an_unknown_action_is_a_refusal(self) -> None:
        policy = policy_for(target(action="teleport"))
        assert decide(Verdict((finding(),)), policy).action == "refuse"
        assert strictest(["teleport"], {"prefix": 1}) == "refuse"

    def test_strictness_is_data(self) -> None:
        policy = policy_for(target("tgt_1", action="prefix"), target("tgt_2", action="clamp"))
        verdict = Verdict((finding("tgt_1"), finding("tgt_2")))
        assert decide(verdict, policy, {"refuse": 100, "prefix": 10, "clamp": 50}).action == "clamp"
        assert decide(verdict, policy, {"refuse": 100, "prefix": 50, "clamp": 10}).action == "prefix"

    def test_monitored_targets_are_recorded_and_not_acted_on(self) -> None:
        plan = decide(Verdict((finding(),)), policy_for(target(mode="monitor")))
        assert plan.action is None and not plan.findings and len(plan.monitored) == 1

    def test_findings_of_a_guard_that_is_off_count_for_nothing(self) -> None:
        policy = policy_for(target(), lexicon=GuardToggle(enabled=False))
        plan = decide(Verdict((finding(),), (GuardName.LEXICON,)), policy)
        assert plan.action is None and not plan.unavailable

    def test_findings_on_targets_of_others_count_for_nothing(self) -> None:
        assert decide(Verdict((finding("tgt_other"),)), policy_for(target())).action is None

    def test_a_guard_that_cannot_judge_refuses_when_closed(self) -> None:
        plan = decide(Verdict(unavailable=(GuardName.SEMANTIC,)), policy_for(target(action="prefix")))
        assert plan.action == "refuse" and plan.unavailable == (GuardName.SEMANTIC,)

    def test_a_guard_that_cannot_judge_is_only_recorded_when_open(self) -> None:
        policy = policy_for(target(), semantic=GuardToggle(on_error=OnError.OPEN))
        plan = decide(Verdict(unavailable=(GuardName.SEMANTIC,)), policy)
        assert plan.action is None and plan.unavailable == (GuardName.SEMANTIC,)

    @pytest.mark.parametrize("targets", [(), (target(mode="monitor"),)])
    def test_a_guard_that_cannot_judge_is_only_recorded_where_nothing_is_enforced(
        self, targets: tuple[ForgetTarget, ...]
    ) -> None:
        plan = decide(Verdict(unavailable=(GuardName.SEMANTIC,)), policy_for(*targets))
        assert plan.action is None and plan.unavailable == (GuardName.SEMANTIC,)


ON, OFF = TargetToggle(enabled=True), TargetToggle(enabled=False)


class TestTenantsOwnKey:
    @pytest.mark.parametrize(
        ("spec", "before", "after", "plain", "self_service"),
        [
            ({}, None, ON, True, True),  # tightening is always allowed
            ({}, ON, OFF, False, True),
            ({}, ON, None, False, True),
            ({"all_tenants": True}, None, OFF, False, True),
            ({"locked": True}, ON, OFF, False, False),
            ({"locked": True}, None, ON, True, True),
            # Without effect while it is locked, and off as soon as it is not.
            ({"locked": True, "all_tenants": True}, None, OFF, False, False),
            ({"locked": True}, None, OFF, False, False),
            # Without effect, or a tightening, until it is on for all tenants.
            ({}, None, OFF, False, True),
            ({}, None, TargetToggle(enabled=True, action="prefix"), False, True),
            ({"gating": "always"}, None, TargetToggle(enabled=True, gating=Gating.GATED), False, True),
            ({}, OFF, None, True, True),
            ({}, OFF, TargetToggle(enabled=True, action="prefix"), True, True),  # the operator had it off
            ({}, ON.model_copy(update={"locked": True}), OFF.model_copy(update={"locked": True}), False, False),
            ({}, ON, ON.model_copy(update={"locked": True}), False, False),  # may not lock
            ({}, ON.model_copy(update={"locked": True}), ON, False, False),  # may not unlock
            ({}, ON.model_copy(update={"locked": True}), None, False, False),  # nor by removing
            ({"threshold": 0.5}, ON, TargetToggle(enabled=True, threshold=0.6), False, True),
            ({"threshold": 0.5}, ON, TargetToggle(enabled=True, threshold=0.4), True, True),
            ({}, ON, TargetToggle(enabled=True, threshold=0.0), False, True),  # calibrated: cannot be compared
            ({}, ON, TargetToggle(enabled=True, action="prefix"), False, True),
            ({"action": "prefix"}, ON, TargetToggle(enabled=True, action="refuse"), True, True),
        ],
    )
    def test_targets(
        self,
        spec: dict[str, object],
        before: TargetToggle | None,
        after: TargetToggle | None,
        plain: bool,
        self_service: bool,
    ) -> None:
        assert tenant_may_set_target(tenant(), target(**spec), before, after) is plain
        assert tenant_may_set_target(tenant(self_service=True), target(**spec), before, after) is self_service

    @pytest.mark.parametrize(
        ("before", "after", "plain", "self_service"),
        [
            (None, GuardToggle(enabled=False), False, True),
            (None, GuardToggle(on_error=OnError.OPEN), False, True),
            (None, GuardToggle(deadline_ms=1), True, True),  # closed: too little time refuses
            (GuardToggle(on_error=OnError.OPEN), GuardToggle(on_error=OnError.OPEN, deadline_ms=1), False, True),
            (GuardToggle(enabled=False), None, True, True),
            (GuardToggle(locked=True), GuardToggle(locked=True, enabled=False), False, False),
            (GuardToggle(locked=True), GuardToggle(), False, False),
            (None, GuardToggle(locked=True), False, False),
        ],
    )
    def test_guards(
        self, before: GuardToggle | None, after: GuardToggle | None, plain: bool, self_service: bool
    ) -> None:
        for own, may in ((tenant(), plain), (tenant(self_service=True), self_service)):
            assert tenant_may_set_guard(TenantPolicy(own), {}, before, after) is may

    @pytest.mark.parametrize(
        ("specs", "toggles", "may"),
        [
            ([{}], {"tgt_0": ON}, True),
            ([{}, {"all_tenants": True, "locked": True}], {"tgt_0": ON}, False),
            ([{"locked": True}], {"tgt_0": ON}, False),
            ([{}], {"tgt_0": ON.model_copy(update={"locked": True})}, False),
            ([{"all_tenants": True}], {"tgt_0": ON.model_copy(update={"locked": True})}, False),
            ([{"locked": True}], {}, True),  # locked, and not on
            ([{}], {"tgt_0": OFF.model_copy(update={"locked": True})}, True),
        ],
    )
    def test_no_guard_is_loosened_while_a_target_that_is_on_is_locked(
        self, specs: list[dict[str, object]], toggles: dict[str, TargetToggle], may: bool
    ) -> None:
        targets = [target(f"tgt_{number}", **spec) for number, spec in enumerate(specs)]
        policy = resolve(tenant(self_service=True), targets, toggles, {})
        assert tenant_may_set_guard(policy, toggles, None, GuardToggle(enabled=False)) is may
        assert tenant_may_set_guard(policy, toggles, None, GuardToggle(on_error=OnError.OPEN)) is may
        assert tenant_may_set_guard(policy, toggles, GuardToggle(enabled=False), None)

    def test_a_guard_that_is_off_cannot_be_loosened_further(self) -> None:
        assert not loosens_guard(GuardToggle(enabled=False), GuardToggle(enabled=False, on_error=OnError.OPEN))


def test_monitor_mode_is_the_targets_own() -> None:
    active = resolve_target(target(mode="monitor"), ON)
    assert active and active.mode is Mode.MONITOR
