"""The methods that are compared, and how a server is told of them: a tenant for each, the same targets for all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from server.evaluation.tofu.client import ServedError

#: The untouched model: nothing is switched on.
NONE = "none"


@dataclass(frozen=True, slots=True)
class Method:
    """How a method's tenant uses every target.

    Attributes:
        toggle: the body of ``PUT /tenants/{id}/targets/{id}`` beside ``enabled``; None: no target is on.
        examples: whether targets are registered with their forget rows, as GUARD is told them; by name alone if not.
        guards: the bodies of ``PUT /tenants/{id}/guards/{guard}``, by guard.
    """

    toggle: Mapping[str, Any] | None
    examples: bool = False
    guards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


METHODS: Mapping[str, Method] = {
    NONE: Method(None),
    "prefix": Method({"action": "prefix"}),
    "refuse": Method({"action": "refuse"}),
    "eco": Method({"action": "eco"}),
    "lunar_gated": Method({"action": "lunar"}),
    "lunar_always": Method({"action": "lunar", "gating": "always"}),
    "rocr_gated": Method({"action": "rocr"}),
    "rocr_always": Method({"action": "rocr", "gating": "always"}),
    "constrain": Method({"action": "constrain"}, examples=True, guards={"statements": {"enabled": False}}),
    "constrain+semantic": Method({"action": "constrain"}, examples=True),
}

#: Actions that must be fitted to a target before they can act on it.
COMPILED = ("eco", "lunar", "rocr")

#: What the tenants' refusals say.
REFUSAL = "I'm sorry, but I don't have any information about that."

_TENANT = "lethe-eval-tofu-{}"
#: Milliseconds for guards that use the sentence encoder: with many requests at once on few cores, the usual deadline
#: would be missed now and then, and what is measured would be the machine.
_DEADLINE = 600_000
_SLOW = ("semantic", "statements")
_POLL = 0.5  # seconds between looks at a compile job
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server: its URL without a path, and a key of its admin API."""

    url: str
    admin_key: str


def supported(endpoint: Endpoint, methods: Sequence[str]) -> list[str]:
    """Those of ``methods`` whose action the server has.

    Raises:
        ServedError: the admin API refuses.
        httpx.TransportError: it cannot be reached.
    """
    with _admin(endpoint) as admin:
        actions = _json(admin.get("/status"))["actions"]
    return [method for method in methods if (METHODS[method].toggle or {}).get("action", "auto") in actions]


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
    endpoint: Endpoint, targets: Sequence[Mapping[str, Any]], methods: Sequence[str]
) -> Iterator[Registered]:
    """Register targets, and a tenant for each method; both are taken away again in the end.

    Args:
        endpoint: the server.
        targets: bodies of ``POST /targets``.
        methods: names of methods.

    Raises:
        ServedError: the admin API refuses; so it does when it has a target or a tenant of such a name already.
        httpx.TransportError: it cannot be reached.
    """
    with ExitStack() as undo:
        admin = undo.enter_context(_admin(endpoint))
        ids, seconds = [], []
        for target in targets:
            began = time.perf_counter()
            ids.append(_target(admin, target, undo))
            seconds.append(time.perf_counter() - began)
        used = {(METHODS[method].toggle or {}).get("action") for method in methods}
        _compile(admin, ids, [action for action in COMPILED if action in used])
        yield Registered({method: _tenant(admin, method, ids, undo) for method in methods}, seconds)


def _target(admin: httpx.Client, target: Mapping[str, Any], undo: ExitStack) -> str:
    made = _json(admin.post("/targets", json=target))
    undo.callback(_delete, admin, f"/targets/{made['id']}")
    return str(made["id"])


def _compile(admin: httpx.Client, targets: Sequence[str], interventions: Sequence[str]) -> None:
    """Have the targets fitted, and wait until they are."""
    if not interventions:
        return
    body = {"interventions": list(interventions)}
    jobs = [_json(admin.post(f"/targets/{target}/compile", json=body))["id"] for target in targets]
    for job in jobs:
        while (state := _json(admin.get(f"/compile/jobs/{job}")))["state"] in ("queued", "running"):
            time.sleep(_POLL)
        if state["state"] != "done":
            raise ServedError(f"compiling target {state['target']}: {state['state']} {state['error']}")


def _tenant(admin: httpx.Client, method: str, targets: Sequence[str], undo: ExitStack) -> str:
    name = _TENANT.format(method.replace("_", "-"))
    made = _json(admin.post("/tenants", json={"name": name, "refusal": REFUSAL}))
    path = f"/tenants/{made['id']}"
    undo.callback(_delete, admin, path)
    patient: dict[str, Mapping[str, Any]] = {guard: {"deadline_ms": _DEADLINE} for guard in _SLOW}
    for guard, toggle in {**patient, **METHODS[method].guards}.items():
        _json(admin.put(f"{path}/guards/{guard}", json=toggle))
    use = METHODS[method].toggle
    if use is not None:
        for target in targets:
            _json(admin.put(f"{path}/targets/{target}", json={"enabled": True, **use}))
    return str(made["api_key"])


def _delete(admin: httpx.Client, path: str) -> None:
    with suppress(httpx.HTTPError):  # a server that is gone has nothing to take away
        admin.delete(path)


def _admin(endpoint: Endpoint) -> httpx.Client:
    headers = {"Authorization": f"Bearer {endpoint.admin_key}"}
    return httpx.Client(base_url=f"{endpoint.url}/v1/guard", headers=headers, timeout=_TIMEOUT)


def _json(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        request = response.request
        asked = f"{request.method} {request.url.path} {request.read().decode()[:200]}"
        raise ServedError(f"{asked}: the admin API answered {response.status_code}: {response.text[:500]}")
    body: dict[str, Any] = response.json()
    return body
