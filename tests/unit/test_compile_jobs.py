"""Compile jobs: one after the other, followed by many, cancelled cleanly, resumed where they stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from guard.artifacts import Artifact, Artifacts
from guard.compile.jobs import Compiler, Fit, JobState, Progress
from guard.store import Store
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
    compiler = Compiler(Artifacts(store, "model"), fits.all())
    compiler.store = store  # type: ignore[attr-defined] for _target
    yield compiler
    await compiler.close()


def _target(compiler: Compiler, name: str = "Somebody") -> ForgetTarget:
    with compiler.store.write() as writer:  # type: ignore[attr-defined]
        target: ForgetTarget = writer.create_target(TargetSpec(name=name))
        return target


async def _ended(compiler: Compiler, job_id: str) -> list[tuple[JobState, float]]:
    return [(job.state, job.share) async for job in compiler.follow(job_id)]


async def test_a_job_fits_everything_and_says_how_far_it_is(compiler: Compiler, fits: _Fits) -> None:
    fits.go_on.set()
    job = compiler.submit(_target(compiler), ["quick", "slow"])
    followers = await asyncio.gather(_ended(compiler, job.id), _ended(compiler, job.id))
    for seen in followers:
        assert seen[-1] == (JobState.DONE, 1.0)
        assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert job.fitted == ("quick", "slow")


async def test_one_failed_target_harms_no_other(compiler: Compiler, fits: _Fits) -> None:
    fits.go_on.set()
    fits.error = RuntimeError("out of luck")
    failed = compiler.submit(_target(compiler, "First"), ["quick", "slow"])
    fine = compiler.submit(_target(compiler, "Second"), ["quick"])
    await _ended(compiler, fine.id)
    assert (failed.state, failed.fitted, "out of luck" in failed.error) == (JobState.FAILED, ("quick",), True)
    assert fine.state is JobState.DONE


async def test_what_was_fitted_before_is_not_fitted_again_unless_asked(compiler: Compiler, fits: _Fits) -> None:
    target = _target(compiler)
    await _ended(compiler, compiler.submit(target, ["quick"]).id)
    await _ended(compiler, compiler.submit(target, ["quick"]).id)
    assert fits.calls == [("quick", target.id)]
    await _ended(compiler, compiler.submit(target, ["quick"], again=True).id)
    assert len(fits.calls) == 2


async def test_the_same_job_twice_is_one_job(compiler: Compiler) -> None:
    target = _target(compiler)
    assert compiler.submit(target, ["slow"]) is compiler.submit(target, ["slow", "slow"])
    assert len(compiler.jobs()) == 1


async def test_running_and_waiting_jobs_can_be_cancelled(compiler: Compiler, fits: _Fits) -> None:
    running = compiler.submit(_target(compiler, "First"), ["quick", "slow"])
    waiting = compiler.submit(_target(compiler, "Second"), ["quick"])
    while not running.stage.startswith("slow"):
        await asyncio.sleep(0.01)
    compiler.cancel(waiting.id)
    compiler.cancel(running.id)
    assert (await _ended(compiler, running.id))[-1][0] is JobState.CANCELLED
    assert waiting.state is JobState.CANCELLED
    later = compiler.submit(_target(compiler, "Third"), ["quick"])
    assert (await _ended(compiler, later.id))[-1][0] is JobState.DONE
    assert running.fitted == ("quick",)


async def test_what_cannot_be_fitted_is_refused(compiler: Compiler) -> None:
    for interventions in ([], ["prefix"], ["quick", "unheard-of"]):
        with pytest.raises(ValueError, match="quick"):
            compiler.submit(_target(compiler, f"T{len(interventions)}"), interventions)
    with pytest.raises(KeyError):
        compiler.job("job_none")
