"""``constrain``: the model answers, but the tokens that would complete a protected phrase are never chosen.

The idea is GUARD's (arXiv 2505.13312): what a prompt was flagged for must not be said, partial matches are penalised
and whole ones forbidden. Its beam search and its sentence encoder at every step are not needed: the automaton of
:mod:`guard.decoding` is exact, and the leak guard stays behind it.
"""

from __future__ import annotations

from guard.interventions.base import InModelIntervention, Means, UnpreparedError
from guard.outputs import GuardedRequest
from guard.types import ForgetTarget, Gating
from guard.worker.controls import Constraint, Controls

#: Logits taken off a token that carries a protected phrase on, times the share of the phrase that it reaches.
#: Requests that were not flagged get none: they must stay as they are where nothing is completed.
_PENALTY = 2.0


class Constrain(InModelIntervention):
    """The answer is given without the target's names and without the answers of its examples and documents."""

    name = "constrain"
    strictness = 50

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._sets: dict[tuple[str, Gating], str] = {}  # by target key: a request must not pay for its phrases

    async def controls(self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], gating: Gating) -> Controls:
        """See :meth:`InModelIntervention.controls`; a flagged request for ``prompt_logprobs`` is refused."""
        if gating is Gating.GATED and request.params.prompt_logprobs is not None:
            raise UnpreparedError("constrain acts on what is said, and the client reads what could come in the prompt")
        sets = [await self._set(target, gating) for target in targets]
        penalty = _PENALTY if gating is Gating.GATED else 0.0
        return Controls(constraint=Constraint(tuple(sets), request.view.tail, penalty))

    async def _set(self, target: ForgetTarget, gating: Gating) -> str:
        probe, protected = self.means.probe, self.means.protected
        if probe is None or protected is None:
            raise UnpreparedError("the engine runs without Lethe's worker part")
        name = self._sets.get((target.key, gating))
        if name is None or not probe.holds(name):
            if not (phrases := protected(target, gating)):
                raise UnpreparedError(f"nothing is known of target {target.id} that could be forbidden")
            name = self._sets[target.key, gating] = await probe.load_phrases(phrases)
        return name
