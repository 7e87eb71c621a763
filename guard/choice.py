"""What the action ``auto`` means: for targets that were appraised, what was chosen for them."""

from __future__ import annotations

import logging
from dataclasses import replace

from guard.artifacts import Artifacts
from guard.interventions import INTERVENTIONS, STRICTNESS
from guard.per_policy import PerPolicy
from guard.policy import AUTO, choose
from guard.types import TenantPolicy

logger = logging.getLogger(__name__)


class Choices:
    """Puts what was chosen (:mod:`guard.compile.appraisal`) into policies."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._applied = PerPolicy(artifacts, self._apply)

    async def applied(self, policy: TenantPolicy) -> TenantPolicy:
        """``policy``, or what it is with the choices for its ``auto`` targets.

        Where they could not be read yet, ``auto`` is the server's default.
        """
        try:
            return await self._applied.of(policy)
        except Exception:
            logger.exception("What was chosen for targets cannot be read; their action is the default one")
            return policy

    async def _apply(self, policy: TenantPolicy, before: TenantPolicy | None) -> TenantPolicy:
        wanted = [active.target for active in policy.targets.values() if active.auto]
        found = await self._artifacts.fitted(wanted, AUTO) if wanted else {}
        actions = {key: str(one.settings["action"]) for key, one in found.items()}
        changed = {
            key: choose(policy.targets[key], action, STRICTNESS)
            for key, action in actions.items()
            if action in INTERVENTIONS
        }
        resolved = replace(policy, targets={**policy.targets, **changed}) if changed else policy
        # What others keep by the identity of the policy stays good.
        return before if before is not None and before == resolved else resolved
