"""Where one output stands with respect to the phrases that it must not contain."""

from __future__ import annotations

from collections import deque

from guard.decoding.automaton import Mask, PhraseAutomaton, Position
from guard.decoding.tables import Left

#: So many tokens may be needed to end a word that is begun.
_LITTLE = 16
#: How many tokens can be taken back; speculative decoding takes back a handful.
ROLLBACK = 128


class DecodingState:
    """One output: the place where its automaton stands, and where it stood before."""

    __slots__ = ("_before", "automaton", "penalty", "position")

    def __init__(self, automaton: PhraseAutomaton, prompt_tail: str = "", penalty: float = 0.0) -> None:
        """The state of an output that has not begun.

        Args:
            automaton: of the phrases that it must not contain.
            prompt_tail: the text that the output continues; a phrase begun there counts, one that ends there does not.
            penalty: in logits, for partial matches; 0 for none. As in GUARD (arXiv 2505.13312) partial matches are
                penalised and whole ones forbidden: a token that carries on a phrase which earlier tokens began loses
                the penalty times the share of the phrase that will then have been read. The first token of a match
                loses nothing, since among many phrases nearly every word begins one, unless it spells the whole.
        """
        self.automaton = automaton
        self.penalty = penalty
        self.position = automaton.start(prompt_tail)
        self._before: deque[Position] = deque(maxlen=ROLLBACK)

    def advance(self, token: int) -> None:
        """Read the next token of the output; one that is not in the vocabulary has no text."""
        self._before.append(self.position)
        self.position = self.automaton.advance(self.position, token)

    def rollback(self, count: int) -> None:
        """Take back the last ``count`` tokens.

        Raises:
            ValueError: there are not so many, or more than :data:`ROLLBACK`.
        """
        if count > len(self._before):
            raise ValueError(f"cannot take back {count} tokens, only {len(self._before)}")
        for _ in range(count):
            self.position = self._before.pop()

    def copy(self) -> DecodingState:
        """An independent state that stands at the same place."""
        other = DecodingState(self.automaton, penalty=self.penalty)
        other.position, other._before = self.position, self._before.copy()
        return other

    def forbidden(self, left: int | None = None) -> Mask:
        """What may not come next, and what is penalised.

        Args:
            left: the most tokens that may still come, the next one included, as by ``max_tokens``; None: many.
        """
        much = Left.MUCH if left is None or left > _LITTLE else Left.LITTLE if left > 1 else Left.LAST
        return self.automaton.mask(self.position, much, self.penalty)
