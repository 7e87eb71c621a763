"""What reading features costs a request: time to its first token, and time of a step of decoding.

    python benchmarks/tap.py [--features 16 128 1024] [--rounds 6] --json FILE

The model has the shape of SmolLM-135M with dummy weights. Plain vLLM and the engine as ``lethe serve`` starts it are up
together. Every prompt is asked of Lethe's engine in every way, in random order, and each time of plain vLLM just before
or just after, by chance; ratios are to that plain run. ``none``: without features, the taps idle; ``joint``: watched
beside the text detector, asked at the end of the prompt and silent, as clean traffic is served; ``watched``: by
themselves, at every token, silent; ``clamped``: flagged at once and clamped from there on; ``plain``: plain vLLM
itself, which says how far equal runs lie apart on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from engines import lethe_engine, plain_engine
from vllm.engine.protocol import EngineClient
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.probe import EngineProbe
from guard.worker.controls import RESERVED, Controls, Features
from sae_features.autoencoder import SparseAutoencoder
from sae_features.rule import Thresholds
from sae_features.target import TargetFeatures
from server.demo.model import build
from server.demo.recipe import Recipe

_HIDDEN, _LAYERS, _LAYER = 576, 30, 9
#: The shape of SmolLM-135M.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": _HIDDEN,
    "intermediate_size": 1536,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
#: In a round: prompts asked alone, for their first token, and of how many tokens.
_ALONE, _PROMPT = 8, 256
#: In a round: groups asked together, for their steps; of how many prompts, of how many tokens, answered with how many.
_GROUPS, _CLIENTS, _SHORT, _TOKENS = 2, 8, 64, 24

#: way -> milliseconds of plain vLLM and of this way beside it
Pairs = dict[str, list[tuple[float, float]]]


def features_of(count: int, limit: float) -> TargetFeatures:
    """Random features with a limit that every mean exceeds, or none."""
    generator = torch.Generator().manual_seed(count)
    encoder, decoder = (torch.randn(count, _HIDDEN, generator=generator) for _ in range(2))
    whole = SparseAutoencoder(
        encoder=torch.nn.functional.normalize(encoder, dim=1),
        decoder=torch.nn.functional.normalize(decoder, dim=1),
        gate=torch.full((count,), 1e3),
        gain=torch.ones(count),
        bias=torch.zeros(count),
        shift=torch.zeros(_HIDDEN),
        b_dec=torch.zeros(_HIDDEN),
        ids=torch.arange(count),
        layer=_LAYER,
        source="random",
    )
    limits = Thresholds((), (limit,), 0.01)
    return TargetFeatures(whole, torch.ones(count, dtype=torch.bool), torch.ones(count), limits, 1.0)


def uses(count: int, silent: str, flagged: str) -> dict[str, Features]:
    """How a request may use a set of so many features, given the names of one that is silent and one that is not."""
    return {
        f"{count} joint": Features(watch=(silent,), once=(silent,)),
        f"{count} watched": Features(watch=(silent,)),
        f"{count} clamped": Features(watch=(flagged,), clamp=(flagged,)),
    }


async def _ask(engine: EngineClient, ids: list[int], use: Features | None, tokens: int) -> list[float]:
    """When each token of an answer arrived."""
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA)
    params.skip_reading_prefix_cache = True
    prompt: dict[str, Any] = dict(tokens_input(ids))
    if use is not None:
        controls = Controls(features=msgspec.structs.replace(use, ticket=secrets.token_hex(8)))
        params.extra_args, prompt["cache_salt"] = {RESERVED: controls.to_wire()}, controls.salt
    arrived: list[float] = []
    async for output in engine.generate(prompt, params, f"tap-{secrets.token_hex(8)}"):
        arrived += [time.perf_counter()] * len(output.outputs[0].token_ids)
    return arrived


async def first_token(engine: EngineClient, prompts: list[list[int]], use: Features | None) -> float:
    """Milliseconds to the first token of the one prompt that is asked."""
    began = time.perf_counter()
    (arrived,) = await asyncio.gather(*(_ask(engine, ids, use, 1) for ids in prompts))
    return 1e3 * (arrived[0] - began)


async def step(engine: EngineClient, prompts: list[list[int]], use: Features | None) -> float:
    """Milliseconds of a step in which all prompts are answered together, on average."""
    answers = await asyncio.gather(*(_ask(engine, ids, use, _TOKENS) for ids in prompts))
    began, ended = max(one[0] for one in answers), min(one[-1] for one in answers)
    last = max(answers, key=lambda one: one[0])
    return 1e3 * (ended - began) / sum(began < moment <= ended for moment in last)


async def measure(counts: list[int], rounds: int) -> dict[str, Any]:
    """Medians in milliseconds, and the median and quartiles of the ratio to plain vLLM just before or after."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for file in build(Recipe()).folder.glob("*token*"):
            shutil.copy(file, folder)
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        flags = ("--load-format", "dummy", "--max-model-len", "512", "--dtype", "bfloat16")
        async with plain_engine(Path(folder), *flags) as plain, lethe_engine(Path(folder), *flags) as lethe:
            probe = EngineProbe(lethe)
            ways: dict[str, tuple[EngineClient, Features | None]] = {"plain": (plain, None), "none": (lethe, None)}
            for count in counts:
                silent, flagged = [await probe.load_features(features_of(count, limit)) for limit in (1e9, -1e9)]
                ways |= {name: (lethe, use) for name, use in uses(count, silent, flagged).items()}
            found: dict[str, Pairs] = {what: {way: [] for way in ways} for what in ("first_token_ms", "step_ms")}
            for number in range(rounds + 1):
                alone, groups = (_ALONE, _GROUPS) if number else (1, 1)  # the first round warms up
                asked = [("first_token_ms", first_token, _prompts(rng, 1, _PROMPT)) for _ in range(alone)]
                asked += [("step_ms", step, _prompts(rng, _CLIENTS, _SHORT)) for _ in range(groups)]
                for what, timed, prompts in asked:
                    for way in rng.sample(list(ways), len(ways)):
                        pair = [(plain, None), ways[way]]
                        times = [0.0, 0.0]
                        for place in rng.sample((0, 1), 2):
                            times[place] = await timed(pair[place][0], prompts, pair[place][1])
                        if number:
                            found[what][way].append((times[0], times[1]))
                print(f"round {number} of {rounds}", flush=True)
    return {
        **{what: {way: round(statistics.median(of), 3) for way, of in _taken(some)} for what, some in found.items()},
        "ratio": {what: {way: _beside(of)[1] for way, of in some.items()} for what, some in found.items()},
        "quartiles": {what: {way: _beside(of)[::2] for way, of in some.items()} for what, some in found.items()},
        "n": {what: len(some["plain"]) for what, some in found.items()},
    }


def _prompts(rng: random.Random, count: int, tokens: int) -> list[list[int]]:
    return [[rng.randrange(10, 4000) for _ in range(tokens)] for _ in range(count)]


def _taken(some: Pairs) -> list[tuple[str, list[float]]]:
    """What each way took, without the plain runs beside it."""
    return [(way, [other for _, other in of]) for way, of in some.items()]


def _beside(pairs: list[tuple[float, float]]) -> list[float]:
    """The quartiles of the ratios, pair by pair."""
    return [round(cut, 4) for cut in statistics.quantiles([other / plain for plain, other in pairs], n=4)]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[16, 128, 1024])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    found = asyncio.run(measure(args.features, args.rounds))
    print(json.dumps(found, indent=1))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
