"""``eco``: the prompt reaches the model with corrupted embeddings (ECO; Liu et al., NeurIPS 2024; arXiv 2406.07933).

Every token of the conversation but the template's is corrupted, and in the answer, where the client began it or the
model writes it, the tokens that spell the target's names: they alone would bring most of the knowledge back. The
rest of the answer may get a little noise as it is read back (``echo``), because a memorised sentence, once begun,
carries itself. What suits a model and a target is searched by a compile job; without one, the defaults hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classifiers.phrase_index import PhraseIndex
from guard.interventions.base import InModelIntervention, UnpreparedError
from guard.outputs import GuardedRequest
from guard.types import ForgetTarget
from guard.worker.controls import Controls, Corruption, CorruptionKind

_ALL = 2**31
#: More variants of a name's spelling than these are not looked for in the answer.
_MOST_SPELLINGS = 64


@dataclass(frozen=True, slots=True)
class Strength:
    """How a model is corrupted. ``noise`` and ``echo`` are standard deviations in units of the embeddings' own."""

    kind: CorruptionKind = "flip"
    dims: int = _ALL
    noise: float = 0.0
    echo: float = 0.0


class Eco(InModelIntervention):
    """The model answers a question that it could not read."""

    name = "eco"
    strictness = 20

    async def controls(self, request: GuardedRequest, targets: tuple[ForgetTarget, ...]) -> Controls:
        """See :meth:`InModelIntervention.controls`."""
        artifacts = self.means.artifacts
        if artifacts is None:
            raise UnpreparedError("the engine runs without Lethe's worker part")
        strength = Strength()
        for target in targets:
            artifact = await artifacts.get(target, self.name)
            if artifact is not None:
                fitted = Strength(**artifact.settings)
                strength = max(strength, fitted, key=lambda one: (one.echo, one.noise))
        return Controls(corruption=corruption(request, targets, strength))


def corruption(request: GuardedRequest, targets: tuple[ForgetTarget, ...], strength: Strength) -> Corruption:
    """Where and how the embeddings of a request are corrupted; the same prompt always alike."""
    segments = request.view.segments
    ids = request.token_ids
    answer = segments[-1] if segments and request.view.tail else None  # what the client began, the model continues
    answer_start = answer.first_token if answer else len(ids)
    spans = [(segment.first_token, segment.end_token) for segment in segments if segment is not answer]
    if answer is not None:
        spans += _name_spans(request, answer_start, answer.end_token, targets)
    return Corruption(
        kind=strength.kind,
        dims=strength.dims,
        strength=strength.noise,
        seed=int.from_bytes(hashlib.sha256(repr(ids).encode()).digest()[:7], "big"),
        spans=tuple(spans),
        names=_spellings(request, targets),
        answer_start=answer_start,
        echo=strength.echo,
    )


def names_of(target: ForgetTarget) -> list[str]:
    """The names by which a target goes, and the parts of them that are long enough to tell something."""
    names = [target.spec.name, *target.spec.aliases]
    parts = [part for name in names for part in name.split() if len(part) > 2]
    return list(dict.fromkeys([*names, *parts]))


def _name_spans(
    request: GuardedRequest, first: int, end: int, targets: tuple[ForgetTarget, ...]
) -> list[tuple[int, int]]:
    """The ranges of tokens in ``[first, end)`` that touch a name."""
    index = PhraseIndex()
    index.add("", [name for target in targets for name in names_of(target)])
    ids = request.token_ids
    ends = [len(request.tokenizer.decode(ids[first : stop + 1])) for stop in range(first, end)]
    text = request.tokenizer.decode(ids[first:end])
    spans, done = [], 0
    while (found := index.find(text[done:], ("",))) is not None:
        start, stop = done + found.start, done + found.end
        touched = [i for i, token_end in enumerate(ends) if token_end > start and (ends[i - 1] if i else 0) < stop]
        spans.append((first + touched[0], first + touched[-1] + 1))
        done = stop
    return spans


def _spellings(request: GuardedRequest, targets: tuple[ForgetTarget, ...]) -> tuple[tuple[int, ...], ...]:
    """The token sequences by which the model would usually write a name."""
    encode = request.tokenizer.encode
    texts = [f"{space}{name}" for target in targets for name in names_of(target) for space in (" ", "")]
    spelled = (tuple(encode(text, add_special_tokens=False)) for text in texts)
    return tuple(dict.fromkeys(ids for ids in spelled if ids))[:_MOST_SPELLINGS]


def settings_of(strength: Strength) -> Mapping[str, Any]:
    """As JSON values, for an artifact."""
    return {"kind": strength.kind, "dims": strength.dims, "noise": strength.noise, "echo": strength.echo}
