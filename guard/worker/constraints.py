"""The phrases that a worker has loaded, and where each output stands with respect to those that it must not contain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from vllm.sampling_params import SamplingParams

from guard.decoding import DecodingState, Mask, PhraseAutomaton, PhraseSets, Vocabulary, apply_masks
from guard.worker.controls import Constraint

#: Combinations of phrase sets whose automata are kept after their last request.
_KEPT_AUTOMATA = 64


@dataclass(slots=True)
class _Output:
    """One output.

    Attributes:
        constraint: as it was asked for.
        automaton: of its phrase sets.
        state: where it stands.
        banned: token ids that may not come first.
        stops: token ids that end it, beside those of the vocabulary.
        most: how many tokens it may have.
        narrowed: whether the client has forbidden tokens too, so that none may be left and it may have to end anywhere.
        read: how many of its tokens the state has read.
    """

    constraint: Constraint
    automaton: PhraseAutomaton
    state: DecodingState
    banned: list[int]
    stops: list[int]
    most: int
    narrowed: bool
    read: int = 0

    def catch_up(self, tokens: Sequence[int]) -> None:
        """Read what has been generated since; start again where tokens were taken back."""
        if len(tokens) < self.read:
            self.state, self.read = DecodingState(self.automaton, self.constraint.tail, self.constraint.penalty), 0
        for token in tokens[self.read :]:
            self.state.advance(token)
        self.read = len(tokens)

    def forbid(self, logits: torch.Tensor) -> None:
        """What the masks do not cover: (vocabulary,) float32, in place."""
        if not self.read and self.banned:
            logits[self.banned] = -math.inf
        if self.state.position.pending and self.stops:
            logits[self.stops] = -math.inf


@dataclass(slots=True)
class Constraints:
    """Phrase sets by name, and the outputs under way.

    Attributes:
        vocabulary: makes that of the served model; called once, when the first phrases come.
        max_model_len: tokens of prompt and output together.
        device: of the logits.
    """

    vocabulary: Callable[[], Vocabulary]
    max_model_len: int
    device: torch.device
    _sets: PhraseSets | None = None
    _order: torch.Tensor | None = None
    _outputs: dict[str, _Output] = field(default_factory=dict)
    _automaton: Callable[[frozenset[str]], PhraseAutomaton] = field(init=False)

    def __post_init__(self) -> None:
        self._renew()

    def __contains__(self, name: str) -> bool:
        return self._sets is not None and name in self._sets

    def __bool__(self) -> bool:
        return bool(self._outputs)

    def load(self, name: str, phrases: Sequence[str]) -> None:
        """Load a phrase set; takes seconds the first time, and milliseconds per thousand phrases after.

        Raises:
            ValueError: the model's tokenizer cannot be read.
        """
        self._ready().add(name, phrases)

    def drop(self, name: str) -> None:
        """Unload a phrase set; outputs under way keep it."""
        if self._sets is not None:
            self._sets.discard(name)
            self._renew()

    def begin(self, request_id: str, constraint: Constraint, params: SamplingParams, prompt_length: int) -> None:
        """A request with a constraint has come.

        Raises:
            KeyError: a phrase set is not loaded.
            ValueError: the model's tokenizer cannot be read.
        """
        automaton = self._automaton(frozenset(constraint.sets))
        room = self.max_model_len - prompt_length
        self._outputs[request_id] = _Output(
            constraint,
            automaton,
            DecodingState(automaton, constraint.tail, constraint.penalty),
            banned=list(constraint.banned),
            stops=sorted(params.all_stop_token_ids),
            most=room if params.max_tokens is None else min(room, params.max_tokens),
            narrowed=bool(
                params.structured_outputs or params.allowed_token_ids or params.bad_words or params.min_tokens
            ),
        )

    def end(self, request_id: str) -> None:
        """A request is over; unknown ones are ignored."""
        self._outputs.pop(request_id, None)

    def apply(self, logits: torch.Tensor, answers: Mapping[str, tuple[int, Sequence[int]]]) -> list[int]:
        """Take what the outputs may not say next off the logits, in place.

        Args:
            logits: (requests, vocabulary) float32, contiguous.
            answers: by request id, its row and what it has generated; those without a constraint are left alone.

        Returns:
            The rows in which no token may be left, once the client's own restrictions are applied.
        """
        rows = [(self._outputs[name], *answer) for name, answer in answers.items() if name in self._outputs]
        if not rows or self._order is None:
            return []
        masks: list[Mask | None] = [None] * logits.shape[0]
        for output, row, tokens in rows:
            output.catch_up(tokens)
            masks[row] = output.state.forbidden(1 if output.narrowed else output.most - len(tokens))
        apply_masks(logits, masks, self._order)
        for output, row, _ in rows:
            output.forbid(logits[row])
        return [row for output, row, _ in rows if output.narrowed]

    def _renew(self) -> None:
        self._automaton = lru_cache(maxsize=_KEPT_AUTOMATA)(self._join)

    def _join(self, names: frozenset[str]) -> PhraseAutomaton:
        return self._ready().automaton(names)

    def _ready(self) -> PhraseSets:
        if self._sets is None:
            vocabulary = self.vocabulary()
            self._sets = PhraseSets(vocabulary)
            self._order = torch.from_numpy(vocabulary.table.order).to(self.device)
        return self._sets
