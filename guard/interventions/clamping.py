"""``clamp``: the target's sparse features are set to a negative value wherever they fire (DSG; arXiv 2504.08192).

For a request that the ``features`` guard flags this happens in the same pass, see :mod:`guard.features`; what stands
here serves requests that were flagged otherwise or too late, and those that are always clamped.
"""

from __future__ import annotations

from guard.interventions.base import InModelIntervention, UnpreparedError
from guard.outputs import GuardedRequest
from guard.types import ForgetTarget, Gating
from guard.worker.controls import Controls, Features
from sae_features.target import TargetFeatures

#: The name under which features are fitted; the guard of that name needs them too, whatever the action.
FITTED = "features"


class Clamp(InModelIntervention):
    """The features that speak of the target are turned against it."""

    name = "clamp"
    strictness = 25

    async def controls(self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], gating: Gating) -> Controls:
        """See :meth:`InModelIntervention.controls`."""
        return Controls(features=Features(always=tuple([await self._loaded(target) for target in targets])))

    async def _loaded(self, target: ForgetTarget) -> str:
        artifacts, probe = self.means.artifacts, self.means.probe
        if artifacts is None or probe is None:
            raise UnpreparedError("the engine runs without Lethe's worker part")
        artifact = await artifacts.get(target, FITTED)
        if artifact is None:
            raise UnpreparedError(f"target {target.id} is not compiled for {FITTED}")
        return await probe.load_features(TargetFeatures.of(artifact.tensors))
