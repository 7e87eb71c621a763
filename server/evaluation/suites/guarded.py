"""Whose guards a suite measures beside the untouched model: those of a tenant that there is, or of one made for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from server.evaluation.admin import Admin
from server.evaluation.tofu.methods import NONE, Method, enable, jobs_of, tenant
from server.evaluation.tofu.rows import method_key

#: The name under which the guarded tenant's figures stand.
GUARDED = "guarded"


@dataclass(frozen=True, slots=True)
class Guarded:
    """Whose guards are measured: a tenant that there is, by its key, or one that is made for the targets given.

    Attributes:
        key: API key of a tenant of a server that runs; "" for one that is made.
        targets: bodies of ``POST /targets``, registered as long as it is measured.
        action: what is done about them.
    """

    key: str = ""
    targets: tuple[Mapping[str, Any], ...] = ()
    action: str = "auto"

    @property
    def _method(self) -> Method:
        return Method({"action": self.action})

    def digest(self) -> str:
        """Names what the results depend on beside the model; of a tenant that there is nobody knows, so it is new."""
        if self.key:
            return uuid4().hex
        return method_key(self.targets, asdict(self._method))

    def keys(self, api: Admin, naming: str) -> dict[str, str]:
        """API keys of a tenant without guards and of the guarded one, by the names their figures have.

        Args:
            api: where both are made; what was made is taken away in the end.
            naming: the tenants' names, with a place for the name of the figures.

        Raises:
            ServedError: the admin API refuses.
            httpx.TransportError: it cannot be reached.
        """
        keys = {NONE: str(tenant(api, naming.format(NONE), Method(None))["api_key"]), GUARDED: self.key}
        if not self.key:
            made = tenant(api, naming.format(GUARDED), self._method)
            ids = [str(api.make("/targets", body)["id"]) for body in self.targets]
            if jobs := jobs_of({self.action}):
                api.compile(ids, jobs)
            enable(api, made["id"], self._method, ids)
            keys[GUARDED] = str(made["api_key"])
        return keys
