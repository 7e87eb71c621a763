"""The one door to the model: an ``EngineClient`` that every route of the server generates through."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.exceptions import VLLMValidationError
from vllm.logger import init_logger
from vllm.outputs import RequestOutput
from vllm.reasoning import ReasoningParserManager
from vllm.sampling_params import SamplingParams

from guard import metrics
from guard.artifacts import Artifacts
from guard.caller import CALLER, Caller
from guard.choice import Choices
from guard.continuation import Serving
from guard.features import FeatureGuard, Sight, Watch
from guard.interventions import INTERVENTIONS, InModelIntervention, Means, Refusal, Serve, UnpreparedError
from guard.output_guards import OutputGuards
from guard.outputs import GuardedRequest, as_asked, reply, settled
from guard.partial import PARTIAL, harmless_part
from guard.policy import REFUSE, decide
from guard.probe import EngineProbe
from guard.prompt import PromptReader
from guard.service import GuardService
from guard.types import ForgetTarget, Gating, GuardName, Mode, Plan, TargetKind, TenantPolicy
from guard.worker import WORKERS
from guard.worker.controls import RESERVED, Controls
from sae_features.autoencoder import SparseAutoencoder

logger = init_logger(__name__)


class GuardedEngine:
    """Wraps vLLM's engine client; everything but ``generate`` and ``encode`` is passed on.

    A request whose tenant has nothing enabled gets the engine's own generator, untouched. Others are admitted at
    once and judged beside the prefill: the first output waits for the verdict, a flagged request is aborted and
    served again under its plan, and what is produced passes the output guards.

    Args:
        engine: vLLM's client.
        service: what the guards are, and for whom.
        autoencoder: of features that targets are looked for by.
        private_prefix_cache: whether tenants share no cached prefixes; see :class:`server.settings.Settings`.
    """

    def __init__(
        self,
        engine: EngineClient,
        service: GuardService,
        autoencoder: SparseAutoencoder | None = None,
        *,
        private_prefix_cache: bool = False,
    ) -> None:
        self._engine = engine
        self._private = private_prefix_cache
        self._service = service
        tokenizer = engine.renderer.get_tokenizer()
        self._tokenizer = tokenizer
        self._salt = secrets.token_hex(16)
        self._reader = PromptReader(tokenizer)
        self._vocab_size = engine.model_config.get_vocab_size()
        self._reasoning = _reasoning_parser(engine, tokenizer)
        self.means = _means(engine, service, autoencoder)
        self._interventions = {name: kind(self.means) for name, kind in INTERVENTIONS.items()}
        artifacts, probe = self.means.artifacts, self.means.probe
        # Only Lethe's worker part can forbid a token, and not under speculative decoding.
        self._resumable = probe is not None and engine.vllm_config.speculative_config is None
        self._features = None if artifacts is None or probe is None else FeatureGuard(artifacts, probe)
        self._choices = None if artifacts is None else Choices(artifacts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def encode(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Not served: pooled hidden states would go around the guard."""
        raise VLLMValidationError("Pooling requests are not served by Lethe.")

    def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncIterator[RequestOutput]:
        """As ``EngineClient.generate``, for the tenant that :data:`guard.caller.CALLER` names.

        Raises:
            VLLMValidationError: the client used a reserved key, or sent what a guard cannot read.
            RuntimeError: no caller is set; there is no unguarded way in.
        """
        caller = CALLER.get(None)
        if caller is None:
            raise RuntimeError("generate() was called outside a tenant's request")
        if RESERVED in (sampling_params.extra_args or {}):
            raise VLLMValidationError(
                f"{RESERVED!r} is reserved and cannot be set by a client.", parameter="vllm_xargs"
            )
        try:
            policy = self._service.policy_of(caller)
        except LookupError:
            raise VLLMValidationError("This key's tenant no longer exists.") from None
        if self._private and isinstance(prompt, Mapping):
            prompt = _salted(prompt, caller.tenant_id)
        if policy.idle:
            return self._engine.generate(prompt, sampling_params, request_id, **options)
        if "-beam-" in request_id and sampling_params.max_tokens == 1:
            raise VLLMValidationError("Beam search is not available for this key.", parameter="use_beam_search")
        request = self._read(prompt, sampling_params, request_id, options)
        return self._guarded(request, caller, policy)

    def _read(self, prompt: Any, params: SamplingParams, request_id: str, options: Mapping[str, Any]) -> GuardedRequest:
        if not isinstance(prompt, Mapping) or prompt.get("prompt_token_ids") is None or prompt.get("type") == "embeds":
            raise VLLMValidationError("Only text prompts are available for this key.", parameter="prompt")
        token_ids = prompt["prompt_token_ids"]
        return GuardedRequest(
            prompt=prompt,
            params=params,
            request_id=request_id,
            view=self._reader.read(token_ids),
            tokenizer=self._tokenizer,
            vocab_size=self._vocab_size,
            eos_token_id=self._tokenizer.eos_token_id,
            lead_in=self._lead_in(token_ids),
            options=options,
        )

    def _lead_in(self, token_ids: list[int]) -> str:
        """What ends the thoughts of a reasoning model that is about to think."""
        if self._reasoning is None or self._reasoning.is_reasoning_end(token_ids):
            return ""
        return getattr(self._reasoning, "reasoning_end_str", None) or ""

    async def _guarded(
        self, request: GuardedRequest, caller: Caller, policy: TenantPolicy
    ) -> AsyncGenerator[RequestOutput, None]:
        began = time.perf_counter()
        service = self._service
        if self._choices is not None:
            policy = await self._choices.applied(policy)
        request = replace(request, controls=await self._always(request, policy))
        async with contextlib.AsyncExitStack() as stack:
            watch, unwatched = await self._watch(policy)
            watched = watch.on(request) if watch is not None else request
            serving = Serving(self._run, resumable=self._resumable)
            admitted = await stack.enter_async_context(contextlib.aclosing(serving(watched)))
            first = asyncio.ensure_future(_first_of(admitted))
            stack.push_async_callback(_cancelled, first)
            scored = watch.scored if watch is not None else frozenset()
            verdict = await service.detection.judge(policy, request.view.texts, request.view.runs, scored=scored)
            sight = Sight(replace(verdict, unavailable=(*verdict.unavailable, *unwatched)))
            if watch is not None and self._features is not None:
                toggle = policy.guards[GuardName.FEATURES]
                sight = await self._features.judge(watch, verdict, request, toggle, first)
            judged, verdict = time.perf_counter(), sight.verdict
            done = plan = service.decide(verdict, policy)
            stack.callback(lambda: service.count(done, policy))
            source: AsyncIterator[RequestOutput]
            part: GuardedRequest | None = None
            if sight.carries_out(plan):
                source = _resumed(first, admitted, judged)
            else:
                await _cancelled(first)
                await admitted.aclose()
                serving = Serving(self._run, resumable=self._resumable)
                # Who is watched for features would have to be watched anew, and what no guard could judge is refused.
                if watch is None and not verdict.unavailable:
                    part = await self._harmless_part(request, plan, policy)
                if watch is not None and plan.action is None:  # it was clamped for what it is not about
                    metrics.UNDONE.inc()
                    served = serving(watch.cleared().on(request))
                elif part is not None:
                    served, done = as_asked(request, serving(part)), replace(plan, action=PARTIAL)
                else:
                    served = self._enforced(request, plan, policy, serving)
                source = await stack.enter_async_context(contextlib.aclosing(served))
            if request.params.structured_outputs is not None:
                source = settled(request, source, service.refusal_text(policy))
            outputs, as_if_unknown = OutputGuards(service, request, policy), part is None and _answers_itself(plan)
            source = await outputs.watch(stack, source, serving, as_if_unknown=as_if_unknown)
            if request.params.structured_outputs is not None:
                source = self._unbroken(request, source, policy, outputs, as_if_unknown)
            try:
                async for result in source:
                    yield result
            finally:
                elapsed = time.perf_counter() - began
                view = request.view
                service.record(
                    request.request_id, caller, policy, view, verdict, done, outputs.leaks, elapsed, outputs.unavailable
                )

    async def _unbroken(
        self,
        request: GuardedRequest,
        source: AsyncIterator[RequestOutput],
        policy: TenantPolicy,
        outputs: OutputGuards,
        as_if_unknown: bool,
    ) -> AsyncGenerator[RequestOutput, None]:
        """``source``, or a refusal of the shape that the client demands where something was taken out of it.

        JSON that was cut off is of no use to anybody, nor is the beginning of what may yet be: all of it is held.
        """
        held = [result async for result in source]
        if not outputs.cut and (as_if_unknown or await outputs.harmless(held)):
            for result in held:
                yield result
            return
        serving = Serving(self._run, resumable=False)
        refused = self._interventions[REFUSE].serve(request, (), policy, self._anew(request, policy, serving))
        # The client's grammar may leave nothing to say but what is protected; it may even hold the question.
        async with contextlib.AsyncExitStack() as stack:
            held = [result async for result in await outputs.watch(stack, refused, serving)]
        if not await outputs.harmless(held):
            held = [result async for result in reply(request, self._service.refusal_text(policy))]
        for result in held:
            yield result

    def _run(self, request: GuardedRequest) -> AsyncGenerator[RequestOutput, None]:
        prompt, params = request.prompt, request.params
        if request.controls != Controls():
            params = params.clone()
            params.extra_args = {**(params.extra_args or {}), RESERVED: request.controls.to_wire()}
            features = request.controls.features
            if features is not None and features.blinded_by_cache(len(prompt["prompt_token_ids"])):
                params.skip_reading_prefix_cache = True
            # What a changed forward pass leaves in the KV cache must never meet a request that is changed otherwise.
            # Secret, so that no client can name the same salt for a request that is not changed.
            if salt := request.controls.salt:
                prompt = _salted(prompt, self._salt, salt)
        return self._engine.generate(prompt, params, request.request_id, **request.options)

    async def _watch(self, policy: TenantPolicy) -> tuple[Watch | None, tuple[GuardName, ...]]:
        """How the request is watched for features, and this guard if it cannot be."""
        if self._features is None:
            actives = policy.targets.values()
            skilled = any(one.target.spec.kind is TargetKind.SKILL and one.mode is Mode.ENFORCE for one in actives)
            return None, (GuardName.FEATURES,) if skilled else ()
        try:
            return await self._features.watch(policy), ()
        except Exception:
            logger.exception("Features cannot be watched")
            return None, (GuardName.FEATURES,)

    async def _always(self, request: GuardedRequest, policy: TenantPolicy) -> Controls:
        """What the worker part does to every request of a tenant, flagged or not."""
        controls, by_action = Controls(), dict[str, list[ForgetTarget]]()
        for active in self._service.detection.reach(policy).always:
            by_action.setdefault(active.action, []).append(active.target)
        for action, targets in by_action.items():
            intervention = self._interventions.get(action)
            if not isinstance(intervention, InModelIntervention):
                continue  # refusing every request is nobody's wish; it stays gated
            try:
                controls |= await intervention.controls(request, tuple(targets), Gating.ALWAYS)
            except UnpreparedError as error:
                logger.warning_once("%s cannot hold for all requests: %s", action, str(error))
        return controls

    async def _harmless_part(self, request: GuardedRequest, plan: Plan, policy: TenantPolicy) -> GuardedRequest | None:
        """What of a flagged request can be served to this tenant as it is; see :mod:`guard.partial`."""
        suspected = {finding.key for finding in plan.findings}

        async def harmless(texts: Sequence[str], runs: Sequence[str]) -> bool | None:
            verdict = await self._service.detection.judge(policy, texts, runs, suspected=suspected)
            return None if verdict.unavailable else decide(verdict, policy).action is None

        prompt = await harmless_part(request, lambda text: harmless([text], [text]))
        if prompt is None:
            return None
        part = self._read(prompt, request.params, request.request_id, request.options)
        if not await harmless(part.view.texts, part.view.runs):
            return None
        return replace(part, controls=await self._always(part, policy))

    async def _enforced(
        self, request: GuardedRequest, plan: Plan, policy: TenantPolicy, serve: Serve
    ) -> AsyncGenerator[RequestOutput, None]:
        """Serve under the plan; an intervention that fails before its first word is replaced by a refusal."""
        service, started, served = self._service, False, self._anew(request, policy, serve)
        targets = tuple(service.targets_of(plan))
        refusal = self._interventions[REFUSE]
        chosen = self._interventions.get(plan.action or "", refusal)
        try:
            async for result in chosen.serve(request, targets, policy, served):
                started = True
                yield result
        except Exception as error:
            if started or chosen is refusal:
                raise
            if isinstance(error, UnpreparedError):
                logger.warning("Refusing instead of %s: %s", plan.action, error)
            else:
                logger.exception("Intervention %s failed; refusing instead", plan.action)
            async for result in refusal.serve(request, targets, policy, served):
                yield result

    def _anew(self, request: GuardedRequest, policy: TenantPolicy, serve: Serve) -> Serve:
        """``serve``, so that what is done to every request is done to a prompt that was changed, as it then stands."""

        async def served(changed: GuardedRequest) -> AsyncGenerator[RequestOutput, None]:
            if changed.prompt is not request.prompt and changed.controls != Controls():
                anew = self._read(changed.prompt, changed.params, changed.request_id, changed.options)
                changed = replace(changed, controls=await self._always(anew, policy))
            async with contextlib.aclosing(serve(changed)) as results:
                async for result in results:
                    yield result

        return served


