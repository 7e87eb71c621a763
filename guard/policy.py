"""Who is guarded against what, and what is done about a verdict. Pure functions; ``docs/policy.md`` says the rules.

Precedence, from strongest to weakest: an operator's lock on a target that is on for all tenants, a tenant's own
toggle, the target's ``all_tenants`` default. A lock is a floor: what comes after it may tighten, never loosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from guard.types import (
    ActiveTarget,
    Finding,
    ForgetTarget,
    Gating,
    GuardName,
    GuardToggle,
    Mode,
    OnError,
    Plan,
    TargetToggle,
    Tenant,
    TenantPolicy,
    Verdict,
)

#: The action that always exists, and that everything unknown or unavailable falls back to.
REFUSE = "refuse"

#: The action that stands for what was chosen for the target (:mod:`guard.choice`); until then, :attr:`Defaults.action`.
AUTO = "auto"

#: How strict each intervention is. Interventions declare their number, and a server takes all of them
#: from there; these are for policies without one.
STRICTNESS: Mapping[str, int] = {REFUSE: 100, "prefix": 10}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where nobody said anything."""

    action: str = REFUSE  # what "auto" means where nothing was chosen
    guard: GuardToggle = field(default_factory=GuardToggle)
    strictness: Mapping[str, int] = field(default_factory=lambda: STRICTNESS)


DEFAULTS = Defaults()


def resolve(
    tenant: Tenant,
    targets: Iterable[ForgetTarget],
    toggles: Mapping[str, TargetToggle],
    guard_toggles: Mapping[GuardName, GuardToggle],
    defaults: Defaults = DEFAULTS,
) -> TenantPolicy:
    """Everything that applies to the requests of one tenant.

    Args:
        tenant: whose policy it is.
        targets: all that are registered, or at least those that could concern this tenant.
        toggles: the tenant's own, by target id.
        guard_toggles: the tenant's own, by guard.
        defaults: for what is not said.
    """
    active = (resolve_target(target, toggles.get(target.id), defaults) for target in targets)
    return TenantPolicy(
        tenant, {one.target.key: one for one in active if one is not None}, resolve_guards(guard_toggles, defaults)
    )


def resolve_target(
    target: ForgetTarget, toggle: TargetToggle | None, defaults: Defaults = DEFAULTS
) -> ActiveTarget | None:
    """How one target applies to the tenant that has this toggle for it; None when it does not."""
    spec = target.spec
    locked_on = spec.locked and spec.all_tenants
    enabled = spec.all_tenants if toggle is None else toggle.enabled
    if not (enabled or locked_on):
        return None
    action, threshold, gating = _concrete(spec.action, defaults), spec.threshold, spec.gating
    auto, floor = spec.action == AUTO, None
    if toggle is not None and toggle.enabled:
        own = action if toggle.action is None else _concrete(toggle.action, defaults)
        if not (locked_on and gating is Gating.ALWAYS):
            gating = toggle.gating or gating
        if locked_on:
            action = strictest((action, own), defaults.strictness)
            # What was chosen for the target may be stricter than any action that is named, a refusal aside.
            if auto and toggle.action not in (None, AUTO):
                auto, floor = not _refuses(action, defaults), own
            # None is the detector's calibrated threshold: whether a number is below it cannot be said here.
            if threshold is not None and toggle.threshold is not None:
                threshold = min(threshold, toggle.threshold)
        else:
            action, threshold = own, threshold if toggle.threshold is None else toggle.threshold
            auto = auto if toggle.action is None else toggle.action == AUTO
    return ActiveTarget(target, action, threshold, spec.mode, gating, auto, floor)


def choose(active: ActiveTarget, action: str, strictness: Mapping[str, int]) -> ActiveTarget:
    """``active`` once ``action`` was chosen for its target."""
    return replace(active, action=strictest((action, active.floor or action), strictness))


def resolve_guards(
    toggles: Mapping[GuardName, GuardToggle], defaults: Defaults = DEFAULTS
) -> dict[GuardName, GuardToggle]:
    """Every guard, with the tenant's toggle or the default one."""
    return {guard: toggles.get(guard, defaults.guard) for guard in GuardName}


def decide(verdict: Verdict, policy: TenantPolicy, strictness: Mapping[str, int] = STRICTNESS) -> Plan:
    """What to do with a request, given what the detectors said of it.

    Deny wins: of several actions the strictest is taken, and one that ``strictness`` does not know is a refusal.
    Findings below their threshold, of guards that are off, or on targets that do not concern the tenant count for
    nothing. A guard that is on and could not judge is a refusal where its ``on_error`` is closed and any target is
    enforced; where it is open, it is recorded only.

    Args:
        verdict: with findings whose thresholds were taken from ``policy`` already.
        policy: of the tenant that sent the request.
        strictness: a number for each known action, higher is stricter.
    """
    enforced: list[Finding] = []
    monitored: list[Finding] = []
    actions: list[str] = []
    for finding in verdict.findings:
        active = policy.targets.get(finding.key)
        if active is None or not finding.flagged or not _enabled(policy, finding.guard):
            continue
        if active.mode is Mode.MONITOR:
            monitored.append(finding)
        else:
            enforced.append(finding)
            actions.append(active.action)

    unavailable = tuple(guard for guard in verdict.unavailable if _enabled(policy, guard))
    if any(_toggle(policy, guard).on_error is OnError.CLOSED for guard in unavailable) and any(
        active.mode is Mode.ENFORCE for active in policy.targets.values()
    ):
        actions.append(REFUSE)
    action = strictest(actions, strictness) if actions else None
    return Plan(action, tuple(enforced), unavailable, tuple(monitored))


