"""What holds of every policy and every verdict."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from guard.policy import REFUSE, Defaults, decide, loosens_target, resolve, resolve_target, tenant_may_set_target
from guard.types import (
    Finding,
    ForgetTarget,
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
STRICTNESS = {"refuse": 100, "clamp": 50, "prefix": 10}
DEFAULTS = Defaults(strictness=STRICTNESS)
IDS = [f"tgt_{n}" for n in range(4)]

actions = st.sampled_from(["auto", "refuse", "clamp", "prefix", "unheard-of"])
thresholds = st.none() | st.sampled_from([0.1, 0.5, 0.9])
target_toggles = st.builds(
    TargetToggle, enabled=st.booleans(), action=st.none() | actions, threshold=thresholds, locked=st.booleans()
)
guard_toggles = st.builds(
    GuardToggle,
    enabled=st.booleans(),
    on_error=st.sampled_from(OnError),
    deadline_ms=st.integers(1, 5000),
    locked=st.booleans(),
)
specs = st.builds(
    TargetSpec,
    name=st.just("x"),
    mode=st.sampled_from(Mode),
    all_tenants=st.booleans(),
    locked=st.booleans(),
    action=actions,
    threshold=thresholds,
)
target_lists = st.lists(specs, max_size=len(IDS)).map(
    lambda found: [ForgetTarget(target_id, 1, spec, NOW, NOW) for target_id, spec in zip(IDS, found, strict=False)]
)
tenants = st.booleans().map(lambda own: Tenant("ten_1", 1, TenantSpec(name="t", self_service=own), NOW, NOW))
policies = st.builds(
    resolve,
    tenants,
    target_lists,
    st.dictionaries(st.sampled_from(IDS), target_toggles),
    st.dictionaries(st.sampled_from(GuardName), guard_toggles),
    st.just(DEFAULTS),
)
findings = st.builds(
    Finding,
    target_id=st.sampled_from(IDS),
    revision=st.just(1),
    guard=st.sampled_from(GuardName),
    score=st.floats(0, 1),
    threshold=st.floats(0, 1),
    window=st.just("w"),
    evidence=st.just("e"),
)
verdicts = st.builds(
    Verdict,
    findings=st.lists(findings, max_size=6).map(tuple),
    unavailable=st.sets(st.sampled_from(GuardName)).map(tuple),
)


@given(verdicts, policies)
def test_a_decision_is_exactly_as_strict_as_its_reasons(verdict: Verdict, policy: TenantPolicy) -> None:
    plan = decide(verdict, policy, STRICTNESS)
    ranks = [
        STRICTNESS.get(policy.targets[f"{finding.target_id}@1"].action, STRICTNESS[REFUSE]) for finding in plan.findings
    ]
    closed = any(policy.guards[guard].on_error is OnError.CLOSED for guard in plan.unavailable)
    if closed and any(active.mode is Mode.ENFORCE for active in policy.targets.values()):
        ranks.append(STRICTNESS[REFUSE])
    assert (plan.action is None) == (not ranks)
    if plan.action is not None:
        assert STRICTNESS[plan.action] == max(ranks)


@given(verdicts, policies)
def test_only_flagged_findings_of_working_guards_on_own_targets_count(verdict: Verdict, policy: TenantPolicy) -> None:
    plan = decide(verdict, policy, STRICTNESS)
    for finding in (*plan.findings, *plan.monitored):
        assert finding.flagged and policy.guards[finding.guard].enabled
        assert f"{finding.target_id}@1" in policy.targets
    assert all(policy.targets[f"{finding.target_id}@1"].mode is Mode.ENFORCE for finding in plan.findings)
    assert all(policy.targets[f"{finding.target_id}@1"].mode is Mode.MONITOR for finding in plan.monitored)


@given(verdicts, findings, policies)
def test_one_finding_more_never_loosens(verdict: Verdict, more: Finding, policy: TenantPolicy) -> None:
    before = decide(verdict, policy, STRICTNESS).action
    after = decide(Verdict((*verdict.findings, more), verdict.unavailable), policy, STRICTNESS).action
    assert STRICTNESS.get(after or "", 0) >= STRICTNESS.get(before or "", 0)


@given(specs, st.lists(st.none() | target_toggles, max_size=8), st.booleans())
def test_no_sequence_of_a_tenants_own_changes_gets_below_a_lock(
    spec: TargetSpec, wishes: list[TargetToggle | None], self_service: bool
) -> None:
    target = ForgetTarget("tgt_0", 1, spec.model_copy(update={"locked": True, "all_tenants": True}), NOW, NOW)
    tenant = Tenant("ten_1", 1, TenantSpec(name="t", self_service=self_service), NOW, NOW)
    floor = resolve_target(target, None, DEFAULTS)
    current: TargetToggle | None = None
    for wish in wishes:
        if tenant_may_set_target(tenant, target, current, wish, DEFAULTS):
            current = wish
    active = resolve_target(target, current, DEFAULTS)
    assert active is not None and floor is not None
    assert STRICTNESS.get(active.action, 100) >= STRICTNESS.get(floor.action, 100)
    assert active.threshold == floor.threshold or (
        active.threshold is not None and floor.threshold is not None and active.threshold < floor.threshold
    )


@given(specs, st.none() | target_toggles, st.sampled_from(["refuse", "clamp", "prefix"]))
def test_no_toggle_takes_a_locked_target_below_what_is_chosen_for_it(
    spec: TargetSpec, toggle: TargetToggle | None, default: str
) -> None:
    defaults = Defaults(default, strictness=STRICTNESS)
    target = ForgetTarget("tgt_0", 1, spec.model_copy(update={"locked": True, "all_tenants": True}), NOW, NOW)
    floor, active = resolve_target(target, None, defaults), resolve_target(target, toggle, defaults)
    assert floor is not None and active is not None
    assert active.auto == floor.auto or (floor.auto and STRICTNESS.get(active.action, 100) == STRICTNESS[REFUSE])


@given(
    specs,
    st.lists(st.none() | target_toggles, max_size=8),
    st.sampled_from(["refuse", "clamp", "prefix"]),
    st.booleans(),
    st.booleans(),
)
def test_without_self_service_nothing_is_put_there_in_advance(
    spec: TargetSpec, wishes: list[TargetToggle | None], default: str, all_tenants: bool, locked: bool
) -> None:
    defaults = Defaults(default, strictness=STRICTNESS)
    target = ForgetTarget("tgt_0", 1, spec, NOW, NOW)
    tenant = Tenant("ten_1", 1, TenantSpec(name="t"), NOW, NOW)
    current: TargetToggle | None = None
    for wish in wishes:
        if tenant_may_set_target(tenant, target, current, wish, defaults):
            current = wish
    later = spec.model_copy(update={"all_tenants": all_tenants, "locked": locked})
    assert not loosens_target(ForgetTarget("tgt_0", 2, later, NOW, NOW), None, current, defaults)


@given(specs, st.lists(st.none() | target_toggles, max_size=8))
def test_without_self_service_a_tenant_only_ever_tightens(spec: TargetSpec, wishes: list[TargetToggle | None]) -> None:
    target = ForgetTarget("tgt_0", 1, spec, NOW, NOW)
    tenant = Tenant("ten_1", 1, TenantSpec(name="t"), NOW, NOW)
    current: TargetToggle | None = None
    for wish in wishes:
        before = resolve_target(target, current, DEFAULTS)
        if not tenant_may_set_target(tenant, target, current, wish, DEFAULTS):
            continue
        current = wish
        after = resolve_target(target, current, DEFAULTS)
        if before is not None:
            assert after is not None
            assert STRICTNESS.get(after.action, 100) >= STRICTNESS.get(before.action, 100)
