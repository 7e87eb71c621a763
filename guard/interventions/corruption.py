"""``eco``: the prompt reaches the model with corrupted embeddings (ECO; Liu et al., NeurIPS 2024; arXiv 2406.07933).

Every token of the conversation but the template's is corrupted, and in the answer, where the client began it or the
model writes it, the tokens that spell the target's names: they alone would bring most of the knowledge back. The rest
of an answer that the client began may get some noise (``echo``), because a memorised sentence, once begun, carries
itself. What suits a model and a target is searched by a compile job; without one, the defaults hold.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from classifiers.phrase_index import PhraseIndex
from guard.compile.mentions import telling_parts
from guard.interventions.base import InModelIntervention, UnpreparedError
from guard.outputs import GuardedRequest
from guard.prompt import PromptReader, Segment, Tokenizer, answer_opening
from guard.token_reader import TokenReader
from guard.types import ForgetTarget, Gating
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

    async def controls(self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], gating: Gating) -> Controls:
        """See :meth:`InModelIntervention.controls`."""
        del gating  # the corruption of a prompt is the same
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
    segments, ids = request.view.segments, request.token_ids
    last = segments[-1] if segments else None
    answer = last if last is not None and _is_answer(request, last) else None
    spans = tuple((segment.first_token, segment.end_token) for segment in segments if segment is not answer)
    answer_start = answer.first_token if answer else len(ids)
    return corruption_of(request.tokenizer, ids, answer_start, targets, strength, spans)


def _is_answer(request: GuardedRequest, last: Segment) -> bool:
    """Whether the client began the answer with ``last``: nothing but an end token follows it, and before it stands what
    the chat template puts before an answer. A question that pretends to be one is a question."""
    ids, opening = request.token_ids, answer_opening(request.tokenizer)
    before = ids[max(0, last.first_token - len(opening)) : last.first_token]
    return bool(opening) and before == opening and all(i == request.eos_token_id for i in ids[last.end_token :])


def corruption_of(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    answer_start: int,
    targets: tuple[ForgetTarget, ...],
    strength: Strength,
    spans: tuple[tuple[int, int], ...] | None = None,
) -> Corruption:
    """The corruption of a prompt given as token ids.

    Args:
        tokenizer: of the model.
        ids: the prompt, with the beginning of an answer from ``answer_start`` on, if there is one.
        answer_start: at most ``len(ids)``.
        targets: whose names are corrupted in the answer.
        strength: how.
        spans: the ranges of the prompt that somebody wrote; None: find them.
    """
    if spans is None:
        view = PromptReader(tokenizer).read(ids[:answer_start])
        spans = tuple((segment.first_token, segment.end_token) for segment in view.segments)
    names = list(dict.fromkeys(name for target in targets for name in names_of(target)))
    return Corruption(
        kind=strength.kind,
        dims=strength.dims,
        strength=strength.noise,
        seed=int.from_bytes(hashlib.sha256(repr(list(ids)).encode()).digest()[:7], "big"),
        spans=(*spans, *_name_spans(tokenizer, ids[answer_start:], answer_start, names)),
        names=_spellings(tokenizer, names),
        answer=(answer_start, len(ids)),
        echo=strength.echo,
    )


def names_of(target: ForgetTarget) -> list[str]:
    """The names by which a target goes, and the parts of them that tell something."""
    names = [target.spec.name, *target.spec.aliases]
    return list(dict.fromkeys([*names, *telling_parts(names)]))


def _name_spans(tokenizer: Tokenizer, ids: Sequence[int], first: int, names: list[str]) -> list[tuple[int, int]]:
    """The ranges of tokens that touch a name; ``first`` is the position of the first of ``ids``."""
    index = PhraseIndex()
    index.add("", names)
    reader, matcher = TokenReader(tokenizer, (), skip_special_tokens=False), index.matcher(("",))
    pieces = [reader.step(token) for token in ids]
    ends = list(accumulate(map(len, pieces)))
    found = ((_holding(ends, one.start), bisect_left(ends, one.end) + 1) for one in matcher.every("".join(pieces)))
    # A name and its last part end together: the wider span holds the other.
    widest = {end: start for start, end in sorted(found, reverse=True)}
    return [(first + start, first + end) for end, start in sorted(widest.items())]


def _holding(ends: Sequence[int], start: int) -> int:
    """The first token of the character at ``start``, given where the text of each token ends.

    A token that is but a part of a character ends where the one before it does.
    """
    at = bisect_left(ends, start)
    return at + 1 if start and ends[at] == start else at


def _spellings(tokenizer: Tokenizer, names: list[str]) -> tuple[tuple[int, ...], ...]:
    """The token sequences by which the model would usually write a name."""
    spelled = (
        tuple(tokenizer.encode(f"{space}{name}", add_special_tokens=False)) for name in names for space in (" ", "")
    )
    return tuple(dict.fromkeys(ids for ids in spelled if ids))[:_MOST_SPELLINGS]
