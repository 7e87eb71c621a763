"""The registry: what requests see, when they see it, and what it costs to keep it so."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import database_url, postgres_server  # noqa: F401  (fixtures)

from guard import policy
from guard.registry import PrepareError, Registry
from guard.snapshot import Snapshot
from guard.store import DEFAULT_TENANT_ID, NameTakenError, Store, Writer
from guard.store.keys import new_key
from guard.types import (
    ForgetTarget,
    GuardName,
    GuardToggle,
    Principal,
    Scope,
    TargetSpec,
    TargetToggle,
    Tenant,
    TenantSpec,
)

Open = Callable[..., Registry]


@pytest.fixture
def open_registry(database_url: str) -> Iterator[Open]:  # noqa: F811
    """Makes registries on one database, each with connections of its own, as separate processes have."""
    with ExitStack() as stack:

        def open_one(prepare: Callable[[Snapshot], None] = lambda _: None, poll_interval: float = 0.1) -> Registry:
            store = Store.open(database_url)
            stack.callback(store.close)
            registry = Registry(store, prepare, poll_interval=poll_interval)
            registry.bootstrap("an admin key of the tests")
            registry.start()
            stack.callback(registry.close)
            return registry

        yield open_one


def create(registry: Registry, name: str, **spec: object) -> ForgetTarget:
    return registry.write(lambda writer: writer.create_target(TargetSpec(name=name, **spec)))


def create_tenant(registry: Registry, name: str) -> Tenant:
    return registry.write(lambda writer: writer.create_tenant(TenantSpec(name=name)))


def enable(registry: Registry, tenant: Tenant, target: ForgetTarget, enabled: bool = True) -> None:
    toggle = TargetToggle(enabled=enabled)
    registry.write(lambda writer: writer.put_target_toggle(tenant.id, target.id, toggle))


def active(registry: Registry, tenant_id: str) -> set[str]:
    return {one.target.spec.name for one in registry.snapshot.policies[tenant_id].targets.values()}


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


class TestWriting:
    def test_a_change_is_in_force_when_the_call_returns(self, open_registry: Open) -> None:
        registry = open_registry(poll_interval=60)
        tenant, target = create_tenant(registry, "a"), create(registry, "it")
        assert active(registry, tenant.id) == set()
        enable(registry, tenant, target)
        assert active(registry, tenant.id) == {"it"}
        registry.write(lambda writer: writer.update_target(target.id, TargetSpec(name="that")))
        assert active(registry, tenant.id) == {"that"}
        assert list(registry.snapshot.policies[tenant.id].targets) == [f"{target.id}@2"]
        enable(registry, tenant, target, enabled=False)
        assert active(registry, tenant.id) == set()
        guard = GuardToggle(enabled=False)
        registry.write(lambda writer: writer.put_guard_toggle(tenant.id, GuardName.LEAK, guard))
        assert registry.snapshot.policies[tenant.id].guards[GuardName.LEAK] == guard
        registry.write(lambda writer: writer.delete_guard_toggle(tenant.id, GuardName.LEAK))
        assert registry.snapshot.policies[tenant.id].guards[GuardName.LEAK] == GuardToggle()

    def test_a_target_for_all_reaches_every_tenant_and_leaves_every_tenant(self, open_registry: Open) -> None:
        registry = open_registry(poll_interval=60)
        one, other = create_tenant(registry, "a"), create_tenant(registry, "b")
        target = create(registry, "it", all_tenants=True)
        enable(registry, other, target, enabled=False)
        assert (active(registry, one.id), active(registry, other.id)) == ({"it"}, set())
        later = create_tenant(registry, "c")
        assert active(registry, later.id) == {"it"}
        registry.write(lambda writer: writer.delete_target_toggle(other.id, target.id))
        assert active(registry, other.id) == {"it"}
        registry.write(lambda writer: writer.delete_target(target.id))
        assert not any(one.targets for one in registry.snapshot.policies.values())

    def test_a_snapshot_in_use_never_changes(self, open_registry: Open) -> None:
        registry = open_registry(poll_interval=60)
        tenant, target = create_tenant(registry, "a"), create(registry, "it")
        enable(registry, tenant, target)
        held = registry.snapshot
        before = (dict(held.targets), dict(held.policies[tenant.id].targets), dict(held.toggles[tenant.id]))
        registry.write(lambda writer: writer.delete_target(target.id))
        registry.write(lambda writer: writer.delete_tenant(tenant.id))
        assert (held.targets, held.policies[tenant.id].targets, held.toggles[tenant.id]) == before

    def test_following_step_by_step_and_loading_at_once_agree(self, open_registry: Open) -> None:
        registry = open_registry(poll_interval=60)
        tenants = [create_tenant(registry, name) for name in "abc"]
        targets = [create(registry, f"t{n}", all_tenants=n % 2 == 0, locked=n == 0) for n in range(6)]
        for tenant in tenants:
            for target in targets[1:4]:
                enable(registry, tenant, target, enabled=tenant is not tenants[1])
        registry.write(lambda writer: writer.put_guard_toggle(tenants[0].id, GuardName.LEAK, GuardToggle(locked=True)))
        registry.write(lambda writer: writer.update_target(targets[2].id, TargetSpec(name="renamed")))
        registry.write(lambda writer: writer.delete_target(targets[3].id))
        registry.write(lambda writer: writer.delete_tenant(tenants[2].id))
        registry.write(lambda writer: writer.delete_target_toggle(tenants[1].id, targets[1].id))
        stepwise, at_once = registry.snapshot, open_registry().snapshot
        assert stepwise.policies == at_once.policies
        assert stepwise.targets == at_once.targets and stepwise.keys == at_once.keys
        assert stepwise.revision == at_once.revision

    def test_trying_out_changes_nothing_and_checks_everything(self, open_registry: Open) -> None:
        prepared: list[Snapshot] = []
        registry = open_registry(prepared.append, poll_interval=60)
        create(registry, "it")
        before, calls = registry.snapshot, len(prepared)
        would_be = registry.write(lambda writer: writer.create_target(TargetSpec(name="that")), dry_run=True)
        assert would_be.spec.name == "that"
        with pytest.raises(NameTakenError):
            registry.write(lambda writer: writer.create_target(TargetSpec(name="IT")), dry_run=True)
        registry.refresh()
        assert registry.snapshot is before and len(prepared) == calls


class Picky:
    """Cannot prepare targets of some names, as a compiler with a defect could not."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.calls: list[Snapshot] = []

    def __call__(self, snapshot: Snapshot) -> None:
        self.calls.append(snapshot)
        if any(target.spec.name in self.refused for target in snapshot.targets.values()):
            raise ValueError("secret name of a target")


