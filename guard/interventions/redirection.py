"""``lunar``, ``rocr`` and ``concept``: rank-one edits that hold for one request, or for all of a tenant's.

What is fitted, and by which formula, is in :mod:`guard.methods`; fitting is a compile job (:mod:`guard.compile`).
"""

from __future__ import annotations

from typing import ClassVar

from vllm.logger import init_logger
from vllm.sampling_params import SamplingParams

from guard.interventions.base import InModelIntervention, UnpreparedError
from guard.methods.edit import Edit
from guard.outputs import GuardedRequest
from guard.prompt import answer_starts
from guard.types import ForgetTarget, Gating
from guard.worker.controls import Controls

logger = init_logger(__name__)


class _Redirection(InModelIntervention):
    #: Whether the edits for flagged requests are switches; those that are always on may be in any case.
    switched: ClassVar[bool] = False

    async def controls(self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], gating: Gating) -> Controls:
        """See :meth:`InModelIntervention.controls`."""
        edits = []
        for target in targets:
            try:
                edits.append(await self._edit(target, gating))
            except UnpreparedError as error:
                if gating is Gating.GATED:
                    raise
                # What one lacks must not keep the others' from being held.
                logger.warning_once("%s cannot hold for all requests: %s", self.name, str(error))
        if not edits:
            return Controls()
        looks = self.switched or gating is Gating.ALWAYS
        starts = answer_starts(request.tokenizer, request.token_ids) if looks else None
        return Controls(edits=tuple(edits), starts=starts)

    async def _edit(self, target: ForgetTarget, gating: Gating) -> str:
        artifacts, probe = self.means.artifacts, self.means.probe
        if artifacts is None or probe is None:
            raise UnpreparedError("the engine runs without Lethe's worker part")
        artifact = await artifacts.get(target, self.name)
        if artifact is None:
            raise UnpreparedError(f"target {target.id} is not compiled for {self.name}")
        prefix = f"{gating}/"
        own = {name.removeprefix(prefix): one for name, one in artifact.tensors.items() if name.startswith(prefix)}
        if not own and any(name.startswith(f"{one}/") for name in artifact.tensors for one in Gating):
            raise UnpreparedError(f"target {target.id} has no {gating} edit; lethe target report says why")
        return await probe.load(Edit.of(own or artifact.tensors))


class Lunar(_Redirection):
    """What the model knows of a target is led to where it says that it does not know (LUNAR)."""

    name = "lunar"
    strictness = 40
    switched = True

    async def controls(self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], gating: Gating) -> Controls:
        """See :meth:`InModelIntervention.controls`; a request that is not led by how its answer begins is refused."""
        if gating is Gating.GATED and _not_led(request.params):
            raise UnpreparedError("lunar acts where an answer begins, and the client reads or decides other tokens")
        return await super().controls(request, targets, gating)


def _not_led(params: SamplingParams) -> bool:
    """Whether a client has tokens chosen, or reads them, that the first one of the answer says nothing of."""
    chosen = params.structured_outputs, params.logit_bias, params.allowed_token_ids, params.bad_words
    return any(chosen) or params.prompt_logprobs is not None or params.min_tokens > 0 or params.ignore_eos


class Rocr(_Redirection):
    """The target's name is led to that of a neutral concept that does not exist (ROCR)."""

    name = "rocr"
    strictness = 30


class Concept(_Redirection):
    """The value vectors of MLPs that speak for the target are taken out (ConceptVectors)."""

    name = "concept"
    strictness = 28
