"""What it costs to look for facts told in other words: milliseconds a clause, and the share of output throughput.

    python -m benchmarks.semantic_stage [--targets 1000] [--rounds 9] --json FILE

Latency is that of single clauses of ordinary text and of clauses that speak of a target. Throughput is that of the demo
model behind the whole guard, for two tenants that differ in this guard alone, measured in turn, round after round; the
share is the median over the rounds of what the guard takes away. Their targets are the demo's people and invented ones.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.utils.argparse_utils import FlexibleArgumentParser

from benchmarks.detector import invented
from classifiers.benign import prompts
from classifiers.detector import TextDetector
from classifiers.statement_index import StatementIndex
from classifiers.statements import Context
from guard.caller import CALLER, Caller
from guard.engine import GuardedEngine
from guard.service import GuardService
from guard.types import GuardName, GuardToggle, TargetSpec, TargetToggle, TenantSpec
from guard.worker import COMPILE_SALT, CPU_WORKER
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import Form, document

_CLAUSES = 400
_TOKENS = 64


def summary(samples: list[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    p50, p99 = (np.percentile(samples, [50, 99]) * 1e3).round(3).tolist()
    return {"p50": p50, "p99": p99, "n": len(samples)}


async def clause_latency(targets: int) -> dict[str, Any]:
    """Milliseconds from a clause to its judgement with so many targets, none of the clauses seen before."""
    detector = TextDetector()
    index, profiles = StatementIndex(detector.encoder), list(invented(targets, seed=1))
    for profile in profiles:
        index.add(detector.compile(profile))
    keys = frozenset(profile.key for profile in profiles)
    ordinary = [f"{text} Number {number}." for number, text in enumerate(prompts()[:_CLAUSES])]
    about = [
        f"{profile.name} was seen {number} times in town."
        for number, profile in enumerate(itertools.islice(itertools.cycle(profiles), _CLAUSES))
    ]
    figures, encoded = {}, 0
    for name, clauses in (("ordinary", ordinary), ("about a target", about)):
        samples = []
        for clause in clauses:
            began = time.perf_counter()
            candidates = index.candidates(clause, Context(), keys)
            if candidates:
                await index.judge(clause, Context(), candidates)
            samples.append(time.perf_counter() - began)
            encoded += bool(candidates) and name == "ordinary"
        figures[name] = summary(samples)
    detector.close()
    return figures | {"ordinary_encoded": encoded / len(ordinary)}


async def throughput(engine: Any, rendered: list[list[int]], clients: int, seconds: float) -> float:
    """Output tokens a second of so many clients that stream one answer after the other."""
    ends, tokens = time.monotonic() + seconds, 0

    async def client(number: int) -> None:
        nonlocal tokens
        params = SamplingParams(temperature=0, max_tokens=_TOKENS, output_kind=RequestOutputKind.DELTA)
        for asked in itertools.count(number * 31):
            ids = rendered[asked % len(rendered)]
            async for result in engine.generate(tokens_input(ids), params, f"stage-{number}-{time.monotonic_ns()}"):
                tokens += sum(len(one.token_ids) for one in result.outputs)
            if time.monotonic() > ends:
                return

    began = time.monotonic()
    await asyncio.gather(*map(client, range(clients)))
    return tokens / (time.monotonic() - began)


def tenants(service: GuardService, recipe: Recipe, targets: int) -> tuple[str, str]:
    """A tenant with everything on, and one with everything but this guard."""
    specs = [TargetSpec(name=entity.name, documents=(document(entity),)) for entity in recipe.world.forget]
    specs += [TargetSpec(name=one.name, description=one.description) for one in invented(targets - len(specs), seed=2)]

    def change(writer: Any) -> tuple[str, str]:
        on, off = (writer.create_tenant(TenantSpec(name=name)).id for name in ("on", "off"))
        for spec in specs:
            created = writer.create_target(spec)
            for tenant in (on, off):
                writer.put_target_toggle(tenant, created.id, TargetToggle(enabled=True))
        writer.put_guard_toggle(off, GuardName.STATEMENTS, GuardToggle(enabled=False))
        return on, off

    return service.registry.write(change)


async def served(targets: int, rounds: int, seconds: float, clients: int) -> dict[str, Any]:
    """Throughput with and without the guard."""
    recipe = Recipe()
    flags = ["--model", str(build(recipe).folder), "--max-model-len", "512", "--worker-cls", CPU_WORKER]
    flags += ["--additional-config", json.dumps(COMPILE_SALT)]
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(flags)
    names = {entity.name for entity in recipe.world.retain}
    asked = [one for one in recipe.prompts if one.form is Form.BIOGRAPHY and one.entity in names]
    with tempfile.TemporaryDirectory() as folder:
        service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
        on, off = tenants(service, recipe, targets)
        speeds: dict[str, list[float]] = {on: [], off: []}
        async with build_async_engine_client(args) as engine:
            tokenizer = engine.renderer.get_tokenizer()
            rendered = [
                tokenizer.apply_chat_template(
                    [{"role": message.role, "content": message.content} for message in prompt.messages],
                    add_generation_prompt=True,
                    return_dict=False,
                )
                for prompt in asked
            ]
            guarded = GuardedEngine(engine, service)
            for number in range(rounds + 1):
                for tenant in (on, off) if number % 2 else (off, on):
                    CALLER.set(Caller(tenant, None, "benchmark"))
                    speed = await throughput(guarded, rendered, clients, seconds)
                    if number:  # the first round warms up
                        speeds[tenant].append(speed)
        service.close()
    taken = [1 - with_guard / without for with_guard, without in zip(speeds[on], speeds[off], strict=True)]
    return {
        "tokens_s_on": statistics.median(speeds[on]),
        "tokens_s_off": statistics.median(speeds[off]),
        "share": round(statistics.median(taken), 4),
        "rounds": [round(one, 4) for one in taken],
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report."""
    latency = {str(targets): await clause_latency(targets) for targets in sorted({1, options.targets})}
    output = {
        f"{clients} clients": await served(options.targets, options.rounds, options.seconds, clients)
        for clients in options.clients
    }
    return {"clause_ms": latency, "throughput": output}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=6.0, help="of traffic in each half of a round")
    parser.add_argument("--clients", type=int, nargs="+", default=[16])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(rendered := json.dumps(asyncio.run(measure(arguments)), indent=1))
    if arguments.json:
        arguments.json.write_text(rendered + "\n", encoding="utf-8")
