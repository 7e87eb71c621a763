"""Everything behind the door, put together: registry, detection, policy, interventions, audit."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from classifiers.detector import TextDetector
from classifiers.phrase_matcher import Match
from classifiers.results import Hit
from guard import metrics, policy
from guard.audit import AuditLog, audit_entry
from guard.caller import Caller
from guard.detection import Detection
from guard.interventions import DEFAULT_REFUSAL, INTERVENTIONS, STRICTNESS
from guard.policy import Defaults
from guard.prompt import PromptView, Segment
from guard.registry import Registry
from guard.statements import statement_rule, tells
from guard.store import Store
from guard.types import (
    CheckResult,
    Finding,
    ForgetTarget,
    GuardName,
    Mode,
    Plan,
    TenantPolicy,
    Verdict,
)


class GuardService:
    """The control plane and the detectors of one process. Build it with :meth:`open`, end it with :meth:`close`.

    ``admin_key`` is the key that was generated at this start, if one was; it cannot be seen again.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        detection: Detection,
        audit: AuditLog,
        refusal: str,
        admin_key: str | None,
    ) -> None:
        self.store = store
        self.registry = registry
        self.detection = detection
        self.audit = audit
        self.admin_key = admin_key
        self.refusal = refusal

    @classmethod
    def open(
        cls,
        *,
        database_url: str | None = None,
        admin_key: str | None = None,
        encoder: str | Path | None = None,
        false_alarm_rate: float = 0.001,
        default_action: str = policy.REFUSE,
        refusal: str = DEFAULT_REFUSAL,
        poll_interval: float = 0.25,
        audit_retention_days: int | None = None,
    ) -> GuardService:
        """Open the database, load the encoder and index all targets. Blocking.

        Args:
            database_url: ``sqlite:///FILE`` or ``postgresql+psycopg://...``; None for a file in the user's data folder.
            admin_key: replaces the one given so at an earlier start; None keeps what there is or makes one.
            encoder: a sentence-transformers folder; None for the packaged MiniLM.
            false_alarm_rate: what each target's threshold is calibrated to, as a share of benign prompts.
            default_action: what the action ``auto`` means.
            refusal: what ``refuse`` says, unless the tenant has its own words.
            poll_interval: seconds between looks at the database for changes made by other processes.
            audit_retention_days: how long the audit is kept; None for ever.

        Raises:
            StoreError: the URL names another kind of database.
            ValueError: ``default_action`` is not an intervention.
        """
        if default_action not in INTERVENTIONS:
            raise ValueError(f"default_action must be one of {', '.join(INTERVENTIONS)}, not {default_action!r}")
        store = Store.open(database_url)
        detector = TextDetector(encoder, false_alarm_rate=false_alarm_rate)
        detector.bank  # noqa: B018 encodes the calibration prompts now, not while the first registration waits
        detection = Detection(detector, store)
        defaults = Defaults(action=default_action, strictness=STRICTNESS)
        registry = Registry(store, detection.prepare, defaults=defaults, poll_interval=poll_interval)
        generated = registry.bootstrap(admin_key)
        registry.start()
        audit = AuditLog(store, retention_days=audit_retention_days)
        return cls(store, registry, detection, audit, refusal, generated)

    def close(self) -> None:
        """Flush the audit and stop following the database."""
        self.audit.close()  # first: what waits to be written is lost if closing is cut short
        self.registry.close()
        self.detection.close()
        self.store.close()

    def policy_of(self, caller: Caller) -> TenantPolicy:
        """The policy that holds for a caller now.

        Raises:
            KeyError: the tenant was deleted since it was authenticated.
        """
        return self.registry.snapshot.policies[caller.tenant_id]

    def decide(self, verdict: Verdict, policy_: TenantPolicy) -> Plan:
        """What to do with a request. See :func:`guard.policy.decide`."""
        return policy.decide(verdict, policy_, self.registry.defaults.strictness)

    def count(self, plan: Plan, policy_: TenantPolicy) -> None:
        """Count in the metrics how a request is served."""
        metrics.REQUESTS.labels(action=plan.action or "pass").inc()
        for finding in plan.findings:
            metrics.VERDICTS.labels(guard=finding.guard, action=plan.action, mode=Mode.ENFORCE).inc()
        for finding in plan.monitored:
            metrics.VERDICTS.labels(guard=finding.guard, action="none", mode=Mode.MONITOR).inc()
        for guard in plan.unavailable:
            metrics.UNAVAILABLE.labels(guard=guard, on_error=policy_.guards[guard].on_error).inc()

    def targets_of(self, plan: Plan) -> Iterator[ForgetTarget]:
        """The targets that a plan acts on."""
        for key in dict.fromkeys(finding.key for finding in plan.findings):
            target = self.detection.target(key)
            if target is not None:
                yield target

    def refusal_text(self, policy_: TenantPolicy) -> str:
        """What is said to a tenant instead of an answer."""
        return policy_.tenant.spec.refusal or self.refusal

    async def check(self, policy_: TenantPolicy, segments: Sequence[str], completion: str | None = None) -> CheckResult:
        """The verdict on a conversation, and on a given answer to it, without generating.

        Args:
            policy_: of the tenant on whose behalf to judge.
            segments: one text per message.
            completion: what the model might have answered.
        """
        began = time.perf_counter()
        verdict = await self.detection.judge(policy_, segments, segments)
        blocked = False
        if completion is not None and policy_.guards[GuardName.LEAK].enabled:
            blocked = self.detection.leaks(completion, policy_)
        unavailable: set[GuardName] = set()
        rule = statement_rule(self.detection, policy_, failed=lambda: unavailable.add(GuardName.STATEMENTS))
        if completion is not None and not blocked and rule is not None:
            view = PromptView(tuple(Segment(segment, 0, 0) for segment in segments), (), "")
            blocked = await tells(rule, view, completion)
            verdict = replace(verdict, unavailable=(*verdict.unavailable, *unavailable))
        return CheckResult(verdict, blocked, (time.perf_counter() - began) * 1000)

    def record(
        self,
        request_id: str,
        caller: Caller,
        policy_: TenantPolicy,
        view: PromptView,
        verdict: Verdict,
        plan: Plan,
        leaks: Sequence[tuple[Match | Hit | Finding, bool]],
        seconds: float,
        unavailable: Collection[GuardName] = (),
    ) -> None:
        """Write the audit entry of a request on which any guard acted, saw something, or could not judge.

        Args:
            request_id: of the request.
            caller: who sent it.
            policy_: of its tenant.
            view: its prompt.
            verdict: on the prompt.
            plan: what was done because of it.
            leaks: what was found in the output, and whether it was kept in.
            seconds: how long everything took.
            unavailable: guards that could not judge the output.
        """
        cut = tuple(self._found(found) for found, was_cut in leaks if was_cut)
        seen = tuple(self._found(found) for found, was_cut in leaks if not was_cut)
        for finding in cut:
            metrics.VERDICTS.labels(guard=finding.guard, action=policy.REFUSE, mode=Mode.ENFORCE).inc()
        for finding in seen:
            metrics.VERDICTS.labels(guard=finding.guard, action="none", mode=Mode.MONITOR).inc()
        for guard in unavailable:
            metrics.UNAVAILABLE.labels(guard=guard, on_error=policy_.guards[guard].on_error).inc()
        done = replace(
            plan,
            action=plan.action or (policy.REFUSE if cut else None),
            findings=plan.findings + cut,
            monitored=plan.monitored + seen,
            unavailable=(*plan.unavailable, *unavailable),
        )
        if not (done.findings or done.monitored or done.unavailable):
            return
        entry = audit_entry(
            request_id=request_id,
            caller=caller,
            policy=policy_,
            plan=done,
            prompt="\n".join(view.texts),
            detector_ms=verdict.detector_ms,
            total_ms=seconds * 1000,
        )
        self.audit.record(entry)

    def _found(self, found: Match | Hit | Finding) -> Finding:
        """What was found in an output."""
        if isinstance(found, Finding):
            return found
        if isinstance(found, Match):
            found = Hit(found.key, GuardName.LEAK, 1.0, 1.0, found.phrase, found.phrase)
        target = self.detection.target(found.key)
        target_id, _, revision = found.key.rpartition("@")
        return Finding(
            target_id=target.id if target else target_id,
            revision=target.revision if target else int(revision),
            guard=GuardName(found.guard),
            score=found.score,
            threshold=found.threshold,
            window=found.window,
            evidence=found.evidence,
        )
