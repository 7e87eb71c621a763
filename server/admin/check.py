"""The route that gives a verdict without generating."""

from __future__ import annotations

from fastapi import APIRouter

from guard import policy
from guard.snapshot import Snapshot
from guard.store import NotFoundError
from guard.store.records import name_key
from guard.types import Finding, TenantPolicy
from server.admin.context import AdminContext
from server.admin.schemas import CheckOut, CheckRequest, FindingOut


def build(context: AdminContext) -> APIRouter:
    """The route ``/check``."""
    router = context.router("check")
    service = context.service

    @router.post("/check", summary="Judge a conversation without generating")
    async def check(request: CheckRequest) -> CheckOut:
        """What the tenant's guards say of a conversation, and whether they would let an answer to it pass."""
        tenant_policy = _policy_of(service.registry.snapshot, request.tenant)
        result = await service.check(tenant_policy, request.segments(), request.completion)
        plan = policy.decide(result.verdict, tenant_policy, service.registry.defaults.strictness)
        return CheckOut(
            flagged=plan.action is not None,
            action=plan.action,
            findings=[_finding(finding, tenant_policy) for finding in result.verdict.findings],
            completion_blocked=result.completion_blocked,
            unavailable=list(plan.unavailable),
            latency_ms=result.latency_ms,
        )

    return router


def _policy_of(snapshot: Snapshot, reference: str) -> TenantPolicy:
    """The policy of the tenant with this id or, failing that, this name: the very one that requests are served by."""
    by_id = snapshot.policies.get(reference)
    if by_id is not None:
        return by_id
    wanted = name_key(reference)
    for candidate in snapshot.policies.values():
        if name_key(candidate.tenant.spec.name) == wanted:
            return candidate
    raise NotFoundError("tenant", reference)


def _finding(finding: Finding, tenant_policy: TenantPolicy) -> FindingOut:
    active = tenant_policy.targets.get(finding.key)
    return FindingOut(
        target=finding.target_id,
        target_name=active.target.spec.name if active is not None else None,
        revision=finding.revision,
        guard=finding.guard,
        score=finding.score,
        threshold=finding.threshold,
        flagged=finding.flagged,
        window=finding.window,
        evidence=finding.evidence,
    )
