"""The ways of enforcing forgetting, by name. A new one is a new file and one more line here."""

from guard.interventions.base import Intervention, Serve
from guard.interventions.prefix import Prefix
from guard.interventions.refusal import DEFAULT_REFUSAL, Refusal

__all__ = ["DEFAULT_REFUSAL", "INTERVENTIONS", "Intervention", "Prefix", "Refusal", "Serve"]

INTERVENTIONS: dict[str, type[Intervention]] = {kind.name: kind for kind in (Prefix, Refusal)}
