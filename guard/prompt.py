"""Reading a rendered prompt back into the texts that people wrote.

The engine receives token ids with the chat template already applied. Detectors must see every message, and only
messages: template words such as role names would blur a sentence encoder. Special tokens can not be typed by a
user without showing up as ids here, so splitting at them is both general and safe.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, Protocol

from classifiers.normalise import plain
from guard.worker.controls import Starts

#: A role name at the head of a turn, as chat templates write it in plain text after a special token.
_ROLE = re.compile(r"\s*(?:system|developer|user|human|assistant|ai|bot|model|tool|ipython|function)\s*(?:\n+|$)", re.I)

#: How much of the text that the model is to continue is kept, in characters.
_TAIL = 2000

#: How far a name may reach to either side of a special token, in characters; how far a word may, or what is encoded as
#: one; and into how many pieces a text is usually cut at most.
_SEAM, _LONGEST_WORD, _MOST_SEAMS = 200, 4000, 256
#: What can be put between the parts of a name without hiding it: of this only one character is kept.
_PADDING = re.compile(r"[\W_]{4,}")


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that Lethe uses."""

    all_special_ids: list[int]
    apply_chat_template: Any

    def __hash__(self) -> int:
        """By identity."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = ...) -> str:
        """Token ids to text."""

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]:
        """Text to token ids."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One message (or one stretch between special tokens): its text and its tokens, ``[first_token, end_token)``."""

    text: str
    first_token: int
    end_token: int


@dataclass(frozen=True, slots=True)
class PromptView:
    """What a prompt says.

    ``runs`` is the same text cut at special tokens and nowhere trimmed: what a name that was hidden by a special token
    typed into its middle is put together from. ``tail`` is what the output continues, empty when a new turn begins.
    """

    segments: tuple[Segment, ...]
    runs: tuple[str, ...]
    tail: str

    @property
    def texts(self) -> list[str]:
        """The texts of the segments, in order."""
        return [segment.text for segment in self.segments]

    @property
    def joined(self) -> str:
        """The whole text, the special tokens cut out."""
        return "".join(self.runs)


class PromptReader:
    """Turns prompt token ids into a :class:`PromptView`; holds no state of any request."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}

    def read(self, token_ids: Sequence[int]) -> PromptView:
        """Split ``token_ids`` (a rendered prompt, ``[n]`` ints) into the texts between special tokens."""
        segments: list[Segment] = []
        tail, run_start = "", 0
        runs: list[str] = []
        for index, token in enumerate([*token_ids, None]):
            if token is not None and token not in self._special:
                continue
            tail = ""
            if index > run_start:
                text = self._tokenizer.decode(token_ids[run_start:index])
                role = _ROLE.match(text) if run_start else None
                body = text[role.end() :] if role else text
                runs.append(body)
                body = body.lstrip() if run_start else body
                tail = body[-_TAIL:]
                if body.strip():
                    first = run_start + self._tokens_of(text, body, token_ids[run_start:index])
                    segments.append(Segment(body, first, index))
            run_start = index + 1
        return PromptView(tuple(segments), tuple(runs), tail)

    def _tokens_of(self, text: str, body: str, ids: Sequence[int]) -> int:
        """How many of ``ids`` spell the role name and line break that precede ``body`` in ``text``."""
        header = len(text) - len(body)
        if not header:
            return 0
        # Halved and not counted up: white space before the body belongs to it, of which a client may send any amount.
        counts = range(1, len(ids) + 1)
        return bisect_right(counts, header, key=lambda count: len(self._tokenizer.decode(ids[:count])))


def seams(texts: Sequence[str]) -> tuple[str, ...]:
    """Where texts meet, if nothing stands between them: as much of either side as may belong to a name, padding aside,
    and to the words that stand there whole.

    That most of a conversation's come again with its next turn makes them cheap. A text in very many pieces has but
    one seam, all of it.
    """
    if len(texts) > _MOST_SEAMS:
        return ("".join(texts),)
    found: dict[str, None] = {}
    for spelled in dict.fromkeys((tuple(texts), tuple(map(plain, texts)))):  # mostly the same
        compact = [_PADDING.sub(" ", text) for text in spelled]
        joined = "".join(compact)
        for end in accumulate(map(len, compact[:-1])):
            first, last = max(0, end - _SEAM), min(len(joined), end + _SEAM)
            while first > 0 and end - first < _LONGEST_WORD and not joined[first - 1].isspace():
                first -= 1
            while last < len(joined) and last - end < _LONGEST_WORD and not joined[last].isspace():
                last += 1
            found[joined[first:last]] = None
    return tuple(found)


def opening(view: PromptView, tokens: int) -> int:
    """The position of the prompt's token that the answer follows, whether or not the client began the answer.

    In plain text, which has no turns, it is the last.

    Args:
        view: of the prompt.
        tokens: how many it has.
    """
    begun = view.tail and len(view.segments) > 1
    return view.segments[-1].first_token - 1 if begun else tokens - 1


@lru_cache(maxsize=8)
def answer_opening(tokenizer: Tokenizer) -> list[int]:
    """The token ids that the chat template puts before an answer; empty without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return []
    render = partial(tokenizer.apply_chat_template, [{"role": "user", "content": "?"}], return_dict=False)
    return list(render(add_generation_prompt=True)[len(render(add_generation_prompt=False)) :])


def answer_starts(tokenizer: Tokenizer, ids: Sequence[int]) -> Starts:
    """Where answers begin in a prompt, given as token ids: wherever the chat template opens one, and at its end."""
    mark, marked, at = answer_opening(tokenizer), [], -1
    ids, last = list(ids), len(ids) - 1
    while mark:
        try:
            at = ids.index(mark[-1], at + 1)
        except ValueError:
            break
        if ids[max(0, at + 1 - len(mark)) : at + 1] == mark:
            marked.append(at)
    return Starts(tuple(marked), -1 if last in marked else last)
