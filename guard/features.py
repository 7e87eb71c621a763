"""The ``features`` guard: what the model's own features say of a request, read in the very pass that serves it.

Every target of a tenant that has fitted features (:mod:`guard.compile.features`) is watched for. Where the target's
action is ``clamp``, the features are clamped in the same pass in which their rule says yes; any other action follows
as it does after a finding in the text. Where the text is judged too, the two are joined to one decision
(:mod:`sae_features.joint`): a request that was clamped for what it is not about is served again as it came. A target
that is a skill is watched for by its keys (:mod:`guard.compile.skills`) and by nothing else; one that was not fitted
cannot be judged.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vllm.sampling_params import RequestOutputKind

from guard.artifacts import Artifacts
from guard.interventions.clamping import FITTED, Clamp
from guard.outputs import GuardedRequest
from guard.per_policy import PerPolicy
from guard.probe import Probe
from guard.prompt import opening
from guard.types import (
    ActiveTarget,
    Finding,
    ForgetTarget,
    GuardName,
    GuardToggle,
    Mode,
    Plan,
    TargetKind,
    TenantPolicy,
    Verdict,
)
from guard.worker.controls import Controls, Features, Told
from sae_features.joint import Joint
from sae_features.skills import SkillKeys
from sae_features.target import TargetFeatures

logger = logging.getLogger(__name__)

#: The name under which the keys of a skill are fitted.
SKILL = "skill"
#: Seconds between questions for a verdict where the first output is the last; doubled up to the second number.
_POLL, _SLOWEST_POLL = 0.02, 0.5


@dataclass(frozen=True, slots=True)
class Watch:
    """One request that is watched.

    Attributes:
        targets: by the name of their feature sets or keys.
        clamped: names of those that are clamped in the same pass.
        unfitted: whether the tenant has a skill on that was not fitted, so that it cannot be judged.
        joint: by name, the decisions that need the text's score too.
    """

    ticket: str
    targets: Mapping[str, ForgetTarget]
    clamped: frozenset[str]
    unfitted: bool = False
    joint: Mapping[str, Joint] = field(default_factory=dict)

    @property
    def scored(self) -> frozenset[str]:
        """Keys of the targets of which the text's score is needed, however low."""
        return frozenset(self.targets[name].key for name in self.joint)

    def cleared(self) -> Watch:
        """How a request is watched that turned out to be about none of the joint decisions' targets."""
        targets = {name: target for name, target in self.targets.items() if name not in self.joint}
        return Watch(secrets.token_hex(12), targets, self.clamped - self.joint.keys(), self.unfitted)

    def on(self, request: GuardedRequest) -> GuardedRequest:
        """``request``, watched."""
        if not self.targets:
            return request
        skills = tuple(name for name, target in self.targets.items() if target.spec.kind is TargetKind.SKILL)
        features = Features(
            watch=tuple(name for name in self.targets if name not in skills),
            clamp=tuple(sorted(self.clamped)),
            ticket=self.ticket,
            skills=skills,
            opening=opening(request.view, len(request.token_ids)) if skills else 0,
            once=tuple(self.joint),  # nobody judges the text of an answer together with its features
        )
        return replace(request, controls=request.controls | Controls(features=features))


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of one request.

    Attributes:
        verdict: with the findings on the text.
        done: keys of the targets that are clamped in it from its first token on.
        spoilt: whether it is clamped for a target that it is not about after all.
    """

    verdict: Verdict
    done: frozenset[str] = frozenset()
    spoilt: bool = False

    def carries_out(self, plan: Plan) -> bool:
        """Whether what ``plan`` asks for happens already, so that the request may go on as it is."""
        if self.spoilt:
            return False
        if plan.action is None:
            return True
        keys = {finding.key for finding in plan.findings}
        return plan.action == Clamp.name and bool(keys) and keys <= self.done


@dataclass(frozen=True, slots=True)
class _Sets:
    """What a tenant is watched for.

    Attributes:
        targets: the active targets that have features or keys, by the names under which those are loaded.
        joint: the joint decisions, by the same names.
        unfitted: whether there is a skill without keys.
    """

    targets: Mapping[str, ActiveTarget]
    joint: Mapping[str, Joint]
    unfitted: bool


class FeatureGuard:
    """Says what is watched for, and fetches the verdicts."""

    def __init__(self, artifacts: Artifacts, probe: Probe) -> None:
        self._artifacts = artifacts
        self._probe = probe
        self._sets = PerPolicy(artifacts, self._loaded)
        self._asked: dict[str, asyncio.Future[dict[str, Told] | None]] = {}  # by ticket
        self._fetching: asyncio.Task[None] | None = None

    async def watch(self, policy: TenantPolicy) -> Watch | None:
        """How a request of a tenant is watched; None where nothing is.

        Raises:
            Exception: features cannot be read or loaded.
        """
        if not policy.guards[GuardName.FEATURES].enabled or not policy.targets:
            return None
        known = await self._sets.of(policy)
        sets = known.targets
        if not sets and not known.unfitted:
            return None
        clamped = (
            name
            for name, one in sets.items()
            if one.action == Clamp.name and one.mode is Mode.ENFORCE and one.target.spec.kind is not TargetKind.SKILL
        )
        targets = {name: one.target for name, one in sets.items()}
        text = policy.guards[GuardName.LEXICON].enabled and policy.guards[GuardName.SEMANTIC].enabled
        joint = known.joint if text else {}
        return Watch(secrets.token_hex(12), targets, frozenset(clamped), known.unfitted, joint)

    async def judge(
        self, watch: Watch, verdict: Verdict, request: GuardedRequest, toggle: GuardToggle, first: asyncio.Future[Any]
    ) -> Sight:
        """The verdict on a watched request, once its prompt has been read.

        Args:
            watch: of the request.
            verdict: on its text.
            request: as the client sent it.
            toggle: how the tenant uses this guard.
            first: becomes done with the first output.
        """
        if watch.unfitted:
            verdict = _unavailable(verdict)
        if not watch.targets:
            return Sight(verdict)
        began = time.perf_counter()
        try:
            told = await self._told(watch.ticket, request, toggle.deadline_ms / 1000, first)
        except Exception as error:
            logger.error("The features of a request could not be judged: %r", error)
            told = None
        if first.done() and (first.cancelled() or first.exception() is not None):
            return Sight(verdict)  # there is no answer to guard; its error goes to the client
        verdict = replace(verdict, detector_ms=verdict.detector_ms + (time.perf_counter() - began) * 1000)
        if told is None:
            return Sight(_unavailable(verdict))
        said = {finding.key: finding for finding in verdict.findings}
        textual = {GuardName.LEXICON, GuardName.SEMANTIC}.isdisjoint(verdict.unavailable)
        found = {}
        for name, one in told.items():
            target, joint = watch.targets[name], watch.joint.get(name) if textual else None
            text = said.get(target.key)
            if joint is not None:
                finding = _joined(target, text, one, joint)
            else:
                finding = _alone(target, one) if one.flagged else None
            if finding is not None:
                found[name] = finding
        about = found.keys() | {
            name for name, one in watch.targets.items() if one.key in said and said[one.key].flagged
        }
        acted = {name for name in watch.clamped if told[name].flagged}
        # A rule that said yes in a later pass came too late for what the passes before left behind; and of several
        # choices, of which each reads the prompt by itself, the verdict is of those that were read first.
        held = {name for name in acted & about if told[name].since == 0} if request.params.n == 1 else set()
        done = frozenset(watch.targets[name].key for name in held)
        findings = (*verdict.findings, *found.values())
        return Sight(replace(verdict, findings=findings), done, spoilt=bool(acted - about))

    async def _loaded(self, policy: TenantPolicy, before: _Sets | None) -> _Sets:
        """The active targets that have features or keys, loaded."""
        skills: list[ActiveTarget] = []
        others: list[ActiveTarget] = []
        for active in policy.targets.values():
            (skills if active.target.spec.kind is TargetKind.SKILL else others).append(active)
        sets, joint, unfitted = {}, {}, []
        fitted = await self._artifacts.fitted([active.target for active in others], FITTED)
        for active in others:
            if (artifact := fitted.get(active.target.key)) is not None:
                features = TargetFeatures.of(artifact.tensors)
                name = await self._probe.load_features(features)
                sets[name] = active
                if features.joint is not None:
                    joint[name] = features.joint
        if skills:
            fitted = await self._artifacts.fitted([active.target for active in skills], SKILL)
        for active in skills:
            if (artifact := fitted.get(active.target.key)) is not None:
                sets[await self._probe.load_skill(SkillKeys.of(artifact.tensors))] = active
            elif active.mode is Mode.ENFORCE:
                unfitted.append(active.target.id)
        if unfitted and before is None:
            logger.warning("Skills that are on but not compiled cannot be judged: %s", ", ".join(unfitted))
        return _Sets(sets, joint, bool(unfitted))

    async def _told(
        self, ticket: str, request: GuardedRequest, deadline: float, first: asyncio.Future[Any]
    ) -> dict[str, Told] | None:
        """The verdict, fetched within ``deadline`` seconds, but for the engine's own steps.

        The engine answers between two steps only, and a step of many prompt tokens may take longer than any deadline:
        so none counts before the first output, and after it one more step may last as long as that took.
        """
        began = time.perf_counter()
        # The first output of a request that does not stream is its last: it must not be waited for.
        wait = _POLL if request.params.output_kind is RequestOutputKind.FINAL_ONLY else None
        while True:
            await asyncio.wait({first}, timeout=wait)
            ended = first.done()
            ask = asyncio.ensure_future(self._ask(ticket))
            try:
                await asyncio.wait({first, ask}, return_when=asyncio.FIRST_COMPLETED)
                told = await asyncio.wait_for(ask, deadline + time.perf_counter() - began)
            finally:
                ask.cancel()
            if told is not None or ended:
                return told
            wait = min(2 * (wait or _POLL), _SLOWEST_POLL)

    async def _ask(self, ticket: str) -> dict[str, Told] | None:
        """One verdict; those asked for while others are being fetched are fetched together."""
        asked = self._asked[ticket] = asyncio.get_running_loop().create_future()
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch(), name="lethe-verdicts")
        return await asked

    async def _fetch(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                told = await self._probe.verdicts(list(asked))
            except Exception as error:
                for future in asked.values():
                    if not future.done():
                        future.set_exception(error)
                continue
            for future, one in zip(asked.values(), told, strict=True):
                if not future.done():
                    future.set_result(one)


def _unavailable(verdict: Verdict) -> Verdict:
    return replace(verdict, unavailable=tuple(sorted({*verdict.unavailable, GuardName.FEATURES})))


def _joined(target: ForgetTarget, text: Finding | None, told: Told, joint: Joint) -> Finding | None:
    """The finding of text and features together; None where the request is not about the target."""
    margin, score = told.mean - told.limit, 0.0 if text is None else text.score
    beyond = float(joint.beyond([score], [margin], 1.0 if text is None else text.threshold)[0])
    if beyond <= 0:
        return None
    evidence = f"text ({score:.3g}) and features of the residual stream ({margin:+.3g}) together"
    return _finding(target, beyond, evidence, "" if text is None else text.window)


def _alone(target: ForgetTarget, told: Told) -> Finding:
    """The finding of features, or of a skill's key, that flagged a request by their own limit."""
    margin = max(0.0, told.mean - told.limit)  # a request may fall below the limit again after it was flagged
    read = "the MLP's key" if target.spec.kind is TargetKind.SKILL else "features of the residual stream"
    return _finding(target, margin, f"{read}: {told.mean:.3g} where {told.limit:.3g} is the limit")


def _finding(target: ForgetTarget, beyond: float, evidence: str, window: str = "") -> Finding:
    """A flagged target. The score is the logistic function of how far the limit was exceeded."""
    return Finding(
        target_id=target.id,
        revision=target.revision,
        guard=GuardName.FEATURES,
        score=1 / (1 + math.exp(-beyond)),
        threshold=0.5,
        window=window,
        evidence=evidence,
    )
