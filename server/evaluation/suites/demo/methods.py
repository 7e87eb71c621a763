"""The methods that are compared on the demo world, and how targets and tenants are made for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from guard.policy import AUTO
from server.demo.world import Entity, description, document
from server.evaluation.admin import Admin, Endpoint, admin
from server.evaluation.tofu.methods import BASELINES, NONE, Method, enable, jobs_of, tenant

#: The name under which the model that never knew them stands among the methods; nothing is switched on there.
REFERENCE = "reference"
#: ``auto`` is everything as it is by default once a target is compiled; ``refuse`` until then.
METHODS: Mapping[str, Method] = {
    NONE: Method(None),
    **BASELINES,
    "refuse": Method({"action": "refuse"}),
    "prefix": Method({"action": "prefix"}),
    "eco": Method({"action": "eco"}),
    "lunar_gated": Method({"action": "lunar"}),
    "lunar_always": Method({"action": "lunar", "gating": "always"}),
    "rocr_gated": Method({"action": "rocr"}),
    "concept_gated": Method({"action": "concept"}),
    "constrain": Method({"action": "constrain"}),
    AUTO: Method({"action": "auto"}),
}
#: Those whose forgetting could wear off as targets are added, and the choice among them.
SEQUENTIAL = ("eco", "lunar_gated", "lunar_always", AUTO)

_TENANT = "lethe-eval-demo-{}"


class Told(StrEnum):
    """What the server is told of each target beside its name; each holds what the one before does."""

    NAME = "name"
    DESCRIPTION = "description"  # one line on who it is
    DOCUMENT = "document"  # a text that states every fact


def target_of(entity: Entity, told: Told) -> dict[str, Any]:
    """The body of ``POST /targets`` for somebody."""
    body: dict[str, Any] = {"name": entity.name}
    if told is not Told.NAME:
        body["description"] = description(entity)
    if told is Told.DOCUMENT:
        body["documents"] = [document(entity)]
    return body


class Registrar:
    """Registers people one after the other, and puts them in force for a tenant of each method.

    Attributes:
        keys: the tenants' API keys, by method.
    """

    def __init__(self, api: Admin, methods: Sequence[str], told: Told) -> None:
        self._api = api
        self._told = told
        self._targets: list[str] = []
        made = {method: tenant(api, _TENANT.format(method.replace("_", "-")), METHODS[method]) for method in methods}
        self._ids = {method: str(one["id"]) for method, one in made.items()}
        self.keys: Mapping[str, str] = {method: str(one["api_key"]) for method, one in made.items()}
        self._jobs = jobs_of({METHODS[method].action for method in methods})

    def forget(self, entities: Sequence[Entity], progress: Callable[[str, int, int], None]) -> None:
        """Register those that are not yet, fit what the methods need, and switch them on for all tenants.

        Raises:
            ServedError: the admin API refuses, or a compile job fails.
        """
        for number, entity in enumerate(entities[len(self._targets) :], len(self._targets) + 1):
            target = str(self._api.make("/targets", target_of(entity, self._told))["id"])
            if self._jobs:
                self._api.compile([target], self._jobs)
            for method, tenant_id in self._ids.items():
                enable(self._api, tenant_id, METHODS[method], [target])
            self._targets.append(target)
            progress("targets", number, len(entities))


@contextmanager
def registrar(endpoint: Endpoint, methods: Sequence[str], told: Told) -> Iterator[Registrar]:
    """A :class:`Registrar` whose targets and tenants are taken away again in the end.

    Raises:
        ServedError: the admin API refuses; so it does when it has a target or a tenant of such a name already.
        httpx.TransportError: it cannot be reached.
    """
    with admin(endpoint) as api:
        yield Registrar(api, methods, told)
