"""What an engine answers to one prompt under each control; as a process, one of two ranks that serves LoRA adapters.

For ``test_tensor_parallel.py``, which compares it with the engine of all tests and with transformers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import torch
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.utils.argparse_utils import FlexibleArgumentParser

from guard.methods.edit import Edit, RankOne
from guard.probe import EngineProbe
from guard.worker import take_worker
from guard.worker.controls import RESERVED, Constraint, Controls, Corruption, mlp_input, residual

LAYER, PROMPT, TOKENS = 2, list(range(10, 42)), 16


def edit_of(captured: list[torch.Tensor], floor: float | None = None) -> Edit:
    """An edit that what was captured of :data:`PROMPT` sets off; with a floor, what is like its last token does."""
    key = captured[0].mean(0) if floor is None else captured[0][-1]
    value = torch.randn(captured[1].shape[1], generator=torch.Generator().manual_seed(0))
    return Edit({LAYER: (RankOne(key / key.dot(key), 1000 * value, floor),)})


async def answers(engine: EngineClient, adapter: LoRARequest | None = None) -> dict[str, Any]:
    """The answers as they are, corrupted, edited and constrained, and what was captured, as lists.

    An answer is its token ids and its log-probability, which tells two controls apart that end in the same words.

    With an adapter also what it answers, as it is and edited.
    """
    probe = EngineProbe(engine)
    sites = [mlp_input(LAYER), residual(LAYER)]
    (found,) = await probe.activations([PROMPT], sites)
    captured = [found[site] for site in sites]
    columns = await probe.value_vectors(LAYER, [0, 1, captured[0].shape[1] - 1])
    edited = Controls(edits=(await probe.load(edit_of(captured)),))
    switched = Controls(edits=(await probe.load(edit_of(captured, 0.9)),))

    async def ask(controls: Controls | None = None, lora: LoRARequest | None = None) -> tuple[list[int], float]:
        params = SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY)
        prompt: dict[str, Any] = dict(tokens_input(PROMPT))
        if controls is not None:
            params.extra_args = {RESERVED: controls.to_wire()}
            prompt["cache_salt"] = controls.salt
        stream = engine.generate(prompt, params, f"ranks-{os.urandom(4).hex()}", lora_request=lora)
        answer = [result async for result in stream][-1].outputs[0]
        return list(answer.token_ids), float(answer.cumulative_logprob)

    plain = await ask()
    told = {
        "plain": plain,
        "corrupted": await ask(Controls(corruption=Corruption("flip", 2**31, 0.0, 0, ((0, 32),)))),
        "edited": await ask(edited),
        "switched": await ask(switched),
        "constrained": await ask(Controls(constraint=Constraint(banned=tuple(plain[0][:1])))),
        "captured": [one.tolist() for one in (*captured, columns)],
    }
    if adapter is not None:
        told |= {"adapted": await ask(lora=adapter), "adapted and edited": await ask(edited, adapter)}
    return told


async def main(model: str, adapter: str) -> None:
    """Print the answers of two ranks as JSON."""
    flags = ["--model", model, "--tensor-parallel-size", "2", "--dtype", "float32", "--max-model-len", "128"]
    flags += ["--enable-lora", "--max-lora-rank", "8"]
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(flags)
    take_worker(args)
    async with build_async_engine_client(args) as engine:
        told = await answers(engine, LoRARequest("client", 1, adapter))
    print(json.dumps(told))  # noqa: T201 its parent reads it


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
