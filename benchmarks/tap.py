"""What reading features costs a request: time to its first token, and time of a step of decoding.

    python benchmarks/tap.py [--features 16 128 1024] [--rounds 10] --json FILE

The model has the shape of SmolLM-135M with dummy weights. Every prompt is asked of the same engine without features and
with them, one after the other in random order, and compared with itself. ``joint``: watched beside the text detector,
asked at the end of the prompt and silent, as clean traffic is served; ``watched``: by themselves, at every token,
silent; ``clamped``: flagged at once and clamped from there on; ``again``: without features once more, which says how
far equal requests lie apart on this machine. Without features the taps are idle; what they then cost is not in the
ratios.
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
from engines import lethe_engine
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
#: Tokens of a prompt, prompts asked alone and together in a round, tokens of an answer.
_PROMPT, _ALONE, _CLIENTS, _TOKENS = 256, 12, 8, 16


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


async def _ask(engine: EngineClient, ids: list[int], use: Features | None, tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and from there for each further one."""
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA)
    params.skip_reading_prefix_cache = True
    prompt: dict[str, Any] = dict(tokens_input(ids))
    if use is not None:
        controls = Controls(features=msgspec.structs.replace(use, ticket=secrets.token_hex(8)))
        params.extra_args, prompt["cache_salt"] = {RESERVED: controls.to_wire()}, controls.salt
    began, first = time.perf_counter(), None
    async for _ in engine.generate(prompt, params, f"tap-{secrets.token_hex(8)}"):
        first = first or time.perf_counter()
    assert first is not None
    return first - began, (time.perf_counter() - first) / max(1, tokens - 1)


async def measure(counts: list[int], rounds: int) -> dict[str, Any]:
    """Medians in milliseconds, and the median and quartiles of the ratio to the same prompt without features."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for file in build(Recipe()).folder.glob("*token*"):
            shutil.copy(file, folder)
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        flags = ("--load-format", "dummy", "--max-model-len", "512", "--dtype", "bfloat16")
        async with lethe_engine(Path(folder), *flags) as engine:
            probe = EngineProbe(engine)
            kinds: dict[str, Features | None] = {"0": None, "0 again": None}
            for count in counts:
                silent, flagged = [await probe.load_features(features_of(count, limit)) for limit in (1e9, -1e9)]
                kinds |= uses(count, silent, flagged)
            first: dict[str, list[float]] = {kind: [] for kind in kinds}
            step: dict[str, list[float]] = {kind: [] for kind in kinds}
            for number in range(rounds + 1):
                *alone, others = [_prompts(rng, 1) for _ in range(_ALONE)] + [_prompts(rng, _CLIENTS)]
                for prompts, tokens, found in (*((one, 1, first) for one in alone), (others, _TOKENS, step)):
                    for kind in rng.sample(list(kinds), len(kinds)):
                        times = await asyncio.gather(*(_ask(engine, ids, kinds[kind], tokens) for ids in prompts))
                        if number:  # the first round warms up
                            found[kind].append(1e3 * statistics.median(one[tokens > 1] for one in times))
                print(f"round {number} of {rounds}", flush=True)
    both = {"first_token_ms": first, "step_ms": step}
    ratios = {what: {kind: _beside(some["0"], of) for kind, of in some.items()} for what, some in both.items()}
    return {
        **{what: {kind: round(statistics.median(of), 3) for kind, of in some.items()} for what, some in both.items()},
        "ratio": {what: {kind: middle for kind, (_, middle, _) in of.items()} for what, of in ratios.items()},
        "quartiles": {what: {kind: [low, high] for kind, (low, _, high) in of.items()} for what, of in ratios.items()},
        "n": {what: len(some["0"]) for what, some in both.items()},
    }


def _prompts(rng: random.Random, count: int) -> list[list[int]]:
    return [[rng.randrange(10, 4000) for _ in range(_PROMPT)] for _ in range(count)]


def _beside(plain: list[float], other: list[float]) -> list[float]:
    """The quartiles of the ratios, pair by pair."""
    ratios = [b / a for a, b in zip(plain, other, strict=True)]
    return [round(cut, 4) for cut in statistics.quantiles(ratios, n=4)]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[16, 128, 1024])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    found = asyncio.run(measure(args.features, args.rounds))
    print(json.dumps(found, indent=1))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
