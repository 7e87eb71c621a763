"""The last gate: no protected phrase leaves in any choice, chunk, log-probability or tool argument, and no copy of a
protected document in any choice, chunk or tool argument.

The guard reads what the engine produced before any parser does, so reasoning text and tool arguments are covered
like everything else. A stream is held back only as far as it could still become a match, whole engine steps at a
time, so that text, token ids and log-probabilities stay aligned.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from classifiers.phrase_index import PhraseIndex
from classifiers.phrase_matcher import Match, PhraseMatcher
from classifiers.verbatim import VerbatimIndex, VerbatimMatcher
from guard import outputs
from guard.outputs import GuardedRequest, hides_text
from guard.token_reader import TokenReader

#: After so many tokens and alternatives other requests have their turn: a result may take seconds to read.
_TURN = 128
#: Characters that are read like a token where tokens are not.
_PIECE = 16


@dataclass(frozen=True, slots=True)
class LeakRule:
    """What must not leave for one request.

    Attributes:
        index: every target's phrases.
        enforced: keys of targets whose phrases and documents are cut off.
        monitored: keys of targets whose phrases and documents are only reported.
        fallback: what is said instead.
        report: called once for each choice and match.
        ignored: phrases that may leave all the same.
        verbatim: every target's documents.
    """

    index: PhraseIndex
    enforced: Collection[str]
    monitored: Collection[str]
    fallback: str
    report: Callable[[Match, bool], None]  # (match, whether it was cut off)
    ignored: Collection[str] = ()
    verbatim: VerbatimIndex = field(default_factory=VerbatimIndex)


class _Watch:
    """Reads one choice on behalf of some targets: for their phrases and for copies of their documents."""

    def __init__(self, phrases: PhraseMatcher, copies: VerbatimMatcher) -> None:
        self.phrases = phrases
        self._copies = copies

    @classmethod
    def of(cls, rule: LeakRule, keys: Collection[str], tail: str, ignored: Collection[str] = ()) -> _Watch:
        """One that has read the prompt's tail."""
        copies = rule.verbatim.matcher(keys, prompt_tail=tail)
        return cls(rule.index.matcher(keys, prompt_tail=tail, ignored=ignored), copies)

    def fork(self) -> _Watch:
        """One that has read the same and reads on by itself."""
        return _Watch(self.phrases.fork(), self._copies.fork())

    @property
    def safe(self) -> int:
        """How many characters of the choice can no longer become part of a match."""
        return min(self.phrases.safe, self._copies.safe)

    def feed(self, text: str) -> Match | None:
        """Read the next piece; return the match that is now complete, if any."""
        return _first((self.phrases.feed(text), self._copies.feed(text)))

    def finish(self) -> Match | None:
        """Say that the choice has ended; return a match that ends with it, if any."""
        return _first((self.phrases.finish(), self._copies.finish()))

    def unfinished(self) -> Match | None:
        """Most of a phrase, within which the choice was cut off."""
        return self.phrases.unfinished()

    def completes(self, text: str) -> bool:
        """Whether ``text``, said instead of the match, would be the next word of what was cut off."""
        return self._copies.completes(text)


def _first(matches: Iterable[Match | None]) -> Match | None:
    return min((match for match in matches if match is not None), default=None)


@dataclass(slots=True)
class _Choice:
    """One choice of one request: its matchers and the steps that have not been released yet."""

    enforced: _Watch
    monitored: _Watch | None
    held: deque[tuple[CompletionOutput, int]] = field(default_factory=deque)  # (step, text position after it)
    decoded: TokenReader | None = None
    position: int = 0
    tokens_sent: int = 0
    answering: bool = True  # False while a reasoning model still thinks aloud
    closed: bool = False


