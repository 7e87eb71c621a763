"""The part of a prompt that speaks of no target: what is answered where the rest may not be.

Who asks two things, one of which is forgotten, gets an answer to the other. What is served then is the same
conversation without the sentences that speak of a target, and it is judged anew as if the client had sent just that:
so nobody is told more than he could have asked for anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from classifiers.windows import pieces
from classifiers.words import is_function_word, split_words
from guard.outputs import GuardedRequest

#: What the audit says was done about a request that was answered without the sentences on a target.
PARTIAL = "partial"
#: A message of more sentences is not taken apart, since each of them is judged by itself.
_MOST = 16


async def harmless_part(
    request: GuardedRequest, harmless: Callable[[str], Awaitable[bool | None]]
) -> dict[str, Any] | None:
    """The prompt of ``request`` without the sentences of its last message that speak of a target.

    None where that is not worth serving or cannot be done: nothing that is left is a question of its own, no single
    sentence speaks of a target, the client began the answer, or wants log-probabilities of his prompt.

    Args:
        request: flagged.
        harmless: whether a text, by itself, speaks of no target; None where that cannot be told.
    """
    view = request.view
    if request.params.prompt_logprobs is not None or request.prompt.get("type") != "token" or view.tail:
        return None
    if not view.segments or not 1 < len(parts := pieces(view.segments[-1].text.strip())) <= _MOST:
        return None
    verdicts = await asyncio.gather(*map(harmless, parts))
    kept = [part for part, verdict in zip(parts, verdicts, strict=True) if verdict]
    if None in verdicts or len(kept) == len(parts) or not any(map(_asks, kept)):
        return None
    last, ids = view.segments[-1], request.token_ids
    around = last.text.split(last.text.strip())  # white space that may be the template's
    text = "".join(kept).strip().join(around)
    spelled = request.tokenizer.encode(text, add_special_tokens=False)
    left = {name: value for name, value in request.prompt.items() if name != "prompt"}
    return {**left, "prompt_token_ids": [*ids[: last.first_token], *spelled, *ids[last.end_token :]]}


def _asks(part: str) -> bool:
    """Whether a sentence asks something; "What is it?" asks for what was said before, which may be what is left out."""
    return part.rstrip().endswith("?") and not all(is_function_word(word.text) for word in split_words(part))
