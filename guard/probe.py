"""How a compile job looks into a model: text out, scores out, activations out, never a second copy of the weights."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load, save
from vllm.engine.protocol import EngineClient
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.loads import Loads
from guard.methods.edit import Edit
from guard.pace import Pace
from guard.prompt import Tokenizer, answer_starts
from guard.worker.controls import RESERVED, Capture, Controls, Told
from sae_features.skills import SkillKeys
from sae_features.target import TargetFeatures

#: Beneath any request of a client, where the engine schedules by priority.
_PRIORITY = 1000


class Probe(Protocol):
    """Forward passes of the served model. Prompts are token ids; the order of results is that of the prompts."""

    model: str  # fingerprint
    layers: int
    tokenizer: Tokenizer

    async def generate(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int, controls: Controls | None = None
    ) -> list[str]:
        """Greedy continuations."""

    async def logprobs(
        self, prompts: Sequence[Sequence[int]], starts: Sequence[int], *, controls: Sequence[Controls] | None = None
    ) -> list[float]:
        """Mean log-probability (nats) of the tokens of each prompt from its ``start`` on."""

    async def activations(
        self, prompts: Sequence[Sequence[int]], sites: Sequence[str], *, edits: tuple[str, ...] = ()
    ) -> list[Mapping[str, torch.Tensor]]:
        """Activations (tokens, width) float32 of each prompt, by site (:mod:`guard.worker.controls`)."""

    async def unembedding(self, token: int) -> torch.Tensor:
        """The direction of the last residual that speaks for ``token``: (hidden,) float32."""

    async def value_vectors(self, layer: int, dims: Sequence[int]) -> torch.Tensor:
        """Columns of a layer's ``down_proj``: (dims, hidden) float32."""

    async def load(self, edit: Edit) -> str:
        """Load an edit for ``Controls.edits``; its name. Loading one twice costs nothing."""

    def borrowed(self, edit: Edit) -> AbstractAsyncContextManager[str]:
        """Load an edit under a name of its own, and unload it in the end, also where the same is being served."""

    def holds(self, name: str) -> bool:
        """Whether something is still loaded, by its name; if so it stays for now, since it is about to be used."""

    async def load_phrases(self, phrases: Sequence[str]) -> str:
        """Load phrases for ``Constraint.sets``; their name. Loading the same twice costs nothing."""

    async def load_features(self, features: TargetFeatures) -> str:
        """Load a feature set for ``Controls.features``; its name. Loading one twice costs nothing."""

    async def load_skill(self, skill: SkillKeys) -> str:
        """Load a skill for ``Features.skills``; its name. Loading one twice costs nothing."""

    async def verdicts(self, tickets: Sequence[str]) -> list[dict[str, Told] | None]:
        """What the features said of the requests with these tickets; see ``Ledger.take``."""


