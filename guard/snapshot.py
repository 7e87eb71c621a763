"""One revision of the whole state, ready for requests, and how the next one is made from what changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from guard import policy
from guard.policy import Defaults
from guard.store import DEFAULT_TENANT_ID, Changes
from guard.types import ApiKey, ForgetTarget, GuardName, GuardToggle, TargetToggle, Tenant, TenantPolicy


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one revision. Never changed once made: a request holds one and needs no lock.

    What did not change from one snapshot to the next is the same object in both, so ``is`` tells cheaply what did.
    """

    revision: int = 0
    targets: Mapping[str, ForgetTarget] = field(default_factory=dict)  # by id
    policies: Mapping[str, TenantPolicy] = field(default_factory=dict)  # by tenant id
    keys: Mapping[str, ApiKey] = field(default_factory=dict)  # by hash, valid ones only
    toggles: Mapping[str, Mapping[str, TargetToggle]] = field(default_factory=dict)  # by tenant id, target id
    guard_toggles: Mapping[str, Mapping[GuardName, GuardToggle]] = field(default_factory=dict)  # by tenant id, guard
    anonymous_tenant_id: str | None = None  # who is served without a key


def advance(base: Snapshot, changes: Changes, defaults: Defaults) -> Snapshot:
    """The snapshot that follows ``base``. Only policies that ``changes`` touch are made anew."""
    return _Step(base, changes, defaults).snapshot()


class _Step:
    """The working copies of one :func:`advance`. Inner mappings are replaced, not changed: ``base`` owns them."""

    def __init__(self, base: Snapshot, changes: Changes, defaults: Defaults) -> None:
        self._base, self._changes, self._defaults = base, changes, defaults
        self._targets = dict(base.targets)
        self._policies = dict(base.policies)
        self._keys = dict(base.keys)
        self._toggles = dict(base.toggles)
        self._guard_toggles = dict(base.guard_toggles)
        self._dirty: defaultdict[str, set[str]] = defaultdict(set)  # by tenant: targets to resolve again

    def snapshot(self) -> Snapshot:
        """Apply deletions, then rows, then make the touched policies."""
        self._delete()
        changed = {target.id: target for target in self._changes.targets}
        self._targets.update(changed)
        for key in self._changes.keys:
            if key.revoked_at is None:
                self._keys[key.hash] = key
            else:
                self._keys.pop(key.hash, None)
        self._put_toggles()
        self._mark_targets(changed)
        self._make_policies()
        return Snapshot(
            revision=self._changes.revision,
            targets=self._targets,
            policies=self._policies,
            keys=self._keys,
            toggles=self._toggles,
            guard_toggles=self._guard_toggles,
            anonymous_tenant_id=self._anonymous(),
        )

    def _delete(self) -> None:
        gone = defaultdict(set)
        for tombstone in self._changes.deleted:
            gone[tombstone.kind].add(tombstone.id)
        for tenant_id in gone["tenant"]:
            for by_tenant in (self._policies, self._toggles, self._guard_toggles):
                by_tenant.pop(tenant_id, None)
        if gone["tenant"]:
            self._keys = {key: value for key, value in self._keys.items() if value.tenant_id not in gone["tenant"]}
        for target_id in gone["target"]:
            self._targets.pop(target_id, None)
        if gone["target"]:
            self._mark_targets(gone["target"])
            for tenant_id in self._dirty:
                self._drop_toggles(tenant_id, gone["target"])
        for name in gone["target_toggle"]:
            tenant_id, target_id = name.split("/")
            self._drop_toggles(tenant_id, {target_id})
            self._dirty[tenant_id].add(target_id)
        for name in gone["guard_toggle"]:
            tenant_id, guard = name.split("/")
            own = self._guard_toggles.get(tenant_id, {})
            self._guard_toggles[tenant_id] = {kept: toggle for kept, toggle in own.items() if kept != guard}

    def _put_toggles(self) -> None:
        by_tenant: defaultdict[str, dict[str, TargetToggle]] = defaultdict(dict)
        for row in self._changes.target_toggles:
            by_tenant[row.tenant_id][row.subject] = row.toggle
        for tenant_id, toggles in by_tenant.items():
            self._toggles[tenant_id] = {**self._toggles.get(tenant_id, {}), **toggles}
            self._dirty[tenant_id].update(toggles)
        for guard_row in self._changes.guard_toggles:
            own = self._guard_toggles.get(guard_row.tenant_id, {})
            self._guard_toggles[guard_row.tenant_id] = {**own, GuardName(guard_row.subject): guard_row.toggle}

    def _drop_toggles(self, tenant_id: str, target_ids: set[str]) -> None:
        own = self._toggles.get(tenant_id, {})
        if not target_ids.isdisjoint(own):
            self._toggles[tenant_id] = {kept: toggle for kept, toggle in own.items() if kept not in target_ids}

    def _mark_targets(self, target_ids: Iterable[str]) -> None:
        """Find whose policies a new, changed or deleted target touches."""
        for target_id in target_ids:
            versions = (self._base.targets.get(target_id), self._targets.get(target_id))
            for_all = any(target is not None and target.spec.all_tenants for target in versions)
            for tenant_id in self._policies:
                if for_all or target_id in self._toggles.get(tenant_id, ()):
                    self._dirty[tenant_id].add(target_id)

    def _make_policies(self) -> None:
        for tenant in self._changes.tenants:
            old = self._policies.get(tenant.id)
            if old is None:
                self._policies[tenant.id] = self._policy_of(tenant)
                self._dirty.pop(tenant.id, None)
            else:  # what a tenant's own spec says does not touch its targets and guards
                self._policies[tenant.id] = replace(old, tenant=tenant)
        for tenant_id, target_ids in self._dirty.items():
            old = self._policies.get(tenant_id)
            if old is not None:
                self._policies[tenant_id] = replace(old, targets=self._resolved_again(old, target_ids))
        for tenant_id, toggles in self._guard_toggles.items():
            if toggles is not self._base.guard_toggles.get(tenant_id) and tenant_id in self._policies:
                guards = policy.resolve_guards(toggles, self._defaults)
                self._policies[tenant_id] = replace(self._policies[tenant_id], guards=guards)

    def _policy_of(self, tenant: Tenant) -> TenantPolicy:
        toggles, guard_toggles = self._toggles.get(tenant.id, {}), self._guard_toggles.get(tenant.id, {})
        return policy.resolve(tenant, self._targets.values(), toggles, guard_toggles, self._defaults)

    def _anonymous(self) -> str | None:
        default = self._policies.get(DEFAULT_TENANT_ID)
        return default.tenant.id if default is not None and default.tenant.spec.anonymous else None

    def _resolved_again(self, old: TenantPolicy, target_ids: set[str]) -> dict[str, policy.ActiveTarget]:
        active = dict(old.targets)
        toggles = self._toggles.get(old.tenant.id, {})
        for target_id in target_ids:
            before, now = self._base.targets.get(target_id), self._targets.get(target_id)
            if before is not None:
                active.pop(before.key, None)
            resolved = now and policy.resolve_target(now, toggles.get(target_id), self._defaults)
            if resolved:
                active[resolved.target.key] = resolved
        return active
