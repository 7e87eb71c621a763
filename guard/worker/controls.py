"""What the worker part is asked to do for one request; travels in ``SamplingParams.extra_args``."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

#: The key of ``SamplingParams.extra_args`` through which Lethe talks to its worker part. Clients may not set it.
RESERVED = "lethe"

#: Corruption functions of ECO (arXiv 2406.07933); see :mod:`guard.kernels.corruption`.
CorruptionKind = Literal["noise", "zero", "flip"]


class Corruption(msgspec.Struct, frozen=True):
    """Which embeddings of a request are corrupted, and how.

    Attributes:
        kind: the corruption function.
        dims: how many dimensions of an embedding it touches.
        strength: standard deviation of the noise, in units of that of the embeddings' entries; the other functions
            have none.
        seed: of the noise; with the position it determines the noise of a token.
        spans: half-open ranges of prompt positions.
        names: token sequences that are corrupted too where the model itself spells them in its answer.
        answer: the range of prompt positions where the client began the answer; empty where it did not.
        echo: standard deviation, in the same units, of the noise on the other tokens of that range; 0 for none.
    """

    kind: CorruptionKind
    dims: int
    strength: float
    seed: int
    spans: tuple[tuple[int, int], ...]
    names: tuple[tuple[int, ...], ...] = ()
    answer: tuple[int, int] = (0, 0)
    echo: float = 0.0


class Capture(msgspec.Struct, frozen=True):
    """Which activations of a request are kept, and under which name, until they are fetched.

    Attributes:
        name: unique among all captures that have not been fetched.
        sites: as :func:`mlp_input` and :func:`residual` name them.
    """

    name: str
    sites: tuple[str, ...]


class Controls(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything the worker part does for one request.

    Attributes:
        corruption: of its embeddings.
        edits: names of loaded weight edits that apply to all of its tokens.
        capture: activations to keep, for a probe.
    """

    corruption: Corruption | None = None
    edits: tuple[str, ...] = ()
    capture: Capture | None = None

    def to_wire(self) -> dict[str, Any]:
        """Plain values for ``extra_args``."""
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire

    @classmethod
    def from_wire(cls, extra_args: dict[str, Any] | None) -> Controls | None:
        """What a request carries, or None.

        Raises:
            msgspec.ValidationError: the value was not made by :meth:`to_wire`.
        """
        wire = (extra_args or {}).get(RESERVED)
        return None if wire is None else msgspec.convert(wire, cls)

    def __or__(self, other: Controls) -> Controls:
        """Both: edits add up, and a corruption or capture of ``other`` replaces ours."""
        return Controls(
            corruption=other.corruption or self.corruption,
            edits=tuple(dict.fromkeys((*self.edits, *other.edits))),
            capture=other.capture or self.capture,
        )

    @property
    def salt(self) -> str:
        """Part of the prefix cache's key: requests that are changed alike, and only those, may share blocks."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:24]


def mlp_input(layer: int) -> str:
    """The site before ``mlp.down_proj`` of a layer: (tokens, intermediate)."""
    return f"mlp_input.{layer}"


def residual(layer: int) -> str:
    """The site after a layer, its residual added: (tokens, hidden)."""
    return f"residual.{layer}"
