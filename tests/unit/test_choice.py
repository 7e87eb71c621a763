"""The action ``auto``: what was chosen for a target, where something was, and the server's default elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.artifacts import Artifact, Artifacts
from guard.choice import Choices
from guard.interventions import INTERVENTIONS
from guard.policy import Defaults, resolve
from guard.store import Store
from guard.types import ForgetTarget, TargetSpec, TargetToggle, TenantPolicy, TenantSpec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")


@pytest.fixture
def targets(store: Store) -> list[ForgetTarget]:
    with store.write() as writer:
        return [writer.create_target(TargetSpec(name=name)) for name in ("Ann", "Ben")]


@pytest.fixture
def policy(store: Store, targets: list[ForgetTarget]) -> TenantPolicy:
    with store.write() as writer:
        tenant = writer.create_tenant(TenantSpec(name="somebody"))
    ann, ben = targets
    return resolve(
        tenant, targets, {ann.id: TargetToggle(enabled=True), ben.id: TargetToggle(enabled=True, action="prefix")}, {}
    )


def _choice(action: str) -> Artifact:
    return Artifact("auto", "model", {"action": action})


def _actions(policy: TenantPolicy) -> list[str]:
    return [active.action for active in policy.targets.values()]


async def test_a_choice_replaces_the_default_and_nothing_else(store, targets, policy):
    artifacts = Artifacts(store, "model")
    choices = Choices(artifacts)
    assert await choices.applied(policy) is policy
    for target in targets:
        await artifacts.put(target, _choice("eco"))
    applied = await choices.applied(policy)
    assert _actions(applied) == ["eco", "prefix"]
    assert await choices.applied(policy) is applied  # others keep things by the identity of a policy


@pytest.mark.parametrize("action", ["", "unheard-of"])
async def test_no_choice_and_an_unknown_one_leave_the_default(store, targets, policy, action):
    artifacts = Artifacts(store, "model")
    await artifacts.put(targets[0], _choice(action))
    assert _actions(await Choices(artifacts).applied(policy)) == ["refuse", "prefix"]


@pytest.mark.parametrize(
    ("default", "named", "chosen", "taken"),
    [
        ("eco", "constrain", "eco", "constrain"),
        ("eco", "constrain", "refuse", "refuse"),
        ("eco", "prefix", "prefix", "prefix"),  # the default holds only where nothing was chosen
        ("lunar", "eco", "prefix", "eco"),
        ("eco", "auto", "prefix", "prefix"),
        ("eco", None, "prefix", "prefix"),
    ],
)
async def test_an_action_that_is_named_for_a_locked_target_is_a_floor(store, default, named, chosen, taken):
    with store.write() as writer:
        target = writer.create_target(TargetSpec(name="Ann", locked=True, all_tenants=True))
        tenant = writer.create_tenant(TenantSpec(name="somebody"))
    defaults = Defaults(default, strictness={name: kind.strictness for name, kind in INTERVENTIONS.items()})
    policy = resolve(tenant, [target], {target.id: TargetToggle(enabled=True, action=named)}, {}, defaults)
    artifacts = Artifacts(store, "model")
    await artifacts.put(target, _choice(chosen))
    assert _actions(await Choices(artifacts).applied(policy)) == [taken]


async def test_what_another_process_chose_is_found_in_time(store, targets, policy, monkeypatch):
    choices = Choices(Artifacts(store, "model"))
    assert _actions(await choices.applied(policy)) == ["refuse", "prefix"]
    await Artifacts(store, "model").put(targets[0], _choice("lunar"))
    monkeypatch.setattr("guard.artifacts.LOOK_AGAIN", 0.0)
    assert _actions(await choices.applied(policy)) == ["lunar", "prefix"]


async def test_the_default_holds_while_choices_cannot_be_read(store, policy, monkeypatch):
    def broken(*_: object) -> dict[str, bytes]:
        raise OSError("injected")

    monkeypatch.setattr(store, "versioned", broken)
    assert await Choices(Artifacts(store, "model")).applied(policy) is policy
