"""What each token of an answer adds to its text, whatever the engine shows of it."""

from __future__ import annotations

from collections.abc import Sequence

from guard.prompt import Tokenizer

#: How many tokens before the first one are decoded with it, so that it is spelled as it is in its place.
PRIMED = 4
#: A character that is not whole after so many tokens never will be.
_MOST_PIECES = 8


class TokenReader:
    """Token ids to the text that each adds."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids = list(before[-PRIMED:])
        self._done = self._decode()
        self.whole = True  # whether the last token ended a character

    def step(self, token: int) -> str:
        """The text that ``token`` completes."""
        self._ids.append(token)
        text = self._decode()
        self.whole = not text.endswith("\ufffd") or len(self._ids) > PRIMED + _MOST_PIECES
        if not self.whole:
            return ""
        new = text[len(self._done) :]
        # Decode from the last token on from here: enough context for joining, constant cost a token.
        self._ids = [token]
        self._done = self._decode()
        return new

    def peek(self, token: int) -> str:
        """The text that ``token`` would add if it came next; changes nothing."""
        text = self._tokenizer.decode([*self._ids, token], skip_special_tokens=self._skip)
        return text[len(self._done) :]

    def _decode(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=self._skip) if self._ids else ""
