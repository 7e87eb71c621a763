"""The configurations whose overhead is measured, and the targets and tenants that they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from detector import invented

from classifiers.profile import Profile
from guard.service import GuardService
from guard.store.keys import new_key
from guard.types import GuardName, GuardToggle, Scope, TargetSpec, TargetToggle, TenantSpec
from server.evaluation.admin import PATIENCE_MS

#: What is on in each combination of guards; ``features`` needs an autoencoder and is on in the last alone, idle.
COMBINATIONS: dict[str, frozenset[GuardName]] = {
    "lexicon": frozenset({GuardName.LEXICON}),
    "text detectors": frozenset({GuardName.LEXICON, GuardName.SEMANTIC}),
    "leak guard": frozenset({GuardName.LEAK}),
    "statements": frozenset({GuardName.STATEMENTS}),
    "everything": frozenset(GuardName),
}
_ADMIN_KEY = "lethe-admin-for-benchmarks"


@dataclass(frozen=True)
class Case:
    """One tenant of Lethe with so many targets on and a combination of guards; of plain vLLM if ``guards`` is None."""

    name: str
    targets: int = 0
    guards: str | None = None
    key: str | None = field(default_factory=lambda: new_key(Scope.TENANT), compare=False)


PLAIN_CASE = Case("plain", key=None)
IDLE_CASE = Case("0 targets", guards="nothing")


def cases(targets: Sequence[int], combinations: Sequence[str]) -> list[Case]:
    """Plain vLLM, Lethe for a tenant without targets, and every combination for each number of targets."""
    some = [Case(f"{count:,} targets, {name}", count, name) for count in targets if count for name in combinations]
    return [PLAIN_CASE, IDLE_CASE, *some]


def people(count: int) -> Iterator[Profile]:
    """Who is to be forgotten: invented, and the same ones every time."""
    return invented(count, seed=2)


def register(service: GuardService, some: Sequence[Case]) -> None:
    """Make the tenants of ``some``, and as many targets as they need beyond those that are there.

    Targets are :func:`people`, each with a description that is its document too.
    """
    most = max(case.targets for case in some)
    more = list(islice(people(most), len(service.registry.snapshot.targets), None)) if most else []

    def change(writer: Any) -> None:
        for one in more:
            writer.create_target(TargetSpec(name=one.name, description=one.description, documents=(one.description,)))
        ids = [target.id for target in writer.targets(limit=most)] if most else []
        for case in some:
            tenant = writer.create_tenant(TenantSpec(name=case.name))
            writer.add_key(case.key, Scope.TENANT, tenant.id)
            for target in ids[: case.targets]:
                writer.put_target_toggle(tenant.id, target, TargetToggle(enabled=True))
            on = COMBINATIONS.get(case.guards or "", frozenset())
            for guard in GuardName:
                toggle = GuardToggle(enabled=guard in on, deadline_ms=PATIENCE_MS)
                writer.put_guard_toggle(tenant.id, guard, toggle)

    service.registry.write(change)


def environment(database: Path) -> dict[str, str]:
    """What a server must be told that :func:`open_service` is to control."""
    return {"LETHE_DATABASE_URL": f"sqlite:///{database}", "LETHE_ADMIN_KEY": _ADMIN_KEY}


def open_service(database: Path) -> GuardService:
    """The control plane of this process on the server's own database, which the server follows."""
    return GuardService.open(database_url=f"sqlite:///{database}", admin_key=_ADMIN_KEY)
