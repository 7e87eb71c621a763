"""The admin API of a server that is measured: what is made there is taken away again in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from guard.types import GuardName

#: The deadline of guards while they are measured: with many requests at once on few cores the usual one would be
#: missed now and then, and what is measured would be the machine.
PATIENCE_MS = 600_000
#: Bodies of ``PUT /tenants/{id}/guards/{guard}`` for guards that use the sentence encoder.
PATIENT: Mapping[str, Mapping[str, Any]] = {
    guard: {"deadline_ms": PATIENCE_MS} for guard in (GuardName.SEMANTIC, GuardName.STATEMENTS)
}

_POLL = 0.5  # seconds between looks at a compile job
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)


class ServedError(RuntimeError):
    """The server refused a request, or its answer cannot be measured."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server: its URL without a path, and a key of its admin API."""

    url: str
    admin_key: str


class Admin:
    """What measuring needs of the admin API.

    All methods raise :class:`ServedError` where the server refuses, ``httpx.TransportError`` where it is not reached.
    """

    def __init__(self, http: httpx.Client, undo: ExitStack) -> None:
        self._http = http
        self._undo = undo

    def get(self, path: str) -> dict[str, Any]:
        """What stands at a path below ``/v1/guard``."""
        return _json(self._http.get(path))

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Put a body there."""
        return _json(self._http.put(path, json=body))

    def make(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a target or a tenant, which is deleted again in the end."""
        made = _json(self._http.post(path, json=body))
        self._undo.callback(self._delete, f"{path}/{made['id']}")
        return made

    def compile(self, targets: Sequence[str], interventions: Sequence[str]) -> None:
        """Have targets fitted, by id, and wait until they are."""
        body = {"interventions": list(interventions)}
        jobs = [_json(self._http.post(f"/targets/{target}/compile", json=body))["id"] for target in targets]
        for job in jobs:
            while (state := self.get(f"/compile/jobs/{job}"))["state"] in ("queued", "running"):
                time.sleep(_POLL)
            if state["state"] != "done":
                raise ServedError(f"compiling target {state['target']}: {state['state']} {state['error']}")

    def _delete(self, path: str) -> None:
        with suppress(httpx.HTTPError):  # a server that is gone has nothing to take away
            self._http.delete(path)


@contextmanager
def admin(endpoint: Endpoint) -> Iterator[Admin]:
    """The admin API of a server."""
    headers = {"Authorization": f"Bearer {endpoint.admin_key}"}
    with ExitStack() as undo:
        http = httpx.Client(base_url=f"{endpoint.url}/v1/guard", headers=headers, timeout=_TIMEOUT)
        yield Admin(undo.enter_context(http), undo)


def _json(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        request = response.request
        asked = f"{request.method} {request.url.path} {request.read().decode()[:200]}"
        raise ServedError(f"{asked}: the admin API answered {response.status_code}: {response.text[:500]}")
    body: dict[str, Any] = response.json()
    return body
