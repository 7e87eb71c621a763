"""Compile jobs over the admin API and the command line, with fits that are quick, wait, or fail."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from control_plane import ADMIN_KEY, Service, application, client, control_plane
from typer.testing import CliRunner

from guard.artifacts import Artifact, Artifacts
from guard.compile.jobs import Compiler, Progress
from guard.types import ForgetTarget
from server.admin import Fitting
from server.cli import target as target_cli


async def _quick(_: ForgetTarget, progress: Progress) -> Artifact:
    progress("half", 0.5)
    return Artifact("quick", "model", {"layer": 3}, {"forget": 0.1})


async def _failing(_: ForgetTarget, progress: Progress) -> Artifact:
    progress("trying", 0.1)
    raise RuntimeError("out of luck")


async def _endless(_: ForgetTarget, progress: Progress) -> Artifact:
    progress("waiting", 0.0)
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with control_plane(tmp_path) as running:
        yield running


@pytest.fixture
def fitting(service: Service) -> Fitting:
    artifacts = Artifacts(service.store, "model")
    return Fitting(Compiler(artifacts, {"quick": _quick, "failing": _failing, "endless": _endless}), artifacts)


@pytest.fixture
async def http(service: Service, fitting: Fitting) -> AsyncIterator[httpx.AsyncClient]:
    async with client(application(service, fitting=fitting)) as http:
        yield http
    await fitting.compiler.close()


async def _target(http: httpx.AsyncClient) -> str:
    return str((await http.post("/v1/guard/targets", json={"name": "Zedo Frobi"})).json()["id"])


async def _compiled(http: httpx.AsyncClient, target: str, *interventions: str) -> dict[str, object]:
    body = {"interventions": list(interventions)}
    job = (await http.post(f"/v1/guard/targets/{target}/compile", json=body)).json()
    async with http.stream("GET", f"/v1/guard/compile/jobs/{job['id']}/events") as response:
        events = [json.loads(line[6:]) async for line in response.aiter_lines() if line.startswith("data: ")]
    last: dict[str, object] = events[-1]
    return last


async def test_a_job_is_followed_to_its_end_and_reported(http: httpx.AsyncClient) -> None:
    target = await _target(http)
    assert (await http.get(f"/v1/guard/targets/{target}/report")).json()["data"] == []
    job = await _compiled(http, target, "quick")
    assert (job["state"], job["share"], job["fitted"], job["target"]) == ("done", 1.0, ["quick"], target)
    reported = (await http.get(f"/v1/guard/targets/{target}/report")).json()["data"]
    assert reported == [{"intervention": "quick", "settings": {"layer": 3}, "report": {"forget": 0.1}}]
    assert [one["id"] for one in (await http.get("/v1/guard/compile/jobs")).json()["data"]] == [job["id"]]
    assert (await http.get(f"/v1/guard/compile/jobs/{job['id']}")).json() == job


async def test_a_changed_target_is_no_longer_fitted(http: httpx.AsyncClient) -> None:
    target = await _target(http)
    await _compiled(http, target, "quick")
    await http.patch(f"/v1/guard/targets/{target}", json={"aliases": ["Zed"]})
    assert (await http.get(f"/v1/guard/targets/{target}/report")).json()["data"] == []


async def test_a_skill_without_examples_is_refused_with_what_to_give(service: Service) -> None:
    artifacts = Artifacts(service.store, "model")
    fitting = Fitting(Compiler(artifacts, {"quick": _quick, "skill": _quick}), artifacts)
    async with client(application(service, fitting=fitting)) as http:
        for spec, body in (({"kind": "skill"}, None), ({}, {"interventions": ["skill"]})):
            made = await http.post("/v1/guard/targets", json={"name": f"sums {body}", **spec})
            answer = await http.post(f"/v1/guard/targets/{made.json()['id']}/compile", json=body)
            assert answer.status_code == 400 and answer.json()["error"]["param"] == "interventions"
            assert ("forget_examples" if spec else "kind") in answer.json()["error"]["message"]
        assert (await http.get("/v1/guard/compile/jobs")).json()["data"] == []
        job = await _compiled(http, await _target(http), "quick")
        assert job["fitted"] == ["quick"]
    await fitting.compiler.close()


async def test_a_failure_says_why(http: httpx.AsyncClient) -> None:
    job = await _compiled(http, await _target(http), "quick", "failing")
    assert job["state"] == "failed" and job["fitted"] == ["quick"] and "out of luck" in str(job["error"])


async def test_a_job_can_be_cancelled_again_and_again(http: httpx.AsyncClient) -> None:
    target = await _target(http)
    body = {"interventions": ["endless"]}
    job = (await http.post(f"/v1/guard/targets/{target}/compile", json=body)).json()
    for _ in range(2):
        assert (await http.delete(f"/v1/guard/compile/jobs/{job['id']}")).status_code == 200
        await asyncio.sleep(0.05)
    assert (await http.get(f"/v1/guard/compile/jobs/{job['id']}")).json()["state"] == "cancelled"


async def test_what_is_wrong_is_a_4xx(http: httpx.AsyncClient, service: Service) -> None:
    target = await _target(http)
    compile_ = f"/v1/guard/targets/{target}/compile"
    answers = [
        await http.post(compile_, json={"interventions": ["unheard-of"]}),
        await http.post(compile_, json={"interventions": []}),
        await http.post(compile_, json={"nonsense": 1}),
        await http.post("/v1/guard/targets/tgt_none/compile"),
        await http.get("/v1/guard/compile/jobs/job_none"),
        await http.get("/v1/guard/compile/jobs/job_none/events"),
        await http.delete("/v1/guard/compile/jobs/job_none"),
        await http.get("/v1/guard/targets/tgt_none/report"),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 404, 404, 404, 404, 404]
    assert all(answer.json()["error"]["message"] for answer in answers)
    async with client(application(service)) as without:
        assert (await without.post(compile_)).status_code == 409
        assert (await without.get("/v1/guard/compile/jobs")).status_code == 409


@pytest.fixture
def url(service: Service, fitting: Fitting) -> Iterator[str]:
    """Where a real HTTP server with the admin API listens."""
    app = application(service, fitting=fitting)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_command_line_compiles_and_reports(url: str) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(target_cli.app, [*arguments, "--url", url, "--admin-key", ADMIN_KEY])
        return result.exit_code, result.stdout

    assert run("add", "Zedo Frobi", "--gating", "always", "--json")[0] == 0
    assert json.loads(run("show", "Zedo Frobi", "--json")[1])["gating"] == "always"
    code, told = run("compile", "Zedo Frobi", "--intervention", "quick", "--json")
    assert (code, json.loads(told)) == (0, json.loads(run("report", "Zedo Frobi", "--json")[1]))
    assert json.loads(told)[0]["settings"] == {"layer": 3}
    assert run("compile", "Zedo Frobi", "--intervention", "failing")[0] == 1
    assert run("compile", "Zedo Frobi", "--intervention", "unheard-of")[0] == 2
    assert run("compile", "Nobody At All")[0] == 2
    assert run("compile", "Zedo Frobi", "--intervention", "endless", "--detach")[0] == 0
