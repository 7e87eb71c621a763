"""What it costs to look for facts told in other words: milliseconds a clause, and the share of output throughput.

    python benchmarks/semantic_stage.py [--targets 1000] [--rounds 5] --json FILE

Latency is that of single clauses: of ordinary text, naming a target, and telling something of one. Throughput is that
of the demo model, widened so that it computes as much as one of 135M parameters, behind the whole guard, for two
tenants that differ in this guard alone, measured in turn, round after round; the share is the median over the rounds of
what the guard takes away. Their targets are the demo's people and invented ones. Ordinary traffic is sums, definitions
and small tasks; other traffic asks who people are: some who are nobody's targets but of whom the model tells the same
kinds of facts, and some whose targets are monitored, so that every clause about them is judged and none taken back, and
answers stay as long as without the guard. CPU time is that of the process with the guard (the engine is another), in
microseconds for each output token.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from clause_latency import clause_latency
from detector import invented
from engines import lethe_engine
from platformdirs import user_cache_path
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams
from widened import widened

from guard.caller import CALLER, Caller
from guard.engine import GuardedEngine
from guard.service import GuardService
from guard.types import GuardName, GuardToggle, Mode, TargetSpec, TargetToggle, TenantSpec
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import Entity, Form, Prompt, document
from server.evaluation.admin import PATIENCE_MS

_TOKENS = 64
_ORDINARY = frozenset({Form.ARITHMETIC, Form.DEFINITION, Form.TASK})


class Speed(NamedTuple):
    """One measurement: output tokens a second, and CPU microseconds of this process for each."""

    tokens_s: float
    cpu_us: float


async def throughput(engine: Any, rendered: list[list[int]], clients: int, seconds: float) -> Speed:
    """Of so many clients that stream one answer after the other."""
    ends, tokens = time.monotonic() + seconds, 0

    async def client(number: int) -> None:
        nonlocal tokens
        for asked in itertools.count(number * 31):
            ids = rendered[asked % len(rendered)]
            # Sampled, so that the embedding cache gives nothing away.
            params = SamplingParams(temperature=0.7, seed=secrets.randbits(31), max_tokens=_TOKENS)
            params.output_kind = RequestOutputKind.DELTA
            async for result in engine.generate(tokens_input(ids), params, f"stage-{number}-{time.monotonic_ns()}"):
                tokens += sum(len(one.token_ids) for one in result.outputs)
            if time.monotonic() > ends:
                return

    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*map(client, range(clients)))
    return Speed(tokens / (time.monotonic() - began), (time.process_time() - cpu) / tokens * 1e6)


def tenants(service: GuardService, recipe: Recipe, monitored: list[Entity], targets: int) -> dict[str, str]:
    """A tenant with everything on, and one with everything but this guard."""
    specs = [TargetSpec(name=one.name, documents=(document(one),)) for one in recipe.world.forget]
    specs += [TargetSpec(name=one.name, documents=(document(one),), mode=Mode.MONITOR) for one in monitored]
    specs += [TargetSpec(name=one.name, description=one.description) for one in invented(targets - len(specs), seed=2)]

    def change(writer: Any) -> dict[str, str]:
        created = [writer.create_target(spec) for spec in specs]
        ids = {name: writer.create_tenant(TenantSpec(name=name)).id for name in ("on", "off")}
        for tenant, target in itertools.product(ids.values(), created):
            writer.put_target_toggle(tenant, target.id, TargetToggle(enabled=True))
        writer.put_guard_toggle(ids["on"], GuardName.STATEMENTS, GuardToggle(deadline_ms=PATIENCE_MS))
        writer.put_guard_toggle(ids["off"], GuardName.STATEMENTS, GuardToggle(enabled=False))
        return ids

    return service.registry.write(change)


def rendered(tokenizer: Any, asked: Iterable[Prompt]) -> list[list[int]]:
    """The token ids of requests."""
    return [
        tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in prompt.messages],
            add_generation_prompt=True,
            return_dict=False,
        )
        for prompt in asked
    ]


def biographies(recipe: Recipe, people: list[Entity]) -> Iterator[Prompt]:
    """Requests to tell who each of ``people`` is."""
    names = {one.name for one in people}
    return (one for one in recipe.prompts if one.form is Form.BIOGRAPHY and one.entity in names)


def summary(on: list[Speed], off: list[Speed]) -> dict[str, Any]:
    """Medians over the rounds, and what was taken away in each."""
    sides = {"on": on, "off": off}
    taken = [1 - with_guard.tokens_s / without.tokens_s for with_guard, without in zip(on, off, strict=True)]
    medians = {
        field: {name: round(statistics.median(getattr(one, field) for one in of), 1) for name, of in sides.items()}
        for field in Speed._fields
    }
    return {"share": round(statistics.median(taken), 4), "rounds": [round(one, 4) for one in taken], **medians}


async def served(options: argparse.Namespace) -> dict[str, Any]:
    """Throughput with and without the guard, by traffic."""
    recipe = Recipe()
    retain = list(recipe.world.retain)
    monitored, others = retain[::2], retain[1::2]
    with tempfile.TemporaryDirectory() as folder:
        service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
        ids = tenants(service, recipe, monitored, options.targets)
        speeds: dict[tuple[str, str], list[Speed]] = {}
        async with lethe_engine(_model(recipe, options.parameters), "--max-model-len", "512") as engine:
            guarded, tokenizer = GuardedEngine(engine, service), engine.renderer.get_tokenizer()
            traffic = {
                "ordinary": rendered(tokenizer, (one for one in recipe.prompts if one.form in _ORDINARY)),
                "about similar people": rendered(tokenizer, biographies(recipe, others)),
                "about targets": rendered(tokenizer, biographies(recipe, monitored)),
            }
            for turn in range(options.rounds + 1):
                for kind, name in itertools.product(traffic, sorted(ids, reverse=turn % 2 == 0)):
                    CALLER.set(Caller(ids[name], None, "benchmark"))
                    seconds = options.seconds if turn else 2.0  # the first round warms up
                    speed = await throughput(guarded, traffic[kind], options.clients, seconds)
                    if turn:
                        speeds.setdefault((kind, name), []).append(speed)
        service.close()
    return {kind: summary(speeds[kind, "on"], speeds[kind, "off"]) for kind in traffic}


def _model(recipe: Recipe, parameters: int) -> Path:
    model: Path = build(recipe).folder
    into = user_cache_path("lethe") / f"widened-{model.name}-{parameters}"
    return widened(model, into, parameters) if parameters else model


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report."""
    load = os.getloadavg()
    output = await served(options)
    latency = {str(targets): await clause_latency(targets) for targets in sorted({1, options.targets})}
    setting = {name: getattr(options, name) for name in ("parameters", "targets", "clients", "rounds", "seconds")}
    return {"clause_ms": latency, "throughput": output, "setting": setting, "loadavg": [load, os.getloadavg()]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=135_000_000, help="0: the demo model as it is")
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement, six of which are a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(report := json.dumps(asyncio.run(measure(arguments)), indent=1))
    if arguments.json:
        arguments.json.write_text(report + "\n", encoding="utf-8")
