"""What the worker part is asked to do for one request; travels in ``SamplingParams.extra_args``."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from functools import reduce
from operator import or_
from typing import Any, Literal, NamedTuple

import msgspec

#: The key of ``SamplingParams.extra_args`` through which Lethe talks to its worker part. Clients may not set it.
RESERVED = "lethe"

#: How many tokens a model may write that open an answer, where the prompt does not.
_OPENING = 8

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


class Constraint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request may not say.

    Attributes:
        sets: names of loaded phrase sets.
        tail: the text that the output continues; a phrase begun there counts.
        penalty: in logits, for partial matches; see :class:`guard.decoding.DecodingState`.
        banned: token ids that may not come first.
    """

    sets: tuple[str, ...] = ()
    tail: str = ""
    penalty: float = 0.0
    banned: tuple[int, ...] = ()

    def __or__(self, other: Constraint) -> Constraint:
        """Both: what either forbids is forbidden."""
        return Constraint(
            sets=tuple(dict.fromkeys((*self.sets, *other.sets))),
            tail=other.tail or self.tail,
            penalty=max(self.penalty, other.penalty),
            banned=tuple(dict.fromkeys((*self.banned, *other.banned))),
        )


class Features(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which features of the residual stream are watched in a request, and clamped; and which skills it may not need.

    Attributes:
        watch: names of loaded feature sets whose rule is asked.
        clamp: of such as are also clamped, from the pass on in which their rule says yes.
        always: of such as are clamped wherever they fire, whatever the rule says.
        once: of such as are watched or clamped, those whose rule is asked at the end of the prompt and not afterwards;
            the tokens of the answer count for nothing.
        ticket: by which the verdict is fetched; unique among requests.
        skills: names of loaded skills whose keys are judged.
        opening: the position of the prompt's token whose key is judged: the one that the answer follows.
    """

    watch: tuple[str, ...] = ()
    clamp: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    ticket: str = ""
    skills: tuple[str, ...] = ()
    opening: int = 0
    once: tuple[str, ...] = ()

    def __or__(self, other: Features) -> Features:
        """Both."""
        return Features(
            watch=tuple(dict.fromkeys((*self.watch, *other.watch))),
            clamp=tuple(dict.fromkeys((*self.clamp, *other.clamp))),
            always=tuple(dict.fromkeys((*self.always, *other.always))),
            ticket=other.ticket or self.ticket,
            skills=tuple(dict.fromkeys((*self.skills, *other.skills))),
            opening=other.opening if other.skills else self.opening,
            once=tuple(dict.fromkeys((*self.once, *other.once))),
        )

    @property
    def summed(self) -> bool:
        """Whether a verdict rests on all tokens of the request."""
        return bool(self.watch or self.clamp)

    def blinded_by_cache(self, prompt: int) -> bool:
        """Whether a prefix-cache hit would hide from a verdict what it rests on, in a prompt of so many tokens.

        What comes out of the prefix cache is not computed, and what is not computed is not seen. The last token of a
        prompt is always computed.
        """
        return bool(self.ticket) and (self.summed or self.opening < prompt - 1)

    @property
    def changing(self) -> Features | None:
        """What of it changes the forward pass."""
        return Features(clamp=self.clamp, always=self.always) if self.clamp or self.always else None


class Told(NamedTuple):
    """What one feature set, or one skill, said of one request.

    Attributes:
        mean: of what the counted tokens said; of a skill the score of the key.
        limit: what it must exceed.
        flagged: whether it ever did.
        since: the position at which the pass began in which it first did; -1 where it never did.
    """

    mean: float
    limit: float
    flagged: bool
    since: int


class Starts(msgspec.Struct, frozen=True):
    """The tokens of a prompt at which an answer begins; :func:`guard.prompt.answer_starts` finds them.

    Attributes:
        marked: positions, in order, at which the chat template opens an answer.
        end: the prompt's last position, if that is none of them; -1 otherwise. The model itself may then write what
            opens an answer, so the next positions count too.
    """

    marked: tuple[int, ...] = ()
    end: int = -1

    def within(self, span: range) -> list[bool]:
        """Whether an answer begins at each of the positions of a span."""
        some = self.marked[bisect_left(self.marked, span.start) : bisect_left(self.marked, span.stop)]
        found = [False] * len(span)
        open_end = range(self.end, self.end + 1 + _OPENING) if self.end >= 0 else range(0)
        for position in (*some, *range(max(open_end.start, span.start), min(open_end.stop, span.stop))):
            found[position - span.start] = True
        return found


class Controls(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything the worker part does for one request.

    Attributes:
        corruption: of its embeddings.
        edits: names of loaded edits that apply to it.
        starts: the tokens at which such of them as are switches look; None: at all. Weight edits apply to all tokens.
        capture: activations to keep, for a probe.
        constraint: on what it says.
        features: of the residual stream that are watched and clamped.
    """

    corruption: Corruption | None = None
    edits: tuple[str, ...] = ()
    capture: Capture | None = None
    constraint: Constraint | None = None
    features: Features | None = None
    starts: Starts | None = None

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
        """Both: edits, constraints and features add up, and what else ``other`` has replaces ours."""
        constraints = [one.constraint for one in (self, other) if one.constraint is not None]
        features = [one.features for one in (self, other) if one.features is not None]
        return Controls(
            corruption=other.corruption or self.corruption,
            edits=tuple(dict.fromkeys((*self.edits, *other.edits))),
            capture=other.capture or self.capture,
            constraint=reduce(or_, constraints) if constraints else None,
            features=reduce(or_, features) if features else None,
            starts=other.starts or self.starts,
        )

    @property
    def salt(self) -> str:
        """Part of the prefix cache's key: requests that are changed alike, and only those, may share blocks.

        Empty where the forward pass is the plain one.
        """
        features = None if self.features is None else self.features.changing
        # What the template marks follows from the tokens up to there, as the blocks of the cache do.
        starts = None if self.starts is None else Starts(end=self.starts.end)
        changing = msgspec.structs.replace(self, constraint=None, features=features, starts=starts)
        return "" if changing == Controls() else hashlib.sha256(msgspec.json.encode(changing)).hexdigest()[:24]


def mlp_input(layer: int) -> str:
    """The site before ``mlp.down_proj`` of a layer: (tokens, intermediate)."""
    return f"mlp_input.{layer}"


def residual(layer: int) -> str:
    """The site after a layer, its residual added: (tokens, hidden)."""
    return f"residual.{layer}"