class TestPreparing:
    def test_it_comes_before_the_swap(self, open_registry: Open) -> None:
        seen: list[tuple[int, int]] = []
        holder: list[Registry] = []

        def prepare(snapshot: Snapshot) -> None:
            if holder:
                seen.append((snapshot.revision, holder[0].snapshot.revision))

        registry = open_registry(prepare, poll_interval=60)
        holder.append(registry)
        revision = registry.snapshot.revision
        create(registry, "it")
        assert seen == [(revision + 1, revision)]

    def test_a_target_that_cannot_be_prepared_is_not_registered(
        self, open_registry: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        prepare = Picky()
        registry = open_registry(prepare, poll_interval=60)
        good = registry.snapshot
        prepare.refused = {"poison"}
        with pytest.raises(PrepareError) as caught:
            create(registry, "poison")
        assert registry.snapshot is good and registry.healthy
        assert prepare.calls[-1] is good  # so that it lets go of what it took up
        assert "secret" not in str(caught.value) and "secret" not in caplog.text
        prepare.refused = set()
        create(registry, "poison")  # nothing was left behind
        assert [target.spec.name for target in registry.snapshot.targets.values()] == ["poison"]

    def test_while_another_process_outruns_us_the_last_good_state_is_served(
        self, open_registry: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        prepare = Picky()
        prepare.refused = {"poison"}
        ours, theirs = open_registry(prepare, poll_interval=0.02), open_registry()
        good = ours.snapshot
        poison = create(theirs, "poison")
        assert within(2, lambda: not ours.healthy)
        assert ours.snapshot is good and "secret" not in caplog.text and "ValueError" in caplog.text
        theirs.write(lambda writer: writer.delete_target(poison.id))
        assert within(6, lambda: ours.healthy)
        assert ours.snapshot.revision == theirs.snapshot.revision


class TestTwoProcesses:
    def test_they_agree_within_a_second(self, open_registry: Open) -> None:
        here, there = open_registry(poll_interval=0.25), open_registry(poll_interval=0.25)
        tenant, target = create_tenant(here, "a"), create(here, "it")
        enable(here, tenant, target)
        assert within(1, lambda: active_or_none(there, tenant.id) == {"it"})
        enable(there, tenant, target, enabled=False)
        assert active(there, tenant.id) == set()
        assert within(1, lambda: active(here, tenant.id) == set())

    def test_a_write_takes_up_what_others_wrote_before(self, open_registry: Open) -> None:
        here, there = open_registry(poll_interval=60), open_registry(poll_interval=60)
        create(here, "one")
        create(there, "two")
        assert {target.spec.name for target in there.snapshot.targets.values()} == {"one", "two"}

    def test_a_database_that_was_put_back_is_followed(self, open_registry: Open) -> None:
        registry = open_registry(poll_interval=60)
        create(registry, "it")
        with registry._store.transaction() as connection:
            connection.execute(sa.text("DELETE FROM targets"))
            connection.execute(sa.text("UPDATE meta SET revision = 1"))
        registry.refresh()
        assert registry.snapshot.targets == {} and registry.snapshot.revision == 1


def test_closing_does_not_wait_for_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")
    registry = Registry(store, lambda _: None, poll_interval=0.01)
    asked, answered = threading.Event(), threading.Event()

    def silent() -> int:
        asked.set()
        answered.wait(60)
        return registry.snapshot.revision

    monkeypatch.setattr("guard.registry._CLOSE_S", 0.1)
    registry.start()
    monkeypatch.setattr(store, "revision", silent)
    assert asked.wait(10)
    began = time.monotonic()
    registry.close()
    assert time.monotonic() - began < 10
    answered.set()
    registry.close()
    store.close()


def active_or_none(registry: Registry, tenant_id: str) -> set[str] | None:
    return active(registry, tenant_id) if tenant_id in registry.snapshot.policies else None


class TestKeys:
    def test_without_tenants_anyone_is_the_default_tenant(self, open_registry: Open) -> None:
        registry = open_registry()
        anonymous = Principal(Scope.TENANT, DEFAULT_TENANT_ID, None)
        for key in (None, "", "EMPTY", "sk-whatever"):
            assert registry.authenticate(key) == anonymous
        assert registry.authenticate(new_key(Scope.TENANT)) is None  # ours, so a mistake

    def test_with_the_first_tenant_keys_are_needed_for_ever(self, open_registry: Open) -> None:
        registry = open_registry(poll_interval=60)
        tenant = create_tenant(registry, "a")
        for one in (registry, open_registry()):
            assert one.authenticate(None) is None and one.authenticate("EMPTY") is None
        registry.write(lambda writer: writer.delete_tenant(tenant.id))
        assert registry.authenticate(None) is None

    def test_keys_work_until_they_are_revoked(self, open_registry: Open) -> None:
        registry = open_registry(poll_interval=60)
        tenant, key = create_tenant(registry, "a"), new_key(Scope.TENANT)
        record = registry.write(lambda writer: writer.add_key(key, Scope.TENANT, tenant.id))
        assert registry.authenticate(key) == Principal(Scope.TENANT, tenant.id, record.id)
        registry.write(lambda writer: writer.revoke_key(record.id, tenant.id))
        assert registry.authenticate(key) is None
        other = new_key(Scope.TENANT)
        registry.write(lambda writer: writer.add_key(other, Scope.TENANT, tenant.id))
        registry.write(lambda writer: writer.delete_tenant(tenant.id))
        assert registry.authenticate(other) is None

    def test_the_admin_key_of_the_settings_is_an_admin_key(self, open_registry: Open) -> None:
        principal = open_registry().authenticate("an admin key of the tests")
        assert principal is not None and principal.scope is Scope.ADMIN and principal.tenant_id is None

    def test_an_admin_key_is_made_once(self, database_url: str) -> None:  # noqa: F811
        store = Store.open(database_url)
        registry = Registry(store, lambda _: None)
        key = registry.bootstrap()
        assert key is not None and key.startswith("lethe-admin-")
        assert registry.bootstrap() is None
        registry.refresh()
        principal = registry.authenticate(key)
        assert principal is not None and principal.scope is Scope.ADMIN
        store.close()


@pytest.mark.parametrize("all_tenants", [False, True])
def test_the_cost_of_registering_does_not_grow_with_the_number_of_targets(
    open_registry: Open, monkeypatch: pytest.MonkeyPatch, all_tenants: bool
) -> None:
    registry = open_registry(poll_interval=60)
    tenants = [create_tenant(registry, name) for name in "ab"]

    def cost(name: str) -> Counter[str]:
        counted: Counter[str] = Counter()
        resolve_target = policy.resolve_target

        def count_query(*_arguments: object) -> None:
            counted["queries"] += 1

        def count_resolve(*arguments: object) -> object:
            counted["resolved"] += 1
            return resolve_target(*arguments)

        engine = registry._store.engine
        sa.event.listen(engine, "before_cursor_execute", count_query)
        with monkeypatch.context() as patch:
            patch.setattr(policy, "resolve_target", count_resolve)
            before = registry.snapshot
            create(registry, name, all_tenants=all_tenants)
        sa.event.remove(engine, "before_cursor_execute", count_query)
        counted["new objects"] = sum(
            before.targets.get(target_id) is not target for target_id, target in registry.snapshot.targets.items()
        )
        return counted

    few = cost("first")

    def create_many(writer: Writer) -> None:
        for number in range(10_000):
            writer.create_target(TargetSpec(name=f"target {number}", all_tenants=all_tenants))

    registry.write(create_many)
    many = cost("last")
    assert many == few and many["new objects"] == 1
    assert many["resolved"] == (len(tenants) + 1 if all_tenants else 0)
    assert len(registry.snapshot.policies[tenants[0].id].targets) == (10_002 if all_tenants else 0)
