"""Compile jobs: one after the other, followed by many, cancelled cleanly, resumed where they stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
import sqlalchemy as sa
from vllm.v1.engine.exceptions import EngineDeadError

from guard.artifacts import Artifact, Artifacts
from guard.compile.jobs import Compiler, Fit, JobState, Progress
from guard.store import Store, schema
from guard.store.jobs import HELD
from guard.types import ForgetTarget, TargetSpec


class _Fits:
    """Two interventions: one that is quick, and one that waits until it is let go on, or fails."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def quick(self, target: ForgetTarget, progress: Progress) -> Artifact:
        self.calls.append(("quick", target.id))
        progress("half", 0.5)
        return Artifact("quick", "model")

    async def slow(self, target: ForgetTarget, progress: Progress) -> Artifact:
        self.calls.append(("slow", target.id))
        progress("waiting", 0.0)
        await self.go_on.wait()
        if self.error:
            raise self.error
        return Artifact("slow", "model")

    def all(self) -> dict[str, Fit]:
        return {"quick": self.quick, "slow": self.slow}


@pytest_asyncio.fixture
async def fits() -> _Fits:
    return _Fits()


@pytest_asyncio.fixture
async def compiler(fits: _Fits, tmp_path: Path) -> AsyncIterator[Compiler]:
    store = Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")
    compiler = _compiler(store, fits)
    yield compiler
    await compiler.close()


def _compiler(store: Store, fits: _Fits, model: str = "model") -> Compiler:
    artifacts = Artifacts(store, model)
    compiler = Compiler(artifacts, fits.all(), artifacts.queue())
    compiler.store = store  # type: ignore[attr-defined] for _target
    return compiler


def _target(compiler: Compiler, name: str = "Somebody") -> ForgetTarget:
    with compiler.store.write() as writer:  # type: ignore[attr-defined]
        target: ForgetTarget = writer.create_target(TargetSpec(name=name))
        return target


async def _ended(compiler: Compiler, job_id: str) -> list[tuple[JobState, float]]:
    return [(job.state, job.share) async for job in compiler.follow(job_id)]


async def test_a_job_fits_everything_and_says_how_far_it_is(compiler: Compiler, fits: _Fits) -> None:
    fits.go_on.set()
    job = await compiler.submit(_target(compiler), ["quick", "slow"])
    followers = await asyncio.gather(_ended(compiler, job.id), _ended(compiler, job.id))
    for seen in followers:
        assert seen[-1] == (JobState.DONE, 1.0)
        assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert job.fitted == ("quick", "slow")


async def test_one_failed_target_harms_no_other(compiler: Compiler, fits: _Fits) -> None:
    fits.go_on.set()
    fits.error = RuntimeError("out of luck")
    failed = await compiler.submit(_target(compiler, "First"), ["quick", "slow"])
    fine = await compiler.submit(_target(compiler, "Second"), ["quick"])
    await _ended(compiler, fine.id)
    assert (failed.state, failed.fitted, "out of luck" in failed.error) == (JobState.FAILED, ("quick",), True)
    assert fine.state is JobState.DONE


async def test_what_was_fitted_before_is_not_fitted_again_unless_asked(compiler: Compiler, fits: _Fits) -> None:
    target = _target(compiler)
    await _ended(compiler, (await compiler.submit(target, ["quick"])).id)
    await _ended(compiler, (await compiler.submit(target, ["quick"])).id)
    assert fits.calls == [("quick", target.id)]
    await _ended(compiler, (await compiler.submit(target, ["quick"], again=True)).id)
    assert len(fits.calls) == 2


async def test_the_same_job_twice_is_one_job(compiler: Compiler) -> None:
    target = _target(compiler)
    assert await compiler.submit(target, ["slow"]) is await compiler.submit(target, ["slow", "slow"])
    assert len(compiler.jobs()) == 1