def _salted(prompt: Mapping[str, Any], *salts: str) -> Mapping[str, Any]:
    """``prompt``, so that it shares cached prefixes only with those that have the same salts too."""
    return {**prompt, "cache_salt": ":".join((*salts, prompt.get("cache_salt") or ""))}


def _answers_itself(plan: Plan) -> bool:
    """Whether the model answers as if it did not know, and may well repeat what it was asked about."""
    return issubclass(INTERVENTIONS.get(plan.action or REFUSE, Refusal), InModelIntervention)


def _means(engine: EngineClient, service: GuardService, autoencoder: SparseAutoencoder | None) -> Means:
    """What interventions may work with; without Lethe's worker part, those inside the model cannot."""
    protected, scores = service.detection.protected, service.detection.scores
    if engine.vllm_config.parallel_config.worker_cls not in WORKERS:
        return Means(service.refusal, protected=protected)
    probe = EngineProbe(engine)
    return Means(service.refusal, Artifacts(service.store, probe.model), probe, protected, scores, autoencoder)


def _reasoning_parser(engine: EngineClient, tokenizer: Any) -> Any | None:
    config = engine.vllm_config.structured_outputs_config
    if not config.reasoning_parser:
        return None
    return ReasoningParserManager.get_reasoning_parser(config.reasoning_parser)(tokenizer)


async def _first_of(results: AsyncIterator[RequestOutput]) -> tuple[RequestOutput | None, float]:
    """The first output and when it was there."""
    return await anext(results, None), time.perf_counter()


async def _resumed(
    first: asyncio.Future[tuple[RequestOutput | None, float]], rest: AsyncIterator[RequestOutput], judged: float
) -> AsyncIterator[RequestOutput]:
    """The whole stream again, its first output included, once the verdict has let it go."""
    result, ready = await first
    metrics.HOLD_SECONDS.observe(max(judged - ready, 0.0))
    if result is None:
        return
    yield result
    async for result in rest:
        yield result


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it is gone; its own errors are of no interest any more."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
