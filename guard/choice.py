"""What the action ``auto`` means: for targets that were appraised, what was chosen for them."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from guard.artifacts import Artifacts
from guard.interventions import INTERVENTIONS, STRICTNESS
from guard.policy import AUTO, choose
from guard.types import TenantPolicy

logger = logging.getLogger(__name__)


class Choices:
    """Puts what was chosen (:mod:`guard.compile.appraisal`) into policies."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._applied: dict[str, tuple[TenantPolicy, float, TenantPolicy]] = {}  # by tenant id

    async def applied(self, policy: TenantPolicy) -> TenantPolicy:
        """``policy``, or what it is with the choices for its ``auto`` targets.

        Where they cannot be read, ``auto`` is the server's default.
        """
        known = self._applied.get(policy.tenant.id)
        if known is not None and known[0] is policy and self._artifacts.still_hold(known[1]):
            return known[2]
        now = time.monotonic()
        wanted = [active.target for active in policy.targets.values() if active.auto]
        try:
            found = await self._artifacts.fitted(wanted, AUTO) if wanted else {}
        except Exception:
            logger.exception("What was chosen for targets cannot be read; their action is the default one")
            return policy
        actions = {key: str(one.settings["action"]) for key, one in found.items()}
        changed = {
            key: choose(policy.targets[key], action, STRICTNESS)
            for key, action in actions.items()
            if action in INTERVENTIONS
        }
        resolved = replace(policy, targets={**policy.targets, **changed}) if changed else policy
        if known is not None and known[0] is policy and known[2] == resolved:
            resolved = known[2]  # what others keep by the identity of the policy stays good
        self._applied[policy.tenant.id] = (policy, now, resolved)
        return resolved
