"""What a compile job fitted for one target, one intervention and one model."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from sqlalchemy.exc import SQLAlchemyError

from guard.store import Store
from guard.store.jobs import JobQueue
from guard.types import ForgetTarget

logger = logging.getLogger(__name__)

#: Seconds for which it may go unnoticed that another process fitted something anew.
LOOK_AGAIN = 10.0


class ArtifactError(ValueError):
    """The bytes are no artifact, or one of another model."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """The fitted part of an intervention.

    Attributes:
        intervention: whose it is.
        model: fingerprint of the model that it was fitted on; with another it means nothing.
        settings: its numbers and choices, as JSON values.
        report: what was measured when it was fitted, as JSON values.
        tensors: its tensors, by name.
    """

    intervention: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """A safetensors file whose metadata hold everything but the tensors."""
        about = {
            "intervention": self.intervention,
            "model": self.model,
            "settings": dict(self.settings),
            "report": dict(self.report),
        }
        # A file without tensors is allowed by the format but not by every reader.
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()} or {"none": torch.zeros(1)}
        return save(tensors, metadata={"lethe": json.dumps(about, sort_keys=True)})

    @classmethod
    def from_bytes(cls, blob: bytes, model: str) -> Artifact:
        """Read what :meth:`to_bytes` wrote.

        Args:
            blob: the file.
            model: the fingerprint of the model that is served.

        Raises:
            ArtifactError: the file is damaged, or was fitted on another model.
        """
        try:
            length = int.from_bytes(blob[:8], "little")
            about = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"]["lethe"])
            tensors = {name: tensor for name, tensor in load(blob).items() if name != "none"}
            artifact = cls(about["intervention"], about["model"], about["settings"], about["report"], tensors)
        except Exception as error:
            raise ArtifactError(f"not an artifact of Lethe ({type(error).__name__})") from error
        if artifact.model != model:
            raise ArtifactError("this artifact was fitted on another model; compile the target again")
        return artifact


@dataclass(slots=True)
class _Known:
    """An artifact that was read, its version in the store, and when that was last looked at."""

    artifact: Artifact
    version: str
    looked: float


class Artifacts:
    """The artifacts of one served model, read from the store when they are first needed."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model
        self._known: dict[tuple[str, str], _Known] = {}  # by target key and intervention
        #: When something was last put here, in the seconds of ``time.monotonic``.
        self.changed = 0.0

    @property
    def model(self) -> str:
        """Fingerprint of the served model."""
        return self._model

    def queue(self) -> JobQueue:
        """The jobs that fit artifacts of this model."""
        return JobQueue(self._store, self._model)

    def still_hold(self, looked: float, *, times: int = 1) -> bool:
        """Whether what was looked up at ``looked`` (of ``time.monotonic``) need not be looked up again.

        Nothing was put here since, and what other processes put may go unnoticed for ``times`` :data:`LOOK_AGAIN`.
        """
        return looked > max(self.changed, time.monotonic() - times * LOOK_AGAIN)

    async def get(self, target: ForgetTarget, intervention: str) -> Artifact | None:
        """What was fitted for this revision of a target; None when nothing was.

        Raises:
            ArtifactError: the stored bytes are damaged.
        """
        return (await self.fitted([target], intervention)).get(target.key)

    async def fitted(self, targets: Sequence[ForgetTarget], intervention: str) -> dict[str, Artifact]:
        """What was fitted for these targets, by their keys.

        Raises:
            ArtifactError: the stored bytes are damaged.
        """
        unread = [target for target in targets if (target.key, intervention) not in self._known]
        unread += await self._replaced(targets, intervention)
        if unread:
            stored = await asyncio.to_thread(self._store.versioned, unread, self._name(intervention))
            for key, (version, blob) in stored.items():
                artifact = Artifact.from_bytes(blob, self._model)
                self._known[key, intervention] = _Known(artifact, version, time.monotonic())
        keys = (target.key for target in targets)
        return {key: known.artifact for key in keys if (known := self._known.get((key, intervention))) is not None}

    async def put(self, target: ForgetTarget, artifact: Artifact) -> None:
        """Keep an artifact: in force here when this returns, and in every other process when it next looks.

        Raises:
            ArtifactError: it was fitted on another model.
        """
        if artifact.model != self._model:
            raise ArtifactError("this artifact was fitted on another model; compile the target again")
        blobs = [(target, artifact.to_bytes())]
        await asyncio.to_thread(self._store.put_compiled, blobs, self._name(artifact.intervention))
        # Its version is learnt at the next look, in case another process puts one at the same time.
        self._known[target.key, artifact.intervention] = _Known(artifact, "", -math.inf)
        self.changed = time.monotonic()

    async def _replaced(self, targets: Sequence[ForgetTarget], intervention: str) -> list[ForgetTarget]:
        """Those of which another process has put something newer than what is known here."""
        now = time.monotonic()
        known = ((target, self._known.get((target.key, intervention))) for target in targets)
        due = [(target, one) for target, one in known if one is not None and now - one.looked > LOOK_AGAIN]
        if not due:
            return []
        try:
            versions = await asyncio.to_thread(
                self._store.versions, [target for target, _ in due], self._name(intervention)
            )
        except SQLAlchemyError:
            logger.exception("It cannot be seen whether targets were compiled anew; what is known stays in force")
            versions = {}
        replaced = []
        for target, one in due:
            if versions.get(target.key, one.version) != one.version:
                replaced.append(target)  # looked at when it is read, which may fail
            else:
                one.looked = now
        return replaced

    def _name(self, intervention: str) -> str:
        return f"{intervention}:{self._model}"
