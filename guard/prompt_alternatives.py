"""Facts that a prompt's log-probabilities tell in other words: by what the model would rather have read there.

Whoever sends "It makes ink" and reads which token is likelier to come next than the one he sent has the fact, though no
answer ever states it. Each alternative is read as the end of the clause that it would go on with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from functools import cache

from vllm.outputs import RequestOutput

from classifiers.clauses import ClauseSplitter
from classifiers.statements import Context, subject_of
from guard.outputs import GuardedRequest
from guard.prompt import Segment
from guard.statements import StatementRule, question_of
from guard.token_reader import TokenReader

logger = logging.getLogger(__name__)


async def tell(request: GuardedRequest, rule: StatementRule, result: RequestOutput) -> bool:
    """Whether the alternatives in ``result.prompt_logprobs`` state what the rule forbids; true too where that could not
    be judged and this is not to count as no. What is only monitored is reported.
    """
    if not any(len(at or ()) > 1 for at in result.prompt_logprobs or ()):
        return False  # the tokens that were sent and nothing else, as where prompts are scored
    try:
        async with asyncio.timeout(rule.toggle.deadline_ms / 1000):
            return await _tell(request, rule, result)
    except Exception as error:
        logger.error("Log-probabilities of a prompt could not be judged: %r", error)
        return rule.note_failure()


async def _tell(request: GuardedRequest, rule: StatementRule, result: RequestOutput) -> bool:
    texts, reported = request.view.texts, set[str]()

    @cache  # of this prompt: most alternatives are the same few hundred words everywhere
    def may_tell(begun: str) -> bool:
        return rule.index.untold(begun, rule.keys) < len(begun)

    for number, segment in enumerate(request.view.segments):
        earlier = texts[:number]  # by themselves: half a number may read as somebody else's name
        asked, subject = question_of(earlier), subject_of(earlier)
        named = rule.index.spoken_of(earlier, rule.keys) | rule.index.spoken_of([segment.text], rule.keys)
        for before, begun, pieces in _goings_on(request, segment, result):
            await asyncio.sleep(0)  # other requests have their turns
            context = Context(asked, before, named, rule.ignored, subject)
            telling = bool(named) or may_tell(begun)
            for clause in (begun + piece for piece in pieces):
                if not telling and not may_tell(clause[clause.rfind(" ") + 1 :]):
                    continue  # most: a client may ask for twenty alternatives to each of thousands of tokens
                candidates = rule.index.candidates(clause, context, rule.keys)
                if rule.note(await rule.index.judge(clause, context, candidates, owner=rule.owner), reported):
                    return True
    return False


def _goings_on(
    request: GuardedRequest, segment: Segment, result: RequestOutput
) -> Iterator[tuple[str, str, list[str]]]:
    """At each token of a message, and at the one that ends it: the clause before, that begun, and the alternatives."""
    ids, told = result.prompt_token_ids or [], result.prompt_logprobs or []
    longer = len(ids) - len(request.token_ids)  # by what an intervention put before it
    first, end = max(0, segment.first_token + longer), min(segment.end_token + longer + 1, len(ids), len(told))
    reader = TokenReader(request.tokenizer, ids[:first], skip_special_tokens=True)
    splitter, text, before = ClauseSplitter(), "", ""
    for at in range(first, end):
        pieces = [reader.peek(token) for token in told[at] or () if token != ids[at]]
        if pieces := [piece for piece in pieces if any(map(str.isalnum, piece))]:
            yield before, text[splitter.start :], pieces
        piece = reader.step(ids[at])
        text += piece
        for clause in splitter.feed(piece):
            before = clause.text
