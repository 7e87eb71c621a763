"""The real engine, with Lethe's worker part and without, for benchmarks that need no HTTP."""

from __future__ import annotations

import os
import secrets
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from vllm.engine.protocol import EngineClient
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from guard.caller import CALLER, Caller
from guard.service import GuardService
from guard.store.writer import Writer
from guard.types import ForgetTarget, GuardName, GuardToggle, TargetToggle, TenantSpec
from guard.worker import take_worker


def become(
    service: GuardService, targets: Sequence[ForgetTarget], action: str, guards: Mapping[GuardName, GuardToggle] = {}
) -> None:
    """What is asked from here on is asked by a new tenant with these targets and guards; see :mod:`guard.caller`."""

    def change(writer: Writer) -> str:
        tenant = writer.create_tenant(TenantSpec(name=secrets.token_hex(4)))
        for target in targets:
            writer.put_target_toggle(tenant.id, target.id, TargetToggle(enabled=True, action=action))
        for guard, toggle in guards.items():
            writer.put_guard_toggle(tenant.id, guard, toggle)
        return tenant.id

    CALLER.set(Caller(service.registry.write(change), None, "benchmark"))


def plain_engine(model: Path, *flags: str) -> AbstractAsyncContextManager[EngineClient]:
    """vLLM serving ``model`` as ``vllm serve`` starts it, with more of vLLM's flags."""
    return build_async_engine_client(_arguments(model, flags))


def lethe_engine(model: Path, *flags: str) -> AbstractAsyncContextManager[EngineClient]:
    """vLLM serving ``model`` as ``lethe serve`` starts it, with more of vLLM's flags; no guard in front."""
    args = _arguments(model, flags)
    take_worker(args)
    return build_async_engine_client(args)


def _arguments(model: Path, flags: Sequence[str]) -> Namespace:
    parser = make_arg_parser(FlexibleArgumentParser())
    parsed: Namespace = parser.parse_args(["--model", str(model), *flags])
    return parsed