def strictest(actions: Iterable[str], strictness: Mapping[str, int] = STRICTNESS) -> str:
    """The strictest of one or more actions; an unknown one counts as, and is, a refusal."""
    return max((action if action in strictness else REFUSE for action in actions), key=lambda a: _rank(a, strictness))


def loosens_target(
    target: ForgetTarget, before: TargetToggle | None, after: TargetToggle | None, defaults: Defaults = DEFAULTS
) -> bool:
    """Whether a tenant would be less guarded against ``target`` with ``after`` than with ``before``.

    It counts, too, if the tenant would be so once the operator has the target on for all tenants and unlocked: else a
    toggle without effect could be put there in advance. A threshold that goes from or to the calibrated one counts as
    loosening, and so does going to ``auto``, or from it to anything but a refusal: neither can be shown to be none.
    """
    on_for_all = replace(target, spec=target.spec.model_copy(update={"all_tenants": True, "locked": False}))
    return any(_loosens(one, before, after, defaults) for one in (target, on_for_all))


def _loosens(target: ForgetTarget, before: TargetToggle | None, after: TargetToggle | None, defaults: Defaults) -> bool:
    old, new = resolve_target(target, before, defaults), resolve_target(target, after, defaults)
    if old is None:
        return False
    if new is None:
        return True
    if _rank(new.action, defaults.strictness) < _rank(old.action, defaults.strictness):
        return True
    if new.auto and not old.auto:  # what will be chosen may be less strict
        return True
    if old.auto and not new.auto and not _refuses(new.action, defaults):  # what was chosen may be stricter
        return True
    if old.gating is Gating.ALWAYS and new.gating is Gating.GATED:
        return True
    if old.threshold is None or new.threshold is None:
        return old.threshold is not new.threshold
    return new.threshold > old.threshold


def loosens_guard(before: GuardToggle, after: GuardToggle) -> bool:
    """Whether a guard would protect less with ``after`` than with ``before``."""
    if not before.enabled:
        return False
    if not after.enabled or (before.on_error is OnError.CLOSED and after.on_error is OnError.OPEN):
        return True
    # Too little time makes a guard unavailable; that is clean where on_error is open.
    return after.on_error is OnError.OPEN and after.deadline_ms < before.deadline_ms


def tenant_may_set_target(
    tenant: Tenant,
    target: ForgetTarget,
    before: TargetToggle | None,
    after: TargetToggle | None,
    defaults: Defaults = DEFAULTS,
) -> bool:
    """Whether the tenant's own key may change its toggle of ``target`` (None: no toggle) in this way.

    It may always tighten. It may loosen only with ``self_service``, and only what the operator has not locked, on the
    target or on the toggle. It may never lock or unlock.
    """
    was_locked = before is not None and before.locked
    if (after is not None and after.locked) != was_locked:
        return False
    if not loosens_target(target, before, after, defaults):
        return True
    return tenant.spec.self_service and not (was_locked or target.spec.locked)


def tenant_may_set_guard(
    policy: TenantPolicy,
    toggles: Mapping[str, TargetToggle],
    before: GuardToggle | None,
    after: GuardToggle | None,
    defaults: Defaults = DEFAULTS,
) -> bool:
    """Whether the tenant's own key may change its toggle of a guard (None: no toggle) in this way.

    The rules are those of :func:`tenant_may_set_target`, and no guard may be loosened while a target that is on for
    the tenant is locked: without guards such a target would be as good as off.

    Args:
        policy: the tenant's, as it is.
        toggles: the tenant's own, by target id.
        before: the toggle as it is.
        after: the toggle as it is to be.
        defaults: for what is not said.
    """
    old, new = before or defaults.guard, after or defaults.guard
    if new.locked != old.locked:
        return False
    if not loosens_guard(old, new):
        return True
    if old.locked or any(_is_locked(active.target, toggles) for active in policy.targets.values()):
        return False
    return policy.tenant.spec.self_service


def _is_locked(target: ForgetTarget, toggles: Mapping[str, TargetToggle]) -> bool:
    toggle = toggles.get(target.id)
    return target.spec.locked or (toggle is not None and toggle.locked)


def _concrete(action: str, defaults: Defaults) -> str:
    return defaults.action if action == AUTO else action


def _refuses(action: str, defaults: Defaults) -> bool:
    """Whether an action is at least as strict as a refusal, and so as anything that may be chosen for a target."""
    return _rank(action, defaults.strictness) >= _rank(REFUSE, defaults.strictness)


def _rank(action: str, strictness: Mapping[str, int]) -> float:
    """An unknown action is carried out as a refusal, and a refusal that has no number is stricter than any other."""
    return strictness.get(action, strictness.get(REFUSE, float("inf")))


def _toggle(policy: TenantPolicy, guard: GuardName) -> GuardToggle:
    return policy.guards.get(guard, DEFAULTS.guard)


def _enabled(policy: TenantPolicy, guard: GuardName) -> bool:
    return _toggle(policy, guard).enabled