class LeakGuard:
    """Filters the outputs of one request."""

    def __init__(self, request: GuardedRequest, rule: LeakRule) -> None:
        self._request = request
        self._rule = rule
        self._choices: dict[int, _Choice] = {}
        params = request.params
        # With log-probabilities every token shows its own text; and special tokens that the client wants to see would
        # stand within what they are put into.
        shows_more = params.num_logprobs is not None or not params.skip_special_tokens
        self._by_token = hides_text(params) or shows_more
        self._whole = params.output_kind is not RequestOutputKind.DELTA
        self._read_since = 0  # tokens and alternatives since others had their turn
        self._lead_in = frozenset(request.tokenizer.encode(request.lead_in, add_special_tokens=False))

    async def watch(self, results: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
        """Pass on ``results`` with everything protected taken out; stop the engine once nothing more can be said."""
        cleaned = None
        async for result in results:
            for completion in result.outputs:
                _freeze(completion)
            # Each choice of a stream may come with its own.
            if result.prompt_logprobs is not None and result.prompt_logprobs is not cleaned:
                await self._clean_prompt_logprobs(result)
                cleaned = result.prompt_logprobs
            result.outputs = [kept for completion in result.outputs if (kept := await self._pass(completion))]
            everyone_done = len(self._choices) >= self._request.params.n and all(
                choice.closed for choice in self._choices.values()
            )
            result.finished = result.finished or everyone_done
            if result.outputs or result.finished:
                yield result
            if everyone_done:
                return

    async def _pass(self, completion: CompletionOutput) -> CompletionOutput | None:
        choice = self._choices.get(completion.index)
        if choice is None or self._whole:  # cumulative and final outputs carry the whole text every time
            choice = self._choices[completion.index] = self._new_choice()
            await self._take_turns(_TURN)
        if choice.closed:
            return None
        found = await self._read(choice, completion)
        choice.held.append((completion, choice.position))
        if completion.finish_reason is not None:
            unfinished = choice.enforced.unfinished() if _is_cut_off(completion, self._request.params) else None
            found = found or choice.enforced.finish() or unfinished
            if choice.monitored and (seen := choice.monitored.finish()):
                self._note_monitored(choice, seen)
        if found is not None:
            self._rule.report(found, True)
            return self._cut(choice, completion.index, found)
        if completion.finish_reason is not None:
            choice.closed = True
            return self._release(choice, len(choice.held))
        safe, count = choice.enforced.safe, 0
        for _, position in choice.held:
            if position > safe:
                break
            count += 1
        return self._release(choice, count)

    def _new_choice(self) -> _Choice:
        enforced, monitored = self._primed
        return _Choice(
            enforced=enforced.fork(),
            monitored=monitored and monitored.fork(),
            decoded=self._reader() if self._by_token else None,
            answering=not self._lead_in,
        )

    @cached_property
    def _primed(self) -> tuple[_Watch, _Watch | None]:
        """What watches for enforced and monitored targets, before the first choice: all continue the same prompt."""
        tail, rule = self._request.view.tail, self._rule
        monitored = _Watch.of(rule, rule.monitored, tail) if rule.monitored else None
        return _Watch.of(rule, rule.enforced, tail, rule.ignored), monitored

    async def _take_turns(self, read: int) -> None:
        """Let other requests go on once enough was read."""
        self._read_since += read
        if self._read_since >= _TURN:
            self._read_since = 0
            await asyncio.sleep(0)

    def _reader(self) -> TokenReader:
        # Special tokens are no text to most clients: within a name they would hide it.
        return TokenReader(self._request.tokenizer, (), skip_special_tokens=True)

    async def _read(self, choice: _Choice, completion: CompletionOutput) -> Match | None:
        """Feed what ``completion`` adds to the matchers, cleaning its alternatives on the way."""
        text, tokens = completion.text, completion.token_ids
        pieces: Iterable[str] = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
        if choice.decoded is not None:
            pieces = map(choice.decoded.step, tokens)
        found = None
        for number, piece in enumerate(pieces):
            alternatives = completion.logprobs[number] if completion.logprobs else None
            if alternatives:
                self._drop_alternatives(choice.enforced.phrases, alternatives, tokens[number])
            await self._take_turns(1 + len(alternatives or ()))
            choice.position += len(piece)
            found = found or choice.enforced.feed(piece)
            if choice.monitored and (seen := choice.monitored.feed(piece)):
                self._note_monitored(choice, seen)
        return found

    def _note_monitored(self, choice: _Choice, seen: Match) -> None:
        self._rule.report(seen, False)
        choice.monitored = None  # once is enough

    def _drop_alternatives(self, matcher: PhraseMatcher, alternatives: dict[int, Logprob], chosen: int) -> None:
        others, decode = [token for token in alternatives if token != chosen], self._request.tokenizer.decode
        telling = [t for t in others if matcher.would_match(alternatives[t].decoded_token or decode([t]))]
        # Where the client named the ids, the one that is missing would be the answer to what he asks.
        for token in others if telling and self._request.params.logprob_token_ids else telling:
            del alternatives[token]

    async def _clean_prompt_logprobs(self, result: RequestOutput) -> None:
        matcher, decoder = self._rule.index.matcher(self._rule.enforced), self._reader()
        for token, alternatives in zip(result.prompt_token_ids or [], result.prompt_logprobs or [], strict=False):
            self._drop_alternatives(matcher, alternatives or {}, token)
            matcher.feed(decoder.step(token))
            await self._take_turns(1 + len(alternatives or ()))

    def _release(self, choice: _Choice, count: int) -> CompletionOutput | None:
        """Take the first ``count`` held steps and join them to one output; None when there is nothing to send."""
        if not count:
            return None
        steps = [choice.held.popleft()[0] for _ in range(count)]
        choice.tokens_sent += sum(len(step.token_ids) for step in steps)
        choice.answering |= any(not self._lead_in.isdisjoint(step.token_ids) for step in steps)
        return _joined(steps)

    def _cut(self, choice: _Choice, index: int, found: Match) -> CompletionOutput:
        """End the choice before the match and say the fallback instead."""
        choice.closed = True
        clean = 0
        if not self._whole:
            clean = sum(1 for _, position in choice.held if position <= max(found.start, 0))
        before = self._release(choice, clean)
        choice.held.clear()
        lead_in = "" if choice.answering else self._request.lead_in
        text = self._rule.fallback
        if choice.tokens_sent:
            text = "…" if choice.enforced.completes(text) else f"… {text}"
        canned = outputs.can(self._request, lead_in + text, used=choice.tokens_sent)
        fallback = outputs.completion(self._request, index, canned, slice(0, None))
        return _joined([before, fallback]) if before is not None else fallback


def _freeze(completion: CompletionOutput) -> None:
    """Part a completion from the engine's own lists: those of cumulative outputs grow while others have their turn."""
    completion.token_ids = completion.token_ids[:]
    completion.logprobs = completion.logprobs and completion.logprobs[:]


def _is_cut_off(completion: CompletionOutput, params: SamplingParams) -> bool:
    """Whether a choice ended where its client wants, by ``max_tokens``, a stop or a grammar, not where the model does.

    Many models have several end tokens. All but the tokenizer's are stop reasons, though the client never named them.
    """
    stopped_by = completion.stop_reason
    stopped = isinstance(stopped_by, str) or stopped_by in (params.stop_token_ids or ())
    return completion.finish_reason != "stop" or stopped or params.structured_outputs is not None


def _joined(steps: list[CompletionOutput]) -> CompletionOutput:
    """Consecutive steps of one choice as one step."""
    if len(steps) == 1:
        return steps[0]
    last = steps[-1]
    logprobs = None
    if last.logprobs is not None:
        logprobs = [position for step in steps for position in step.logprobs or []]
    return replace(
        last,
        text="".join(step.text for step in steps),
        token_ids=[token for step in steps for token in step.token_ids],
        logprobs=logprobs,
    )
