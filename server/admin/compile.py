"""Routes for fitting what interventions inside the model need, and for what was measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from guard.artifacts import Artifacts
from guard.compile.jobs import Compiler, Job, JobState
from guard.store import NotFoundError
from server.admin.context import AdminContext, TargetId
from server.admin.schemas import Page
from server.errors import ApiError

JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Id of a compile job.")]


@dataclass(frozen=True, slots=True)
class Fitting:
    """What the routes work with; the engine has it where its workers carry Lethe's taps."""

    compiler: Compiler
    artifacts: Artifacts


class CompileRequest(BaseModel):
    """What to fit; without a body everything that is of use to the target."""

    model_config = ConfigDict(extra="forbid")

    interventions: list[str] | None = None
    again: bool = False


class JobOut(BaseModel):
    """A compile job. ``share`` is how much of it is done, 0 to 1."""

    id: str
    target: str
    revision: int
    interventions: list[str]
    state: JobState
    stage: str
    share: float
    fitted: list[str]
    error: str
    seconds: float

    @classmethod
    def of(cls, job: Job) -> JobOut:
        """``job`` as the API shows it."""
        return cls(
            id=job.id,
            target=job.target.id,
            revision=job.target.revision,
            interventions=list(job.interventions),
            state=job.state,
            stage=job.stage,
            share=job.share,
            fitted=list(job.fitted),
            error=job.error,
            seconds=job.seconds,
        )


class ReportOut(BaseModel):
    """What was fitted of one intervention for a target, and what was measured of it then."""

    intervention: str
    settings: dict[str, Any]
    report: dict[str, Any]


def build(context: AdminContext, fitting: Fitting | None) -> APIRouter:
    """The routes ``/targets/{target_id}/compile``, ``/targets/{target_id}/report`` and ``/compile/jobs``."""
    router = context.router("compile")

    def there() -> Fitting:
        if fitting is None:
            raise ApiError(
                409, "This server's engine runs without Lethe's worker part: nothing can be compiled", code="no_worker"
            )
        return fitting

    def job_of(job_id: str) -> Job:
        try:
            return there().compiler.job(job_id)
        except KeyError:
            raise NotFoundError("compile job", job_id) from None

    @router.post("/targets/{target_id}/compile", status_code=202, summary="Fit a target's interventions")
    async def compile_target(target_id: TargetId, request: CompileRequest | None = None) -> JobOut:
        """Start a job in the background, or find the same one that has not ended.

        It fits through the serving engine at low priority. What was fitted before is kept unless `again` is set, so a
        job that was broken off costs only what is missing; a job without `again` is not the same as one with it. After
        a restart, jobs go on by themselves.
        """
        compiler = there().compiler
        wanted = request or CompileRequest()
        target = await context.read(lambda reader: reader.target(target_id))
        names = compiler.suited(target) if wanted.interventions is None else wanted.interventions
        try:
            return JobOut.of(await compiler.submit(target, names, again=wanted.again))
        except ValueError as error:
            raise ApiError(400, str(error), code="invalid_value", param="interventions") from None

    @router.get("/targets/{target_id}/report", summary="Show what was fitted for a target")
    async def report(target_id: TargetId) -> Page[ReportOut]:
        """The settings and measurements of every intervention that is fitted for the target as it is now."""
        ready = there()
        target = await context.read(lambda reader: reader.target(target_id))
        found = [await ready.artifacts.get(target, name) for name in ready.compiler.interventions]
        return Page(
            data=[
                ReportOut(intervention=one.intervention, settings=dict(one.settings), report=dict(one.report))
                for one in found
                if one is not None
            ]
        )

    @router.get("/compile/jobs", summary="List compile jobs")
    async def list_jobs() -> Page[JobOut]:
        """The jobs of this process, and those that one before it left; ended ones are forgotten in time."""
        return Page(data=[JobOut.of(job) for job in there().compiler.jobs()])

    @router.get("/compile/jobs/{job_id}", summary="Show a compile job")
    async def get_job(job_id: JobId) -> JobOut:
        """How far a job is."""
        return JobOut.of(job_of(job_id))

    @router.delete("/compile/jobs/{job_id}", summary="Cancel a compile job")
    async def cancel_job(job_id: JobId) -> JobOut:
        """End a job; what it fitted so far stays. One that has ended stays as it is."""
        return JobOut.of(await there().compiler.cancel(job_of(job_id).id))

    @router.get(
        "/compile/jobs/{job_id}/events",
        summary="Follow a compile job",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "A job as JSON at every change"}},
    )
    async def follow_job(job_id: JobId) -> StreamingResponse:
        """Server-sent events: the job now and after every change, until it or the server has ended."""
        job = job_of(job_id)

        async def events() -> AsyncIterator[str]:
            async for state in there().compiler.follow(job.id):
                yield f"data: {JobOut.of(state).model_dump_json()}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return router
