"""One real vLLM engine for all tests in this folder, with a guarded one around it."""

from __future__ import annotations

import asyncio
import os

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import pytest
import pytest_asyncio
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from guard.caller import CALLER, Caller
from guard.engine import GuardedEngine
from guard.service import GuardService
from guard.worker import take_worker
from server.demo.model import build
from server.demo.recipe import Recipe


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(recipe):
    """vLLM with Lethe's worker part, and no guard in front."""
    flags = ["--model", str(build(recipe).folder), "--max-model-len", "512", "--max-num-batched-tokens", "512"]
    flags += ["--dtype", "float32"]  # so that logits can be compared with those of transformers
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(flags)
    take_worker(args)
    async with build_async_engine_client(args) as client:
        yield client


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    service = GuardService.open(database_url=f"sqlite:///{tmp_path_factory.mktemp('engine') / 'lethe.db'}")
    yield service
    service.close()


@pytest.fixture(scope="session")
def guarded(engine, service) -> GuardedEngine:
    return GuardedEngine(engine, service)


@pytest.fixture(autouse=True)
def nobody():
    """Whoever a fixture calls as, nobody calls when the test is over: fixtures share the context of all tests."""
    before = CALLER.set(CALLER.get(None))
    yield
    CALLER.reset(before)


@pytest.fixture
def recorded(service):
    """Waits for the audit's entry on a request, given by its outputs; entries are written in groups."""

    async def find(outputs):
        for _ in range(100):
            for entry in (await asyncio.to_thread(service.audit.query, limit=1)).entries:
                if entry.request_id == outputs[0].request_id:
                    return entry
            await asyncio.sleep(0.1)
        raise AssertionError("nothing was recorded")

    return find


@pytest.fixture
def as_tenant(service):
    """Makes a tenant with these targets on, and sends what follows in its name."""
    from guard.types import TargetSpec, TargetToggle, TenantSpec

    made: list[str] = []

    def become(*targets: TargetSpec, action: str | None = None, **spec) -> str:
        def change(writer):
            tenant = writer.create_tenant(TenantSpec(name=f"tenant {os.urandom(4).hex()}", **spec))
            for target in targets:
                created = writer.create_target(target)
                made.append(created.id)
                writer.put_target_toggle(tenant.id, created.id, TargetToggle(enabled=True, action=action))
            return tenant

        tenant = service.registry.write(change)
        CALLER.set(Caller(tenant.id, None, "test"))  # in the context of the test's own task
        return tenant.id

    yield become
    service.registry.write(lambda writer: [writer.delete_target(target) for target in made])
