"""How much many tenants with edits of their own cost: Lethe's edit table against vLLM's LoRA, in one batch.

    python benchmarks/tenants.py [--tenants 0 1 8 64 256] [--requests 256] [--rounds 5] --json FILE

The model has the shape of SmolLM-135M with dummy weights. A batch is 256 requests of K tenants in turn, each with
a rank-one change of one ``down_proj``, once in Lethe's edit table and once as a LoRA adapter of rank 1. Both engines
run side by side and are asked in turn, in a new order each round; shares are of each engine's own throughput at K = 0,
and the price of having LoRA enabled at all is the ratio of the two at K = 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from engines import lethe_engine
from safetensors.torch import save_file
from tap import CONFIG
from vllm.engine.protocol import EngineClient
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.methods.edit import Edit, RankOne
from guard.probe import EngineProbe
from guard.worker.controls import RESERVED, Controls
from server.demo.model import build
from server.demo.recipe import Recipe

_LAYER = 9
_PROMPT, _TOKENS = 8, 8


def edit_of(tenant: int) -> Edit:
    """A small random edit."""
    generator = torch.Generator().manual_seed(tenant)
    key = torch.randn(CONFIG["intermediate_size"], generator=generator) * 1e-2
    value = torch.randn(CONFIG["hidden_size"], generator=generator) * 1e-2
    return Edit({_LAYER: (RankOne(key, value),)})


def adapter_of(tenant: int, folder: Path) -> LoRARequest:
    """The same edit as a LoRA adapter in PEFT's format."""
    (part,) = edit_of(tenant).layers[_LAYER]
    path = folder / f"adapter-{tenant}"
    path.mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["down_proj"], "bias": "none"}
    (path / "adapter_config.json").write_text(json.dumps(config))
    place = f"base_model.model.model.layers.{_LAYER}.mlp.down_proj"
    tensors = {f"{place}.lora_A.weight": part.key[None].clone(), f"{place}.lora_B.weight": part.value[:, None].clone()}
    save_file(tensors, path / "adapter_model.safetensors")
    return LoRARequest(f"tenant-{tenant}", tenant + 1, str(path))


async def _batch(engine: EngineClient, means: list[Any], requests: int, seed: int) -> float:
    """Generated tokens a second of a batch whose requests use ``means`` in turn; those of no tenant if empty."""
    rng = random.Random(seed)

    async def one(number: int) -> None:
        params = SamplingParams(temperature=0, max_tokens=_TOKENS, ignore_eos=True)
        params.output_kind, params.skip_reading_prefix_cache = RequestOutputKind.FINAL_ONLY, True
        prompt: dict[str, Any] = dict(tokens_input([rng.randrange(10, 4000) for _ in range(_PROMPT)]))
        options: dict[str, Any] = {}
        if means and isinstance(own := means[number % len(means)], LoRARequest):
            options["lora_request"] = own
        elif means:
            controls = Controls(edits=(own,))
            params.extra_args, prompt["cache_salt"] = {RESERVED: controls.to_wire()}, controls.salt
        async for _ in engine.generate(prompt, params, f"tenants-{secrets.token_hex(8)}", **options):
            pass

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(requests)))
    return requests * _TOKENS / (time.perf_counter() - began)


async def measure(counts: list[int], requests: int, rounds: int) -> dict[str, Any]:
    """Medians and ranges of tokens a second, and shares of each engine's own at K = 0."""
    most, rng = max(counts), random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file in build(Recipe()).folder.glob("*token*"):
            shutil.copy(file, folder)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        flags = ["--load-format", "dummy", "--max-model-len", "128", "--dtype", "bfloat16"]
        flags += ["--max-num-seqs", str(requests)]
        lora = ["--enable-lora", "--max-loras", str(most), "--max-lora-rank", "1"]
        async with lethe_engine(folder, *flags) as table, lethe_engine(folder, *flags, *lora) as adapters:
            probe = EngineProbe(table)
            edits = [await probe.load(edit_of(tenant)) for tenant in range(most)]
            loras = [adapter_of(tenant, folder) for tenant in range(most)]
            for one in loras:
                await adapters.add_lora(one)
            engines = {"edit_table": (table, edits), "lora": (adapters, loras)}
            found: dict[tuple[str, int], list[float]] = defaultdict(list)
            cases = [(name, count) for name in engines for count in counts]
            for number in range(rounds + 1):
                for name, count in rng.sample(cases, len(cases)):
                    engine, means = engines[name]
                    speed = await _batch(engine, means[:count], requests, number)
                    if number:  # the first round warms up
                        found[name, count].append(speed)
                print(f"round {number} of {rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    middle = {name: {str(k): round(statistics.median(found[name, k]), 1) for k in counts} for name in engines}
    ranges = {
        name: {str(k): [round(min(found[name, k]), 1), round(max(found[name, k]), 1)] for k in counts}
        for name in engines
    }
    share = {name: {k: round(speed / of["0"], 3) for k, speed in of.items()} for name, of in middle.items()}
    enabled = round(middle["lora"]["0"] / middle["edit_table"]["0"], 3)
    return {
        "tokens_per_s": middle,
        "range": ranges,
        "share_of_no_tenant": share,
        "lora_enabled_share": enabled,
        "requests": requests,
        "rounds": rounds,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[0, 1, 8, 64, 256])
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    if 0 not in args.tenants:
        parser.error("--tenants needs 0, which all else is compared with")
    found = asyncio.run(measure(args.tenants, args.requests, args.rounds))
    print(json.dumps(found, indent=1))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
