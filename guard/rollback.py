"""Taking back what must not be said: facts told in other words.

Finished clauses are judged (:mod:`guard.statements`) while the engine goes on; only their release waits. A clause that
states a protected fact ends its branch: the answer is rolled back to the token before the clause and goes on from there
with that continuation forbidden. When it comes to such a clause again and again, the fallback is said.

The guard reads what the engine produced before any parser does, as the leak guard does, and each choice by itself.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from vllm.logprobs import PromptLogprobs
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from guard import metrics, outputs
from guard.continuation import Serving
from guard.feed import Feed
from guard.held import HeldChoice, Mark
from guard.outputs import GuardedRequest
from guard.prompt_alternatives import tell
from guard.statements import ClauseJudge, ClauseVerdict, StatementRule

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Choice:
    """One choice of one request.

    Attributes:
        held: what it has said.
        judge: of its clauses.
        feed: where its outputs come from.
        attempts: how often it was rolled back.
        banned: by number of tokens that precede it, what was tried there in vain.
        ending: with what it ends, if not with what the engine said.
        closed: whether all of it was sent.
    """

    held: HeldChoice
    judge: ClauseJudge
    feed: Feed
    attempts: int = 0
    banned: dict[int, set[int]] = field(default_factory=dict)
    ending: CompletionOutput | None = None
    closed: bool = False

    @property
    def over(self) -> bool:
        """Whether it says no more."""
        return self.held.finished or self.ending is not None

    @property
    def judged(self) -> int:
        """How much of what it has said is known to state nothing, in characters of judged text."""
        if self.judge.start is not None:
            return self.judge.start
        return self.held.start + self.judge.untold(self.held.begun)


class StatementGuard:
    """Filters the outputs of one request.

    Args:
        request: as the client sent it.
        rule: what must not be told.
        serving: ran the request, perhaps changed by an intervention.
    """

    def __init__(self, request: GuardedRequest, rule: StatementRule, serving: Serving) -> None:
        self._request = request
        self._kind = request.params.output_kind
        self._rule = rule
        self._serving = serving
        self._choices: dict[int, _Choice] = {}
        self._feeds: list[Feed] = []
        self._outcomes: dict[int, CompletionOutput] = {}  # of a request that does not stream
        self._template: RequestOutput | None = None  # the engine's last output, of which ours are copies
        self._clean: PromptLogprobs | None = None  # what of the prompt may be told
        self._lead_in = frozenset(request.tokenizer.encode(request.lead_in, add_special_tokens=False))

    async def watch(self, source: AsyncIterator[RequestOutput]) -> AsyncGenerator[RequestOutput, None]:
        """Pass on ``source`` with every clause taken back that states something protected."""
        self._feeds = [Feed(source, self._kind)]
        try:
            while self._feeds or any(choice.judge.start is not None for choice in self._choices.values()):
                await self._wait()
                for choice in self._choices.values():
                    if (objection := choice.judge.objection()) is not None:
                        clause, verdict = objection
                        await self._take_back(choice, choice.held.mark_before(clause.start), verdict)
                released = [one for choice in self._choices.values() if (one := self._release(choice)) is not None]
                done = len(self._choices) >= self._request.params.n and all(c.closed for c in self._choices.values())
                if self._kind is RequestOutputKind.FINAL_ONLY:
                    self._outcomes |= {one.index: one for one in released}
                    released = [self._outcomes[index] for index in sorted(self._outcomes)] if done else []
                if released or done:
                    yield self._output(released, done)
                if done:
                    return
        finally:
            for choice in self._choices.values():
                choice.judge.go_back(())
            for feed in self._feeds:
                await feed.close()

    async def _wait(self) -> None:
        """Wait until there are outputs or judgements, and read the outputs."""
        judging = [task for choice in self._choices.values() for task in choice.judge.tasks]
        arrived = list(self._feeds)
        if len(arrived) != 1 or judging:
            awaited: set[asyncio.Future[Any]] = {*(feed.next for feed in arrived), *judging}
            if awaited:  # judgements can end while the client takes its time
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            arrived = [feed for feed in arrived if feed.next.done()]
        for feed in arrived:
            await self._read(feed)

    async def _read(self, feed: Feed) -> None:
        """Take the next output of a feed."""
        try:
            result = await feed.take()
        except Exception:
            if feed.index is None:
                raise
            logger.exception("An answer could not be continued")
            result = None
        if result is None:
            self._feeds.remove(feed)
            if feed.index is not None and not (choice := self._choices[feed.index]).held.finished:
                await self._cut(choice, choice.held.mark_before(choice.judged))
            return
        if feed.index is None:
            if result.prompt_logprobs is not None and result.prompt_logprobs is not self._clean:
                if await tell(self._request, self._rule, result):
                    result.prompt_logprobs = outputs.know_nothing(self._request)
                self._clean = result.prompt_logprobs
            elif self._template is not None and result.prompt_logprobs is None:
                result.prompt_logprobs = self._template.prompt_logprobs  # the engine tells them only once
            self._template = result
        for step in feed.steps(result):
            index = step.index if feed.index is None else feed.index
            choice = self._choices.get(index) or self._new_choice(index, feed)
            if choice.feed is feed and not choice.over:
                await self._take(choice, step)

    def _new_choice(self, index: int, feed: Feed) -> _Choice:
        judge = ClauseJudge(self._rule, self._request.view)
        choice = self._choices[index] = _Choice(HeldChoice(self._request, index), judge, feed)
        return choice

    async def _take(self, choice: _Choice, step: CompletionOutput) -> None:
        """Read what a choice says next."""
        if step.logprobs and (banned := choice.banned.get(len(choice.held.tokens))):
            for token in banned.difference(step.token_ids[:1]):
                (step.logprobs[0] or {}).pop(token, None)
        choice.judge.ask(choice.held.take(step))
        if choice.held.finished and step.finish_reason is None:  # a stop string that the engine could not see
            await self._stop(choice)

    async def _take_back(self, choice: _Choice, place: Mark, verdict: ClauseVerdict) -> None:
        """Go on from ``place`` in another way, or say the fallback there."""
        held, serving = choice.held, self._serving
        again = verdict is ClauseVerdict.STATED and serving.resumable and place.tokens < len(held.tokens)
        if not again or choice.attempts >= self._rule.attempts:
            await self._cut(choice, place)
            return
        metrics.ROLLBACKS.labels(outcome="continued").inc()
        await self._stop(choice)
        choice.attempts += 1
        # What was tried further on was tried after other words.
        choice.banned = {at: tried for at, tried in choice.banned.items() if at <= place.tokens}
        banned = choice.banned.setdefault(place.tokens, set())
        banned.add(held.tokens[place.tokens])
        choice.judge.go_back(held.go_back(place))
        resumed = serving.resume(held.tokens, held.index, choice.attempts, banned)
        choice.feed = Feed(resumed, self._kind, held.index)
        self._feeds.append(choice.feed)

    async def _cut(self, choice: _Choice, place: Mark) -> None:
        """End a choice at ``place`` and say the fallback there."""
        metrics.ROLLBACKS.labels(outcome="fallback").inc()
        await self._stop(choice)
        held, request = choice.held, self._request
        choice.judge.go_back(held.go_back(place))
        lead_in = request.lead_in if self._lead_in.isdisjoint(held.tokens) else ""
        text = lead_in + ("… " if held.tokens else "") + self._rule.fallback
        canned = outputs.can(request, text, used=place.tokens)
        ending = outputs.completion(request, held.index, canned, slice(0, None))
        if (kept := held.send(held.end, final=True)) is not None:
            logprobs = ending.logprobs and [*(kept.logprobs or ()), *ending.logprobs]
            token_ids = [*kept.token_ids, *ending.token_ids]
            ending = replace(ending, text=kept.text + ending.text, token_ids=token_ids, logprobs=logprobs)
        choice.ending = ending

    async def _stop(self, choice: _Choice) -> None:
        """Read no more of what a choice is fed from; stop the engine if no other choice is fed from it."""
        feed = choice.feed
        others = (other for other in self._choices.values() if other is not choice and not other.over)
        expected = feed.index is None and len(self._choices) < self._request.params.n
        if feed not in self._feeds or expected or any(other.feed is feed for other in others):
            return
        self._feeds.remove(feed)
        await feed.close()
        if feed.index is None:
            await self._serving.abort()

    def _release(self, choice: _Choice) -> CompletionOutput | None:
        """What of a choice may leave now."""
        held = choice.held
        if choice.closed:
            return None
        if choice.ending is not None:
            choice.closed = True
            return choice.ending
        choice.closed = held.finished and choice.judge.start is None
        upto = held.end if choice.closed else held.safe_mark(choice.judged)
        return held.send(upto, final=choice.closed)

    def _output(self, completions: list[CompletionOutput], done: bool) -> RequestOutput:
        assert self._template is not None
        result = copy.copy(self._template)
        result.outputs, result.finished = completions, done
        if self._kind is RequestOutputKind.DELTA:
            self._template.prompt_logprobs = None
        return result
