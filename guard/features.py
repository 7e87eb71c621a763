"""The ``features`` guard: what the model's own features say of a request, read in the very pass that serves it.

Every target of a tenant that has fitted features (:mod:`guard.compile.features`) is watched for. Where the target's
action is ``clamp``, the features are clamped in the same pass in which their rule says yes; any other action follows
as it does after a finding in the text.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vllm.sampling_params import RequestOutputKind

from guard.artifacts import Artifacts
from guard.interventions.clamping import FITTED, Clamp, load_features
from guard.outputs import GuardedRequest
from guard.probe import Probe
from guard.types import ActiveTarget, Finding, ForgetTarget, GuardName, GuardToggle, Mode, Plan, TenantPolicy, Verdict
from guard.worker.controls import Controls, Features, Told

logger = logging.getLogger(__name__)

#: Seconds after which it is looked up again what another process fitted for a tenant's targets.
_LOOK_AGAIN = 1.0
#: Seconds between questions for a verdict where the first output is the last; doubled up to the second number.
_POLL, _SLOWEST_POLL = 0.02, 0.5


@dataclass(frozen=True, slots=True)
class Watch:
    """One request that is watched.

    Attributes:
        targets: by the name of their feature sets.
        clamped: names of those that are clamped in the same pass.
    """

    ticket: str
    targets: Mapping[str, ForgetTarget]
    clamped: frozenset[str]

    def on(self, request: GuardedRequest) -> GuardedRequest:
        """``request``, watched."""
        features = Features(watch=tuple(self.targets), clamp=tuple(sorted(self.clamped)), ticket=self.ticket)
        return replace(request, controls=request.controls | Controls(features=features))


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of one request.

    Attributes:
        verdict: with the findings on the text.
        done: keys of the targets that are clamped in it from its first token on.
    """

    verdict: Verdict
    done: frozenset[str] = frozenset()

    def carries_out(self, plan: Plan) -> bool:
        """Whether what ``plan`` asks for happens already, so that the request may go on as it is."""
        keys = {f"{finding.target_id}@{finding.revision}" for finding in plan.findings}
        return plan.action == Clamp.name and bool(keys) and keys <= self.done


class FeatureGuard:
    """Says what is watched for, and fetches the verdicts."""

    def __init__(self, artifacts: Artifacts, probe: Probe) -> None:
        self._artifacts = artifacts
        self._probe = probe
        self._sets: dict[str, tuple[TenantPolicy, float, Mapping[str, ActiveTarget]]] = {}  # by tenant id
        self._asked: dict[str, asyncio.Future[dict[str, Told] | None]] = {}  # by ticket
        self._fetching: asyncio.Task[None] | None = None

    async def watch(self, policy: TenantPolicy) -> Watch | None:
        """How a request of a tenant is watched; None where nothing is.

        Raises:
            Exception: features cannot be read or loaded.
        """
        if not policy.guards[GuardName.FEATURES].enabled or not policy.targets:
            return None
        sets = await self._sets_of(policy)
        if not sets:
            return None
        clamped = (n for n, one in sets.items() if one.action == Clamp.name and one.mode is Mode.ENFORCE)
        targets = {name: one.target for name, one in sets.items()}
        return Watch(secrets.token_hex(12), targets, frozenset(clamped))

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
            unavailable = sorted({*verdict.unavailable, GuardName.FEATURES})
            return Sight(replace(verdict, unavailable=tuple(unavailable)))
        flagged = {name: one for name, one in told.items() if one.flagged}
        found = (_finding(watch.targets[name], one) for name, one in flagged.items())
        return Sight(
            replace(verdict, findings=(*verdict.findings, *found)),
            # A rule that said yes in a later pass came too late for what the passes before left behind.
            frozenset(watch.targets[name].key for name in watch.clamped & flagged.keys() if flagged[name].since == 0),
        )

    async def _sets_of(self, policy: TenantPolicy) -> Mapping[str, ActiveTarget]:
        """The active targets that have features, by the names under which those are loaded."""
        known, now = self._sets.get(policy.tenant.id), time.monotonic()
        if known is not None and known[0] is policy and known[1] > max(now - _LOOK_AGAIN, self._artifacts.changed):
            return known[2]
        actives = list(policy.targets.values())
        fitted = await self._artifacts.fitted([active.target for active in actives], FITTED)
        sets = {}
        for active in actives:
            artifact = fitted.get(active.target.key)
            if artifact is not None:
                sets[await load_features(self._probe, artifact)] = active
        self._sets[policy.tenant.id] = (policy, now, sets)
        return sets

    async def _told(
        self, ticket: str, request: GuardedRequest, deadline: float, first: asyncio.Future[Any]
    ) -> dict[str, Told] | None:
        # The first output of a request that does not stream is its last: it must not be waited for.
        wait = _POLL if request.params.output_kind is RequestOutputKind.FINAL_ONLY else None
        while True:
            await asyncio.wait({first}, timeout=wait)
            ended = first.done()
            told = await asyncio.wait_for(self._ask(ticket), deadline)
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


def _finding(target: ForgetTarget, told: Told) -> Finding:
    """A flagged target. The score is the logistic function of how far the limit was exceeded."""
    margin = max(0.0, told.mean - told.limit)  # a request may fall below the limit again after it was flagged
    return Finding(
        target_id=target.id,
        revision=target.revision,
        guard=GuardName.FEATURES,
        score=1 / (1 + math.exp(-margin)),
        threshold=0.5,
        window="",
        evidence=f"features of the residual stream: {told.mean:.3g} where {told.limit:.3g} is the limit",
    )
