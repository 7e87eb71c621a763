"""What an intervention is. Adding one takes one file beside this one and its line in ``__init__``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

from vllm.outputs import RequestOutput

from guard.outputs import GuardedRequest
from guard.types import ForgetTarget, TenantPolicy

#: Runs a (changed) request on the engine.
Serve = Callable[[GuardedRequest], AsyncIterator[RequestOutput]]


class Intervention(ABC):
    """A way of serving a request as if its targets were unknown."""

    name: ClassVar[str]
    #: When several targets of one request ask for different actions, the highest wins.
    strictness: ClassVar[int]

    @abstractmethod
    def serve(
        self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], policy: TenantPolicy, serve: Serve
    ) -> AsyncIterator[RequestOutput]:
        """Answer ``request``.

        Args:
            request: the client's request.
            targets: what it was flagged for; empty when a guard could not judge and failed closed.
            policy: the tenant's policy.
            serve: runs a request on the engine; an intervention that needs no model does not call it.
        """
