"""What a target is compiled to: a value that can be stored, sent and added to a detector."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Compiled:
    """A target in the form that a detector of the same fingerprint matches against.

    Word keys are folded (see :mod:`classifiers.folding`); information is in nats.

    Attributes:
        key: the target revision.
        phrases: its name, aliases and safe derived aliases: they give it away in a prompt and in an answer alike.
        parts: word keys of its name -> how surely each alone means the target, in [0, 1].
        own: every word key of its name and aliases.
        given: those that open a name.
        terms: titles, names and numbers (space-joined word keys) that hint at it -> their information.
        words: content words of what is known about it -> their information.
        person: whether it is somebody; what is about somebody's surroundings is not about them.
        roles: role words that may stand for it ("star", "author").
        evidence: the sentences behind the rows of ``vectors``; the last ``retain`` of them are counter-evidence.
        vectors: float16 ``(len(evidence), dimension)``, unit length.
        answers: for each of ``evidence``, where in it the answer begins: what is before it was asked, not told. 0 for a
            sentence that was not asked for, its length for what tells nothing.
        retain: how many of the last rows are counter-evidence.
        baseline: the cosine to its evidence that one benign text in a hundred exceeds.
        tail: level and scale (both logits) of the scores that benign text gets, see :mod:`classifiers.calibration`.
    """

    key: str
    phrases: tuple[str, ...]
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    terms: dict[str, float] = field(default_factory=dict)
    words: dict[str, float] = field(default_factory=dict)
    person: bool = True
    roles: frozenset[str] = frozenset()
    evidence: tuple[str, ...] = ()
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    answers: tuple[int, ...] = ()
    retain: int = 0
    baseline: float = 0.0
    tail: tuple[float, float] = (0.0, 0.0)

    def to_bytes(self) -> bytes:
        """Serialise to an uncompressed ``.npz``; nothing in it is executable."""
        header = json.dumps({name: _plain(getattr(self, name)) for name in _HEADER}).encode()
        buffer = io.BytesIO()
        np.savez(buffer, header=np.frombuffer(header, np.uint8), vectors=self.vectors)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, blob: bytes) -> Compiled:
        """Undo :meth:`to_bytes`.

        Raises:
            ValueError: the bytes are not such a serialisation.
        """
        try:
            with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
                header, vectors = json.loads(arrays["header"].tobytes()), arrays["vectors"]
            return cls(**{name: _HEADER[name](header[name]) for name in _HEADER}, vectors=vectors)
        except (OSError, KeyError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError("not a compiled target") from error


#: Fields kept in the JSON header, with what turns their JSON form back into them.
_HEADER: dict[str, Any] = {
    "key": str,
    "phrases": tuple,
    "parts": dict,
    "own": frozenset,
    "given": frozenset,
    "terms": dict,
    "words": dict,
    "person": bool,
    "roles": frozenset,
    "evidence": tuple,
    "answers": tuple,
    "retain": int,
    "baseline": float,
    "tail": tuple,
}
assert {f.name for f in fields(Compiled)} == {*_HEADER, "vectors"}


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else value
