"""What an intervention is. Adding one takes one file beside this one and its line in ``__init__``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vllm.outputs import RequestOutput

from guard.artifacts import Artifacts
from guard.outputs import GuardedRequest
from guard.probe import Probe
from guard.types import ForgetTarget, Gating, TenantPolicy
from guard.worker.controls import Controls
from sae_features.autoencoder import SparseAutoencoder

#: Runs a (changed) request on the engine.
Serve = Callable[[GuardedRequest], AsyncGenerator[RequestOutput, None]]


class UnpreparedError(Exception):
    """An intervention cannot act on a target yet, or on a request; the message says why. It is refused instead."""


#: Scores in [0, 1] of one target, of prompts that are given as their texts.
TextScores = Callable[[ForgetTarget, Sequence[Sequence[str]]], Awaitable[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Means:
    """What interventions may work with.

    Attributes:
        refusal: what is said instead of an answer.
        artifacts: what compile jobs fitted; None where the engine lacks Lethe's worker part.
        probe: the way to the engine's worker part, likewise.
        protected: what must not be said of a target, as phrases.
        scores: what the text detector says of a target in prompts, given as their texts.
        autoencoder: of the model's residual stream, to fit features with; None where none was given.
    """

    refusal: str
    artifacts: Artifacts | None = None
    probe: Probe | None = None
    protected: Callable[[ForgetTarget, Gating], Sequence[str]] | None = None
    scores: TextScores | None = None
    autoencoder: SparseAutoencoder | None = None


class Intervention(ABC):
    """A way of serving a request as if its targets were unknown."""

    name: ClassVar[str]
    #: When several targets of one request ask for different actions, the highest wins.
    strictness: ClassVar[int]

    def __init__(self, means: Means) -> None:
        self.means = means

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


class InModelIntervention(Intervention):
    """One that changes the forward pass: all it does to a request is to say what the worker part is to do."""

    @abstractmethod
    async def controls(self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], gating: Gating) -> Controls:
        """What the worker part does for ``request`` so that ``targets`` are unknown to it.

        Args:
            request: the client's request.
            targets: what is to be forgotten.
            gating: whether the request was flagged for them, or it is done to every request.

        Raises:
            UnpreparedError: it cannot be done yet for one of the targets.
        """

    async def serve(
        self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], policy: TenantPolicy, serve: Serve
    ) -> AsyncIterator[RequestOutput]:
        """See :meth:`Intervention.serve`."""
        if not targets:
            raise UnpreparedError("a guard could not judge, so there is no target to forget")
        controls = await self.controls(request, targets, Gating.GATED)
        async for result in serve(replace(request, controls=request.controls | controls)):
            yield result
