"""A process that asks one question of plain vLLM or of vLLM with Lethe's worker part, for ``test_compile_cache.py``."""

from __future__ import annotations

import json
import sys

from vllm import LLM, SamplingParams

from guard.worker import COMPILE_SALT, CPU_WORKER
from guard.worker.controls import RESERVED, Controls, Corruption


def main(kind: str, model: str) -> None:
    """Print the answers to the same prompt, as it is and with all of it corrupted, as token ids in JSON."""
    taps = {"worker_cls": CPU_WORKER, "additional_config": COMPILE_SALT} if kind == "lethe" else {}
    llm = LLM(model, max_model_len=128, enable_prefix_caching=False, **taps)
    prompt = {"prompt_token_ids": list(range(10, 26))}
    controls = Controls(corruption=Corruption("flip", 2**31, 0.0, 0, ((0, 16),)))
    answers = [
        list(
            llm.generate(prompt, SamplingParams(temperature=0, max_tokens=16, extra_args=extra))[0].outputs[0].token_ids
        )
        for extra in (None, {RESERVED: controls.to_wire()})
    ]
    print(json.dumps(dict(zip(("clean", "corrupted"), answers, strict=True))))  # noqa: T201 its parent reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
