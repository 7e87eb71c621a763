"""What the guards say of questions with known answers, without a model: that of one which always knows the answer.

This is ``POST /v1/guard/check`` without HTTP: a service on a database of its own, with one tenant for each set of
targets. Every guard that needs no engine has its say, at its defaults.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard.service import GuardService
from guard.store import Writer
from guard.types import GuardName, GuardToggle, TargetSpec, TargetToggle, TenantSpec
from server.evaluation.admin import PATIENT, ServedError

#: Questions judged at once.
_CONCURRENCY = 32

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Case:
    """A question with the answer that a model would give; ``group`` is what it is counted under."""

    group: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What would happen to one case.

    Attributes:
        flagged: a detector sees a target in the question.
        leaked: the answer holds a protected phrase, or a copy of a document.
        blocked: either of these, or the answer tells in other words what is known of a target.
    """

    flagged: bool
    leaked: bool
    blocked: bool


class Judge:
    """The guards of one process. Make it with :func:`judge`."""

    def __init__(self, service: GuardService) -> None:
        self._service = service
        self._known: dict[TargetSpec, str] = {}

    def tenant(self, name: str, targets: Sequence[TargetSpec]) -> str:
        """A new tenant for which these targets are on; returns its id.

        Raises:
            NameTakenError: there is a tenant of that name, or another target of one of these names.
        """

        def change(writer: Writer) -> str:
            made = writer.create_tenant(TenantSpec(name=name))
            for guard, toggle in PATIENT.items():
                writer.put_guard_toggle(made.id, GuardName(guard), GuardToggle(**toggle))
            for spec in targets:
                if spec not in self._known:
                    self._known[spec] = writer.create_target(spec).id
                writer.put_target_toggle(made.id, self._known[spec], TargetToggle(enabled=True))
            return made.id

        return self._service.registry.write(change)

    def judge(
        self, tenant_id: str, cases: Sequence[Case], told: Callable[[int], None] = lambda _: None
    ) -> list[Judged]:
        """What would happen to each case; ``told`` is called with how many are done.

        Raises:
            ServedError: a guard could not judge.
        """
        return asyncio.run(self._judge(tenant_id, cases, told))

    async def _judge(self, tenant_id: str, cases: Sequence[Case], told: Callable[[int], None]) -> list[Judged]:
        found: list[Judged] = []
        for start in range(0, len(cases), _CONCURRENCY):
            batch = cases[start : start + _CONCURRENCY]
            found += await asyncio.gather(*(self._one(tenant_id, case) for case in batch))
            told(len(found))
        return found

    async def _one(self, tenant_id: str, case: Case) -> Judged:
        policy = self._service.registry.snapshot.policies[tenant_id]
        result = await self._service.check(policy, [case.question], case.answer)
        if result.verdict.unavailable:
            raise ServedError(f"a guard could not judge: {', '.join(result.verdict.unavailable)}")
        flagged = any(finding.flagged for finding in result.verdict.findings)
        leaked = self._service.detection.leaks(case.answer, policy)
        return Judged(flagged, leaked, flagged or result.completion_blocked)


@contextmanager
def judge() -> Iterator[Judge]:
    """A :class:`Judge` with no targets yet."""
    with tempfile.TemporaryDirectory(prefix="lethe-eval-") as folder:
        service = GuardService.open(database_url=f"sqlite:///{Path(folder) / 'lethe.db'}")
        try:
            yield Judge(service)
        finally:
            service.close()


def rates(cases: Iterable[Case], judged: Iterable[Judged]) -> dict[str, dict[str, Any]]:
    """By group: the share of cases that are ``flagged``, ``leaked`` and ``blocked`` (0 to 1), and ``n`` cases."""
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for case, one in zip(cases, judged, strict=True):
        groups[case.group].append(one)
    return {group: _rates(some) for group, some in groups.items()}


def _rates(judged: Sequence[Judged]) -> dict[str, Any]:
    counts: Mapping[str, int] = {
        "flagged": sum(one.flagged for one in judged),
        "leaked": sum(one.leaked for one in judged),
        "blocked": sum(one.blocked for one in judged),
    }
    return {**{name: round(count / len(judged), 4) for name, count in counts.items()}, "n": len(judged)}
