"""Seconds to compile a target, by method, and what compiling costs the traffic that is served meanwhile.

    python benchmarks/compile.py [--model DIR --data DIR] [--targets 5] [--rounds 3] --json FILE

Traffic is the same greedy requests in a closed loop, measured alternately without anything else and for as long as one
target takes to be compiled meanwhile, by every method; the ratio is of medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines import lethe_engine
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.compile.concept import ConceptFit
from guard.compile.eco import EcoFit
from guard.compile.grounds import render, survey
from guard.compile.lunar import LunarFit
from guard.compile.questions import ordinary
from guard.compile.rocr import RocrFit
from guard.probe import EngineProbe
from guard.types import ForgetTarget, TargetSpec
from server.demo.model import build
from server.demo.recipe import Recipe
from server.evaluation.tofu.data import author_names, load

_CLIENTS, _TOKENS = 8, 32


def _target(number: int, name: str) -> ForgetTarget:
    now = datetime.now(UTC)
    return ForgetTarget(f"tgt_{number}", 1, TargetSpec(name=name), now, now)


async def _traffic(engine: Any, prompts: list[list[int]], meanwhile: Awaitable[object]) -> float:
    """Output tokens a second of ``_CLIENTS`` clients that ask one after the other until ``meanwhile`` is done."""
    until, tokens = asyncio.ensure_future(meanwhile), 0

    async def client(number: int) -> None:
        nonlocal tokens
        asked = 0
        while not until.done():
            ids = prompts[(number * 31 + asked) % len(prompts)]
            params = SamplingParams(
                temperature=0, max_tokens=_TOKENS, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY
            )
            async for result in engine.generate(tokens_input(ids), params, f"traffic-{number}-{time.monotonic_ns()}"):
                tokens += len(result.outputs[0].token_ids) if result.finished else 0
            asked += 1

    began = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(_CLIENTS)))
    await until
    return tokens / (time.monotonic() - began)


async def _measure(engine: Any, names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    probe = EngineProbe(engine)
    began = time.monotonic()
    grounds = await survey(probe, names)
    surveyed = time.monotonic() - began
    fits: dict[str, Any] = {
        "eco": EcoFit(probe),
        "lunar": LunarFit(probe),
        "rocr": RocrFit(probe),
        "concept": ConceptFit(probe),
    }
    spent: dict[str, list[float]] = {method: [] for method in fits}
    for number, name in enumerate(names):
        for method, fit in fits.items():
            began = time.monotonic()
            await fit.fit(_target(number, name), grounds, lambda *_: None)
            spent[method].append(time.monotonic() - began)
    prompts = [render(probe.tokenizer, prompt) for prompt in ordinary(64)]
    idle, busy, beside = [], [], []

    async def compiled(name: str) -> None:
        began = time.monotonic()
        for fit in fits.values():
            await fit.fit(_target(0, name), grounds, lambda *_: None)
        beside.append(time.monotonic() - began)

    await _traffic(engine, prompts, asyncio.sleep(seconds / 2))
    for number in range(rounds):
        idle.append(await _traffic(engine, prompts, asyncio.sleep(seconds)))
        busy.append(await _traffic(engine, prompts, compiled(names[number % len(names)])))
    return {
        "survey_s": surveyed,
        "seconds": {
            method: {"first": times[0], "median_of_later": statistics.median(times[1:] or times), "n": len(times)}
            for method, times in spent.items()
        },
        "traffic": {
            "idle_tokens_s": statistics.median(idle),
            "compiling_tokens_s": statistics.median(busy),
            "ratio": statistics.median(busy) / statistics.median(idle),
            "seconds_of_all_methods": statistics.median(beside),
            "rounds": [list(pair) for pair in zip(idle, busy, strict=True)],
        },
    }


async def _main(options: argparse.Namespace) -> None:
    if options.model is None:
        recipe = Recipe()
        model, names = build(recipe).folder, [entity.name for entity in recipe.world.forget]
    else:
        model, names = options.model, list(author_names(load(options.data)["forget"]))
    async with lethe_engine(model, "--max-model-len", "512", "--scheduling-policy", "priority") as engine:
        figures = await _measure(engine, names[: options.targets], options.rounds, options.seconds)
    figures["model"] = str(model)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="trained on TOFU; by default the demo model and its own people")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/tofu"), help="TOFU, whose authors MODEL knows"
    )
    parser.add_argument("--targets", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of traffic alone in each round")
    parser.add_argument("--json", type=Path)
    asyncio.run(_main(parser.parse_args()))