async def test_a_job_that_keeps_what_was_fitted_is_not_the_one_that_fits_anew(compiler: Compiler, fits: _Fits) -> None:
    target = _target(compiler)
    await _ended(compiler, (await compiler.submit(target, ["quick"])).id)
    blocking = await compiler.submit(_target(compiler, "Other"), ["slow"])
    keeping = await compiler.submit(target, ["quick"])
    anew = await compiler.submit(target, ["quick"], again=True)
    assert anew is not keeping
    assert await compiler.submit(target, ["quick"], again=True) is anew
    assert await compiler.submit(target, ["quick"]) in (keeping, anew)
    fits.go_on.set()
    for job in (blocking, keeping, anew):
        assert (await _ended(compiler, job.id))[-1][0] is JobState.DONE
    assert [name for name, of in fits.calls if of == target.id] == ["quick", "quick"]


async def test_closing_ends_all_who_follow(compiler: Compiler) -> None:
    jobs = [await compiler.submit(_target(compiler, name), ["slow"]) for name in ("First", "Second", "Third")]
    following = [asyncio.create_task(_ended(compiler, job.id)) for job in jobs]
    while not jobs[0].stage:
        await asyncio.sleep(0.01)
    await compiler.close()
    async with asyncio.timeout(5):
        seen = await asyncio.gather(*following)
        assert seen[0][-1][0] is JobState.CANCELLED and seen[1][-1][0] is JobState.QUEUED
        late = await compiler.submit(_target(compiler, "Late"), ["slow"])
        assert (await _ended(compiler, late.id))[-1][0] is JobState.QUEUED
    assert await _left_behind(compiler) == {job.id for job in (*jobs, late)}


