"""Background jobs that fit a target's artifacts, one target at a time, while the engine serves."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vllm.v1.engine.exceptions import EngineDeadError

from guard.artifacts import Artifact, Artifacts
from guard.compile.skills import check
from guard.features import SKILL
from guard.policy import AUTO
from guard.store.jobs import HELD, JobQueue, QueuedJob
from guard.types import ForgetTarget, TargetKind

logger = logging.getLogger(__name__)

#: Told how far a fit is: what is being done, and the share that is done (0 to 1).
Progress = Callable[[str, float], None]
#: Fits one intervention for a target.
Fit = Callable[[ForgetTarget, Progress], Awaitable[Artifact]]

#: Jobs that are remembered after their end.
_REMEMBERED = 1000
#: Seconds that closing waits for a fit that does not stop when it is told to.
_CLOSE_S = 10.0


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(slots=True)
class Job:
    """One target's job. ``changed`` is replaced at every change, and the old one set: followers wait for that.

    Attributes:
        interventions: what is to be fitted, in this order.
        again: fit also what was fitted before; else a job that was broken off goes on where it stopped.
        fitted: what has been, so far.
        stage: what is being done, for people.
        share: how much of the whole job is done, 0 to 1.
        error: why it failed.
        seconds: spent fitting.
    """

    id: str
    target: ForgetTarget
    interventions: tuple[str, ...]
    again: bool = False
    state: JobState = JobState.QUEUED
    fitted: tuple[str, ...] = ()
    stage: str = ""
    share: float = 0.0
    error: str = ""
    seconds: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Compiler:
    """Runs jobs one after the other. Use it from one event loop.

    Args:
        artifacts: where they put what they fitted.
        fits: what can be fitted, by intervention.
        queue: keeps jobs beyond the life of this process, if anything does.
    """

    def __init__(self, artifacts: Artifacts, fits: Mapping[str, Fit], queue: JobQueue | None = None) -> None:
        self._artifacts = artifacts
        self._fits = fits
        self._queue = queue
        self._keeper: asyncio.Task[None] | None = None
        self._jobs: dict[str, Job] = {}
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._running: tuple[Job, asyncio.Task[None]] | None = None
        self._closing = False  # jobs are left to the next process
        self._closed = False  # and nothing more happens to them here

    @property
    def interventions(self) -> tuple[str, ...]:
        """What can be fitted."""
        return tuple(self._fits)

    def suited(self, target: ForgetTarget) -> tuple[str, ...]:
        """What of it is of use to a target."""
        is_skill = target.spec.kind is TargetKind.SKILL
        return tuple(name for name in self._fits if (name == SKILL) is is_skill)

    def start(self) -> None:
        """Go on with jobs that a process left behind that has ended, now and whenever there are any."""
        if self._keeper is None and self._queue is not None and not self._closing:
            self._keeper = asyncio.create_task(self._keep(self._queue), name="lethe-compile-queue")

    async def submit(self, target: ForgetTarget, interventions: Sequence[str], *, again: bool = False) -> Job:
        """Queue a job; the same one again while it has not ended is the same job.

        One that was asked for without ``again`` is not the same as one with it: it keeps what is to be fitted anew.

        Raises:
            ValueError: one of ``interventions`` cannot be fitted, or not on what is known of the target.
        """
        unknown = [name for name in interventions if name not in self._fits]
        if unknown or not interventions:
            raise ValueError(f"interventions must be among {', '.join(self._fits)}")
        wanted = tuple(dict.fromkeys(interventions))
        if SKILL in wanted:
            check(target.spec)
        for job in self._jobs.values():
            same = job.target.key == target.key and job.interventions == wanted
            if same and (job.again or not again) and not job.state.ended:
                return job
        job = Job(f"job_{secrets.token_hex(8)}", target, wanted, again)
        self._remember(job)
        if self._queue is not None:
            try:
                await asyncio.to_thread(self._queue.put, QueuedJob(job.id, target, wanted, again))
            except BaseException:
                del self._jobs[job.id]
                raise
            self.start()
        self._enqueue(job)
        return job

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            KeyError: there is none, or it ended long ago.
        """
        return self._jobs[job_id]

    def jobs(self) -> list[Job]:
        """All that are remembered, oldest first."""
        return list(self._jobs.values())

    async def cancel(self, job_id: str) -> Job:
        """End a job that has not ended; what it fitted so far stays.

        Raises:
            KeyError: there is none.
        """
        job = self._jobs[job_id]
        if job.state is JobState.QUEUED:
            _change(job, state=JobState.CANCELLED)
            await self._forget(job)
        elif self._running is not None and self._running[0] is job:
            self._running[1].cancel()
        return job

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        """The job now and after every change, until it has ended or :meth:`close` leaves it to the next process.

        Raises:
            KeyError: there is none.
        """
        job = self._jobs[job_id]
        while True:
            changed = job.changed
            yield job
            if job.state.ended or self._closed:
                return
            await changed.wait()

    async def close(self) -> None:
        """Stop working. What was fitted is kept, and jobs that have not ended are left to whoever starts next.

        Nobody follows a job any more when this returns: a server ends only when its last answer has.
        """
        self._closing = True
        running = None if self._running is None else self._running[1]
        tasks = [task for task in (self._keeper, self._worker, running) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)
        self._closed = True
        for job in self._jobs.values():
            if not job.state.ended:
                _change(job)
        if self._queue is not None:
            await asyncio.to_thread(self._queue.release)

    def _remember(self, job: Job) -> None:
        self._jobs[job.id] = job
        for old in [old for old in self._jobs.values() if old.state.ended][:-_REMEMBERED]:
            del self._jobs[old.id]

    def _enqueue(self, job: Job) -> None:
        self._waiting.put_nowait(job)
        if self._worker is None and not self._closing:
            self._worker = asyncio.create_task(self._work(), name="lethe-compiler")

    async def _keep(self, queue: JobQueue) -> None:
        while True:
            try:
                if any(not job.state.ended for job in self._jobs.values()):
                    await asyncio.to_thread(queue.hold)
                for left in await asyncio.to_thread(queue.adopt, self._fits):
                    job = Job(left.id, left.target, left.interventions, left.again, fitted=left.fitted)
                    self._remember(job)
                    self._enqueue(job)
            except Exception:  # the database is away: later, then
                logger.exception("The queue of compile jobs could not be read")
            await asyncio.sleep(HELD.total_seconds() / 3)

    async def _forget(self, job: Job) -> None:
        """A job has ended: nobody need take it up again."""
        if self._queue is not None and not self._closing:
            try:
                await asyncio.to_thread(self._queue.end, job.id)
            except Exception:
                logger.exception("The end of a compile job could not be noted; it will be looked at again")

    async def _work(self) -> None:
        while True:
            job = await self._waiting.get()
            if job.state is not JobState.QUEUED:
                continue
            task = asyncio.create_task(self._run(job))
            self._running = (job, task)
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                task.cancel()
                raise
            finally:
                self._running = None

    async def _run(self, job: Job) -> None:
        began = time.monotonic()
        _change(job, state=JobState.RUNNING)
        try:
            for number, name in enumerate(job.interventions):

                def progress(stage: str, share: float, number: int = number, name: str = name) -> None:
                    _change(job, stage=f"{name}: {stage}", share=(number + share) / len(job.interventions))

                # Of this revision of the target: it may have been changed since the job was left.
                there = await self._artifacts.get(job.target, name) is not None
                if there and name in job.fitted:
                    continue
                # A choice is made again: more may have been fitted since.
                if job.again or name == AUTO or not there:
                    artifact = await self._fits[name](job.target, progress)
                    await self._artifacts.put(job.target, artifact)
                _change(job, fitted=(*job.fitted, name), share=(number + 1) / len(job.interventions))
                if self._queue is not None:
                    await asyncio.to_thread(self._queue.fitted, job.id, job.fitted)
            _change(job, state=JobState.DONE, stage="", seconds=time.monotonic() - began)
        except asyncio.CancelledError:
            _change(job, state=JobState.CANCELLED, seconds=time.monotonic() - began)
        except Exception as error:  # one target's failure is its own
            logger.exception("Compiling target %s failed", job.target.id)
            _change(
                job, state=JobState.FAILED, error=f"{type(error).__name__}: {error}", seconds=time.monotonic() - began
            )
            if isinstance(error, EngineDeadError):
                return  # no failure of the job: another process goes on with it
        await self._forget(job)


def _change(job: Job, **values: object) -> None:
    for name, value in values.items():
        setattr(job, name, value)
    changed, job.changed = job.changed, asyncio.Event()
    changed.set()