class EngineProbe:
    """A probe through the engine that is serving, at low priority."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        # AsyncLLM has it, vLLM's protocol of engines does not name it.
        self._pace = Pace(getattr(engine, "get_num_unfinished_requests"))  # noqa: B009
        self._loads = Loads(lambda method, args: engine.collective_rpc(method, args=args))
        config = engine.model_config
        self.tokenizer: Tokenizer = engine.renderer.get_tokenizer()
        self.layers = int(config.get_total_num_hidden_layers())
        self.model = fingerprint(config.model, config.hf_text_config.to_dict(), str(config.dtype))

    async def generate(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int, controls: Controls | None = None
    ) -> list[str]:
        """See :meth:`Probe.generate`."""
        params = SamplingParams(temperature=0, max_tokens=max_tokens)
        results = await _together(self._run(prompt, params, controls) for prompt in prompts)
        return [result.outputs[0].text for result in results]

    async def logprobs(
        self, prompts: Sequence[Sequence[int]], starts: Sequence[int], *, controls: Sequence[Controls] | None = None
    ) -> list[float]:
        """See :meth:`Probe.logprobs`."""
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        each: Sequence[Controls | None] = controls or [None] * len(prompts)
        results = await _together(self._run(prompt, params, mine) for prompt, mine in zip(prompts, each, strict=True))
        return [
            _mean([entry[token].logprob for entry, token in zip(_told(result)[start:], prompt[start:], strict=True)])
            for result, prompt, start in zip(results, prompts, starts, strict=True)
        ]

    async def activations(
        self, prompts: Sequence[Sequence[int]], sites: Sequence[str], *, edits: tuple[str, ...] = ()
    ) -> list[Mapping[str, torch.Tensor]]:
        """See :meth:`Probe.activations`."""
        names = [secrets.token_hex(8) for _ in prompts]
        # What the prefix cache holds is not computed again, and what is not computed cannot be seen.
        params = SamplingParams(temperature=0, max_tokens=1, skip_reading_prefix_cache=True)
        wanted = tuple(sites)
        try:
            await _together(
                self._run(prompt, params, Controls(edits=edits, capture=Capture(name, wanted)))
                for name, prompt in zip(names, prompts, strict=True)
            )
        finally:  # also where one failed: nobody else knows the names by which the worker would forget them
            blobs = await self._engine.collective_rpc("lethe_take_captures", args=(names,))
        shards = [load(blob) for blob in blobs]
        return [
            {site: _joined(shards, name, site)[: len(p)] for site in wanted}
            for name, p in zip(names, prompts, strict=True)
        ]

    async def unembedding(self, token: int) -> torch.Tensor:
        """See :meth:`Probe.unembedding`."""
        for blob in await self._engine.collective_rpc("lethe_unembedding", args=(token,)):
            if blob is not None:
                return load(blob)["direction"]
        raise ValueError(f"no worker holds token {token}")

    async def value_vectors(self, layer: int, dims: Sequence[int]) -> torch.Tensor:
        """See :meth:`Probe.value_vectors`."""
        shares = await self._engine.collective_rpc("lethe_value_vectors", args=(layer, list(dims)))
        return torch.stack([load(share)["vectors"] for share in shares]).sum(0)

    async def load(self, edit: Edit) -> str:
        """See :meth:`Probe.load`."""
        blob = save(edit.tensors())
        return await self._loads.load("edit", blob, blob)

    @asynccontextmanager
    async def borrowed(self, edit: Edit) -> AsyncIterator[str]:
        """See :meth:`Probe.borrowed`."""
        blob = save(edit.tensors())
        name = await self._loads.load("edit", blob + secrets.token_bytes(16), blob)
        try:
            yield name
        finally:
            await self._loads.drop(name)

    def holds(self, name: str) -> bool:
        """See :meth:`Probe.holds`."""
        return self._loads.holds(name)

    async def load_phrases(self, phrases: Sequence[str]) -> str:
        """See :meth:`Probe.load_phrases`."""
        wanted = sorted(set(phrases))
        return await self._loads.load("phrases", json.dumps(wanted).encode(), wanted)

    async def load_features(self, features: TargetFeatures) -> str:
        """See :meth:`Probe.load_features`."""
        blob = save(features.tensors())
        return await self._loads.load("features", blob, blob)

    async def load_skill(self, skill: SkillKeys) -> str:
        """See :meth:`Probe.load_skill`."""
        blob = save(skill.tensors())
        return await self._loads.load("skill", blob, blob)

    async def verdicts(self, tickets: Sequence[str]) -> list[dict[str, Told] | None]:
        """See :meth:`Probe.verdicts`."""
        # Every rank of tensor parallelism, the only one served, holds the whole residual stream, and says the same.
        told, *_ = await self._engine.collective_rpc("lethe_take_verdicts", args=(list(tickets),))
        return [one and {name: Told(*values) for name, values in one.items()} for one in told]

    async def _run(self, prompt: Sequence[int], params: SamplingParams, controls: Controls | None) -> RequestOutput:
        params = params.clone()
        params.output_kind = RequestOutputKind.FINAL_ONLY
        inputs: dict[str, Any] = {**tokens_input(list(prompt))}
        if controls is not None:
            if controls.edits:  # switches look where they do when they are served
                controls |= Controls(starts=answer_starts(self.tokenizer, prompt))
            params.extra_args = {RESERVED: controls.to_wire()}
            if controls.salt:
                inputs["cache_salt"] = controls.salt
        async with self._pace.turn():
            request_id = f"lethe-probe-{secrets.token_hex(8)}"
            final: RequestOutput | None = None
            async for final in self._engine.generate(inputs, params, request_id, priority=self._priority):  # noqa: B007
                pass
        if final is None:
            raise RuntimeError("the engine ended a probe request without an answer")
        return final

    @property
    def _priority(self) -> int:
        scheduler = self._engine.vllm_config.scheduler_config
        return _PRIORITY if scheduler.policy == "priority" else 0


def fingerprint(model: str, config: Mapping[str, Any], dtype: str) -> str:
    """Names a model's weights as far as artifacts care (32 hexadecimal digits).

    Of local weights the names, sizes and first megabyte of each file count, of others their name: reading all of a
    large model at every start would take longer than loading it.
    """
    told = hashlib.sha256(json.dumps([config, dtype], sort_keys=True, default=str).encode())
    folder = Path(model)
    if folder.is_dir():
        for file in sorted(
            path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".gguf")
        ):
            with file.open("rb") as stream:
                told.update(f"{file.name} {file.stat().st_size}".encode() + stream.read(2**20))
    else:
        told.update(model.encode())
    return told.hexdigest()[:32]


async def _together(runs: Iterable[Coroutine[Any, Any, RequestOutput]]) -> list[RequestOutput]:
    """The results of all; where one fails, the others are stopped before its error is raised."""
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _told(result: RequestOutput) -> list[Any]:
    if result.prompt_logprobs is None:
        raise RuntimeError("the engine gave no log-probabilities of the prompt")
    return list(result.prompt_logprobs)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _joined(shards: Sequence[Mapping[str, torch.Tensor]], name: str, site: str) -> torch.Tensor:
    """One capture from all ranks: slices of the MLP's input are joined, of the residual every rank holds all."""
    parts = [shard[f"{name}|{site}"] for shard in shards]
    return torch.cat(parts, dim=1) if site.startswith("mlp_input") else parts[0]
