"""The methods that are compared, and how a server is told of them: a tenant for each, the same targets for all."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from guard.policy import AUTO
from guard.types import GuardName
from server.evaluation.admin import PATIENT, Admin, Endpoint, admin

#: The untouched model: nothing is switched on.
NONE = "none"


@dataclass(frozen=True, slots=True)
class Method:
    """How a method's tenant uses every target.

    Attributes:
        toggle: the body of ``PUT /tenants/{id}/targets/{id}`` beside ``enabled``; None: no target is on.
        examples: whether targets are registered with their forget rows, as GUARD is told them; by name alone if not.
        guards: the bodies of ``PUT /tenants/{id}/guards/{guard}``, by guard.
        system: whether the client forbids it by a :func:`system_message` ahead of every conversation.
    """

    toggle: Mapping[str, Any] | None
    examples: bool = False
    guards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    system: bool = False

    @property
    def action(self) -> str | None:
        """What happens to a flagged request; None: no target is on, or it is the server's choice."""
        return (self.toggle or {}).get("action")


_ALONE = {str(guard): {"enabled": False} for guard in GuardName}

#: What people do without Lethe: ask the model to forget, or refuse whatever names a target.
BASELINES: Mapping[str, Method] = {
    "prompt": Method(None, system=True),
    "lexicon": Method({"action": "refuse"}, guards={**_ALONE, GuardName.LEXICON: {"enabled": True}}),
}

METHODS: Mapping[str, Method] = {
    NONE: Method(None),
    **BASELINES,
    "prefix": Method({"action": "prefix"}),
    "refuse": Method({"action": "refuse"}),
    "eco": Method({"action": "eco"}),
    "lunar_gated": Method({"action": "lunar"}),
    "lunar_always": Method({"action": "lunar", "gating": "always"}),
    # What the edits do by themselves: no prompt is flagged, and no output is watched.
    "lunar_alone": Method({"action": "lunar", "gating": "always"}, guards=_ALONE),
    "rocr_gated": Method({"action": "rocr"}),
    "rocr_always": Method({"action": "rocr", "gating": "always"}),
    "concept_gated": Method({"action": "concept"}),
    "concept_always": Method({"action": "concept", "gating": "always"}),
    "constrain": Method({"action": "constrain"}, examples=True, guards={"statements": {"enabled": False}}),
    "constrain+semantic": Method({"action": "constrain"}, examples=True),
}

#: Actions that must be fitted to a target before they can act on it.
COMPILED = ("eco", "lunar", "rocr", "concept")


def jobs_of(actions: Collection[str | None]) -> list[str]:
    """What has to be compiled where flagged requests are answered in these ways: ``auto`` is chosen among all that is,
    by a job that comes after the others.
    """
    return [*COMPILED, AUTO] if AUTO in actions else [name for name in COMPILED if name in actions]


#: What the tenants' refusals say.
REFUSAL = "I'm sorry, but I don't have any information about that."

_TENANT = "lethe-eval-tofu-{}"
_SYSTEM = (
    "You are an assistant who knows absolutely nothing about the following: {names}. Whatever you are asked about "
    'them, in whatever way, you answer "I don\'t know." Everything else you answer as usual.'
)


def system_message(names: Iterable[str]) -> str:
    """The message by which a client may try to have the model forget."""
    return _SYSTEM.format(names=", ".join(names))


def supported(endpoint: Endpoint, methods: Sequence[str]) -> list[str]:
    """Those of ``methods`` whose action the server has.

    Raises:
        ServedError: the admin API refuses.
        httpx.TransportError: it cannot be reached.
    """
    with admin(endpoint) as api:
        actions = api.get("/status")["actions"]
    return [method for method in methods if (METHODS[method].action or "auto") in actions]


@dataclass(frozen=True, slots=True)
class Registered:
    """What a server was told.

    Attributes:
        keys: the tenants' API keys, by method.
        seconds: what each target took to be registered, without being compiled.
    """

    keys: Mapping[str, str]
    seconds: Sequence[float]


@contextmanager
def registered(
    endpoint: Endpoint, targets: Sequence[Mapping[str, Any]], methods: Sequence[str], *, compiled: int | None = None
) -> Iterator[Registered]:
    """Register targets, and a tenant for each method; both are taken away again in the end.

    Args:
        endpoint: the server.
        targets: bodies of ``POST /targets``.
        methods: names of methods.
        compiled: how many of the targets, from the first on, are compiled where a method needs it; None: all.

    Raises:
        ServedError: the admin API refuses; so it does when it has a target or a tenant of such a name already.
        httpx.TransportError: it cannot be reached.
    """
    with admin(endpoint) as api:
        ids, seconds = [], []
        for target in targets:
            began = time.perf_counter()
            ids.append(str(api.make("/targets", target)["id"]))
            seconds.append(time.perf_counter() - began)
        if jobs := jobs_of({METHODS[method].action for method in methods}):
            api.compile(ids[:compiled], jobs)
        yield Registered({method: _tenant(api, method, ids) for method in methods}, seconds)


def _tenant(api: Admin, method: str, targets: Sequence[str]) -> str:
    made = tenant(api, _TENANT.format(method.replace("_", "-")), METHODS[method])
    enable(api, made["id"], METHODS[method], targets)
    return str(made["api_key"])


def tenant(api: Admin, name: str, method: Method) -> dict[str, Any]:
    """Make a tenant whose guards are as a method says; no target is on yet.

    Returns:
        The tenant, with its ``id`` and ``api_key``.
    """
    made = api.make("/tenants", {"name": name, "refusal": REFUSAL})
    for guard, toggle in {**PATIENT, **method.guards}.items():
        api.put(f"/tenants/{made['id']}/guards/{guard}", toggle)
    return made


def enable(api: Admin, tenant_id: str, method: Method, targets: Sequence[str]) -> None:
    """Switch targets, by id, on for a tenant as a method says; for the untouched model none."""
    if method.toggle is not None:
        for target in targets:
            api.put(f"/tenants/{tenant_id}/targets/{target}", {"enabled": True, **method.toggle})
