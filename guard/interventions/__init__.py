"""The ways of enforcing forgetting, by name. A new one is a new file and one more line here."""

from guard.interventions.base import InModelIntervention, Intervention, Means, Serve, UnpreparedError
from guard.interventions.clamping import Clamp
from guard.interventions.corruption import Eco
from guard.interventions.decoding import Constrain
from guard.interventions.prefix import Prefix
from guard.interventions.redirection import Concept, Lunar, Rocr
from guard.interventions.refusal import DEFAULT_REFUSAL, Refusal

__all__ = [
    "DEFAULT_REFUSAL",
    "INTERVENTIONS",
    "STRICTNESS",
    "InModelIntervention",
    "Intervention",
    "Means",
    "Refusal",
    "Serve",
    "UnpreparedError",
]

INTERVENTIONS: dict[str, type[Intervention]] = {
    kind.name: kind for kind in (Clamp, Concept, Constrain, Eco, Lunar, Prefix, Refusal, Rocr)
}

#: How strict each is, for :mod:`guard.policy`.
STRICTNESS = {name: kind.strictness for name, kind in INTERVENTIONS.items()}
