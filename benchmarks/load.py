"""vLLM's own load generator, and what it measures of a server."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
from dataclasses import dataclass, field

from serving import MODEL_NAME, Serving
from vllm.benchmarks.datasets import SampleRequest
from vllm.benchmarks.serve import TaskType, benchmark


@dataclass
class Load:
    """What one or more runs of the generator measured. Times are in milliseconds.

    Attributes:
        speeds: output tokens a second of each run.
        first: to the first token of each request.
        step: from there for each further token, of each request.
        gaps: between the chunks of a stream; with an output guard a chunk may hold several tokens.
        whole: from sending each request to its last token.
        api_cpu, engine_cpu: CPU time for each request, of each run.
    """

    speeds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    api_cpu: list[float] = field(default_factory=list)
    engine_cpu: list[float] = field(default_factory=list)

    def __iadd__(self, other: Load) -> Load:
        for name, values in vars(other).items():
            getattr(self, name).extend(values)
        return self

    def summary(self) -> dict[str, float]:
        """Medians over all runs or requests, and the 99th percentile of the gaps."""
        return {
            "tokens_per_s": round(statistics.median(self.speeds), 2),
            "ttft_p50_ms": round(statistics.median(self.first), 2),
            "tpot_p50_ms": round(statistics.median(self.step), 3),
            "itl_p50_ms": round(statistics.median(self.gaps), 3),
            "itl_p99_ms": round(statistics.quantiles(self.gaps, n=100)[-1], 3),
            "answer_p50_ms": round(statistics.median(self.whole), 2),
            "answer_slowest_ms": round(max(self.whole), 1),
            "api_cpu_ms_per_request": round(statistics.median(self.api_cpu), 3),
            "engine_cpu_ms_per_request": round(statistics.median(self.engine_cpu), 3),
            "requests": len(self.first),
        }


async def drive(server: Serving, key: str | None, asked: list[list[dict[str, str]]], tokens: int, clients: int) -> Load:
    """Ask everything of the server, ``clients`` at a time, for answers of ``tokens`` tokens each.

    Raises:
        RuntimeError: a request failed or was cut short, so the figures would mean nothing.
    """
    before = server.usage()
    with contextlib.redirect_stdout(io.StringIO()):
        found = await benchmark(
            task_type=TaskType.GENERATION,
            endpoint_type="openai-chat",
            api_url=f"{server.url}/v1/chat/completions",
            base_url=server.url,
            model_id=MODEL_NAME,
            model_name=MODEL_NAME,
            tokenizer=None,  # the server says how many tokens there were
            input_requests=[SampleRequest("", 0, tokens, chat_messages=messages) for messages in asked],
            logprobs=None,
            request_rate=math.inf,
            burstiness=1.0,
            disable_tqdm=True,
            num_warmups=0,
            profile=False,
            selected_percentile_metrics=[],
            selected_percentiles=[],
            ignore_eos=True,
            goodput_config_dict={},
            max_concurrency=clients,
            lora_modules=None,
            extra_headers={"Authorization": f"Bearer {key}"} if key else None,
            extra_body={"temperature": 0.0},
            ready_check_timeout_sec=0,
        )
    if found["failed"] or any(length != tokens for length in found["output_lens"]):
        short = [length for length in found["output_lens"] if length != tokens]
        raise RuntimeError(f"{len(short)} requests failed or were cut short: {[e for e in found['errors'] if e][:1]}")
    after = server.usage()
    ends = zip(found["latencies"], found["ttfts"], strict=True)
    return Load(
        speeds=[found["output_throughput"]],
        first=[1e3 * one for one in found["ttfts"]],
        step=[1e3 * (latency - first) / (tokens - 1) for latency, first in ends],
        gaps=[1e3 * gap for gaps in found["itls"] for gap in gaps],
        whole=[1e3 * one for one in found["latencies"]],
        api_cpu=[1e3 * (after.api - before.api) / len(asked)],
        engine_cpu=[1e3 * (after.engine - before.engine) / len(asked)],
    )
