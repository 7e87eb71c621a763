"""What follows from a tenant's policy and from what was fitted for its targets, worked out once for all its requests.

That takes a look at every target in the database, which no request may pay for: what is known serves on while it is
worked out anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from guard.artifacts import Artifacts
from guard.types import TenantPolicy

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: For so many times as long as it is good, what is known serves on beside the work; later ones wait for it.
_SERVES_ON = 2


@dataclass(frozen=True, slots=True)
class _Known(Generic[T]):
    """A value, of which policy, and when the work on it began, in the seconds of ``time.monotonic``."""

    policy: TenantPolicy
    since: float
    value: T


@dataclass(frozen=True, slots=True)
class _Work(Generic[T]):
    """As :class:`_Known`, of a value that is being worked out."""

    policy: TenantPolicy
    since: float
    task: asyncio.Task[T]


class PerPolicy(Generic[T]):
    """One value for each tenant. Belongs to the event loop.

    Args:
        artifacts: say how long what was looked up in them is good.
        work_out: makes the value of a policy; is told the one before of the same policy, None where there is none.
    """

    def __init__(self, artifacts: Artifacts, work_out: Callable[[TenantPolicy, T | None], Awaitable[T]]) -> None:
        self._artifacts = artifacts
        self._work_out = work_out
        self._known: dict[str, _Known[T]] = {}  # by tenant id
        self._under_way: dict[str, _Work[T]] = {}  # by tenant id

    async def of(self, policy: TenantPolicy) -> T:
        """The value of a tenant's policy, as it is now: requests of one tenant that wait for it wait for the same work.

        What this process fits counts at once. What others fit may go unnoticed for as long as
        :meth:`guard.artifacts.Artifacts.still_hold` allows, and the work that is begun then.

        Raises:
            OSError, SQLAlchemyError: the database cannot be reached, and nothing is known of this policy; what is known
                stays in force.
            Exception: whatever else ``work_out`` raised.
        """
        known = self._known.get(policy.tenant.id)
        if known is not None and known.policy is not policy:
            known = None
        if known is not None and self._artifacts.still_hold(known.since):
            return known.value
        task = self._begun(policy, known)
        if known is not None and self._artifacts.still_hold(known.since, times=_SERVES_ON):
            return known.value
        return await asyncio.shield(task)  # others wait for it too, and one of them may go away

    def _begun(self, policy: TenantPolicy, known: _Known[T] | None) -> asyncio.Task[T]:
        """The work on a policy's value, which may be under way."""
        work = self._under_way.get(policy.tenant.id)
        if work is None or work.policy is not policy or work.since <= self._artifacts.changed:
            since = time.monotonic()
            task = asyncio.create_task(self._worked_out(policy, since, known), name="lethe-per-policy")
            work = self._under_way[policy.tenant.id] = _Work(policy, since, task)
        return work.task

    async def _worked_out(self, policy: TenantPolicy, since: float, known: _Known[T] | None) -> T:
        try:
            value = await self._work_out(policy, None if known is None else known.value)
        except (OSError, SQLAlchemyError):  # what is damaged is no reason to go on as before
            if known is None:
                raise
            logger.exception("It cannot be seen what was fitted for a tenant; what is known stays in force")
            value = known.value
        finally:
            work = self._under_way.get(policy.tenant.id)
            latest = work is not None and work.task is asyncio.current_task()
            if latest:
                del self._under_way[policy.tenant.id]
        if latest:
            self._known[policy.tenant.id] = _Known(policy, since, value)
        return value