async def test_closing_ends_though_a_fit_does_not_stop(
    compiler: Compiler, fits: _Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.compile.jobs._CLOSE_S", 0.1)

    async def stubborn(target: ForgetTarget, progress: Progress) -> Artifact:
        progress("waiting", 0.0)
        while not fits.go_on.is_set():
            with suppress(asyncio.CancelledError):
                await fits.go_on.wait()
        return Artifact("slow", "model")

    compiler._fits["slow"] = stubborn  # type: ignore[index]
    job = await compiler.submit(_target(compiler), ["slow"])
    following = asyncio.create_task(_ended(compiler, job.id))
    while not job.stage:
        await asyncio.sleep(0.01)
    try:
        async with asyncio.timeout(5):
            await compiler.close()
            await following
    finally:
        fits.go_on.set()


async def test_running_and_waiting_jobs_can_be_cancelled(compiler: Compiler, fits: _Fits) -> None:
    running = await compiler.submit(_target(compiler, "First"), ["quick", "slow"])
    waiting = await compiler.submit(_target(compiler, "Second"), ["quick"])
    while not running.stage.startswith("slow"):
        await asyncio.sleep(0.01)
    await compiler.cancel(waiting.id)
    await compiler.cancel(running.id)
    assert (await _ended(compiler, running.id))[-1][0] is JobState.CANCELLED
    assert waiting.state is JobState.CANCELLED
    later = await compiler.submit(_target(compiler, "Third"), ["quick"])
    assert (await _ended(compiler, later.id))[-1][0] is JobState.DONE
    assert running.fitted == ("quick",)


async def test_what_cannot_be_fitted_is_refused(compiler: Compiler) -> None:
    for interventions in ([], ["prefix"], ["quick", "unheard-of"]):
        with pytest.raises(ValueError, match="quick"):
            await compiler.submit(_target(compiler, f"T{len(interventions)}"), interventions)
    with pytest.raises(KeyError):
        compiler.job("job_none")


async def _left_behind(compiler: Compiler) -> set[str]:
    """Ids of the jobs that a process would find after this one's end."""
    store = compiler.store  # type: ignore[attr-defined]
    with store.transaction() as connection:
        return set(connection.execute(sa.select(schema.compile_jobs.c.id)).scalars())


async def test_jobs_go_on_in_the_next_process_where_they_stopped(compiler: Compiler, fits: _Fits) -> None:
    store = compiler.store  # type: ignore[attr-defined]
    first = await compiler.submit(_target(compiler, "First"), ["quick", "slow"], again=True)
    second = await compiler.submit(_target(compiler, "Second"), ["quick"])
    while not first.stage.startswith("slow"):
        await asyncio.sleep(0.01)
    await compiler.close()
    fits.go_on.set()
    after, elsewhere = _compiler(store, fits), _compiler(store, fits, "another model")
    elsewhere.start()
    after.start()
    while len(after.jobs()) < 2:
        await asyncio.sleep(0.01)
    for job in (first, second):
        assert (await _ended(after, job.id))[-1] == (JobState.DONE, 1.0)
    assert [name for name, target in fits.calls if target == first.target.id] == ["quick", "slow", "slow"]
    while await _left_behind(after):
        await asyncio.sleep(0.01)
    assert elsewhere.jobs() == []
    await asyncio.gather(after.close(), elsewhere.close())


async def test_what_was_fitted_of_an_earlier_revision_is_fitted_anew(compiler: Compiler, fits: _Fits) -> None:
    store = compiler.store  # type: ignore[attr-defined]
    job = await compiler.submit(_target(compiler), ["quick", "slow"])
    while not job.stage.startswith("slow"):
        await asyncio.sleep(0.01)
    await compiler.close()
    fits.go_on.set()
    with store.write() as writer:
        changed = writer.update_target(job.target.id, TargetSpec(name="Somebody", aliases=("Else",)))
    after = _compiler(store, fits)
    after.start()
    while not after.jobs():
        await asyncio.sleep(0.01)
    assert (await _ended(after, job.id))[-1] == (JobState.DONE, 1.0)
    assert len(await asyncio.to_thread(store.compiled, [changed], "quick:model")) == 1
    await after.close()


async def test_a_job_is_run_by_one_of_two_processes(
    compiler: Compiler, fits: _Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _compiler(compiler.store, fits)  # type: ignore[attr-defined]
    job = await compiler.submit(_target(compiler), ["slow"])
    other.start()
    await asyncio.sleep(0.1)
    assert other.jobs() == []
    compiler._keeper.cancel()  # type: ignore[union-attr] as if killed: it no longer says that it runs the job
    later = datetime.now(UTC) + 2 * HELD
    monkeypatch.setattr("guard.store.jobs.datetime", SimpleNamespace(now=lambda zone: later))
    adopted = other._queue.adopt({"slow"})  # type: ignore[union-attr]
    assert [one.id for one in adopted] == [job.id]
    assert other._queue.adopt({"slow"}) == []  # type: ignore[union-attr]
    await other.close()


async def test_nothing_is_left_of_jobs_that_ended(compiler: Compiler, fits: _Fits) -> None:
    fits.error = RuntimeError("out of luck")
    running = await compiler.submit(_target(compiler, "First"), ["slow"])
    failing = await compiler.submit(_target(compiler, "Second"), ["slow"])
    waiting = await compiler.submit(_target(compiler, "Third"), ["quick"])
    assert await _left_behind(compiler) == {running.id, failing.id, waiting.id}
    await compiler.cancel(waiting.id)
    while running.state is JobState.QUEUED:
        await asyncio.sleep(0.01)
    await compiler.cancel(running.id)
    fits.go_on.set()
    await _ended(compiler, failing.id)
    async with asyncio.timeout(5):
        while await _left_behind(compiler):
            await asyncio.sleep(0.01)


async def test_an_engine_that_dies_is_no_failure_of_the_job(compiler: Compiler, fits: _Fits) -> None:
    fits.error = EngineDeadError()
    fits.go_on.set()
    job = await compiler.submit(_target(compiler), ["slow"])
    await _ended(compiler, job.id)
    await compiler.close()
    assert await _left_behind(compiler) == {job.id}


async def test_jobs_of_a_deleted_target_are_forgotten(compiler: Compiler, fits: _Fits) -> None:
    job = await compiler.submit(_target(compiler), ["slow"])
    with compiler.store.write() as writer:  # type: ignore[attr-defined]
        writer.delete_target(job.target.id)
    assert await _left_behind(compiler) == set()
