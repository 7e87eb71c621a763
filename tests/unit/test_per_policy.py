"""What follows from a policy is worked out once for all who ask together, and anew while what is known serves on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from guard.artifacts import Artifacts
from guard.per_policy import PerPolicy
from guard.policy import resolve
from guard.types import Tenant, TenantPolicy, TenantSpec

NOW = datetime(2025, 1, 1, tzinfo=UTC)


class _Work:
    """Gives 1, 2, ... and goes on only when it may; or fails, where it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.fails = False
        self.may = asyncio.Event()
        self.may.set()
        self.before: list[int | None] = []

    async def __call__(self, policy: TenantPolicy, before: int | None) -> int:
        self.begun += 1
        number = self.begun
        self.before.append(before)
        await self.may.wait()
        if self.fails:
            raise OSError("injected")
        return number


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    for module in ("guard.artifacts", "guard.per_policy"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=clock))
    return clock


def _policy() -> TenantPolicy:
    return resolve(Tenant("t", 1, TenantSpec(name="T"), NOW, NOW), [], {}, {})


@pytest.fixture
def policy() -> TenantPolicy:
    return _policy()


@pytest.fixture
def work() -> _Work:
    return _Work()


@pytest.fixture
def artifacts() -> Artifacts:
    return Artifacts(None, "model")  # type: ignore[arg-type]


@pytest.fixture
def values(artifacts: Artifacts, work: _Work) -> PerPolicy[int]:
    return PerPolicy(artifacts, work)


async def test_all_who_ask_at_once_wait_for_the_same_work(values, work, policy) -> None:
    work.may.clear()
    waiting = [asyncio.ensure_future(values.of(policy)) for _ in range(16)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # which is nothing to the others
    await asyncio.sleep(0)
    work.may.set()
    assert set(await asyncio.gather(*waiting[1:])) == {1}
    assert await values.of(policy) == 1 and work.begun == 1


async def test_what_is_known_serves_on_while_it_is_worked_out_anew(values, work, policy, clock) -> None:
    await values.of(policy)
    clock.now += 11
    work.may.clear()
    assert [await values.of(policy) for _ in range(3)] == [1, 1, 1]
    await asyncio.sleep(0)
    assert work.begun == 2 and work.before == [None, 1]
    work.may.set()
    await asyncio.sleep(0.01)
    assert await values.of(policy) == 2 and work.begun == 2


async def test_what_nobody_asked_for_long_is_waited_for(values, policy, clock) -> None:
    await values.of(policy)
    clock.now += 3600
    assert await values.of(policy) == 2


async def test_what_was_put_here_counts_at_once_even_beside_work_that_did_not_see_it(
    values, work, artifacts, policy, clock
) -> None:
    assert await values.of(policy) == 1
    artifacts.changed = clock()
    assert await values.of(policy) == 2
    clock.now += 11
    work.may.clear()
    assert await values.of(policy) == 2  # and the third is begun
    await asyncio.sleep(0)
    artifacts.changed = clock()
    late = asyncio.ensure_future(values.of(policy))
    await asyncio.sleep(0)
    work.may.set()
    assert await late == 4
    await asyncio.sleep(0.01)
    assert await values.of(policy) == 4  # not what the third says, whenever it ends


async def test_another_policy_has_another_value_whatever_ends_last(values, work) -> None:
    old, new = _policy(), _policy()
    work.may.clear()
    before = asyncio.ensure_future(values.of(old))
    await asyncio.sleep(0)
    after = asyncio.ensure_future(values.of(new))
    await asyncio.sleep(0)
    work.may.set()
    assert (await before, await after) == (1, 2)
    assert await values.of(new) == 2 and work.before == [None, None]


async def test_what_is_known_stays_in_force_while_it_cannot_be_worked_out(values, work, policy, clock) -> None:
    work.fails = True
    with pytest.raises(OSError, match="injected"):
        await values.of(policy)
    work.fails = False
    assert await values.of(policy) == 2
    work.fails = True
    clock.now += 3600
    assert await values.of(policy) == 2
    begun = work.begun
    assert await values.of(policy) == 2 and work.begun == begun  # tried again only after a while
    work.fails = False
    clock.now += 3600
    assert await values.of(policy) == begun + 1
