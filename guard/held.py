"""One choice of an answer while it is held back: its clauses, its tokens, and how much of it may leave.

Text, token ids and log-probabilities stay aligned: what arrived in one engine step leaves together.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple

from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.detokenizer import check_stop_strings

from classifiers.clauses import Clause, ClauseSplitter
from guard.outputs import GuardedRequest, hides_text
from guard.token_reader import PRIMED, TokenReader


class Mark(NamedTuple):
    """A place in a choice, between two tokens.

    Attributes:
        tokens: how many precede it.
        text: how many characters of the text that the client sees.
        read: how many characters of the text that is judged.
    """

    tokens: int = 0
    text: int = 0
    read: int = 0


class HeldChoice:
    """What a choice has said so far, of which some was sent and the rest is held.

    Attributes:
        index: of the choice.
        tokens: all token ids.
        sent: how far it was sent.
        last: the engine's last output of it, with the finish reason if it has one.
        finished: whether the model has ended it.
    """

    def __init__(self, request: GuardedRequest, index: int) -> None:
        params = request.params
        self.index = index
        self.tokens: list[int] = []
        self.sent = Mark()
        self.last: CompletionOutput | None = None
        self.finished = False
        self._request = request
        self._delta = params.output_kind is RequestOutputKind.DELTA
        self._logprobs: list[Any] | None = None
        self._text = ""
        self._read = ""
        self._marks: deque[Mark] = deque()
        self._splitter = ClauseSplitter()
        self._by_token = hides_text(params)
        self._reader = self._reader_at(0)
        self._seam: int | None = None

    @property
    def start(self) -> int:
        """Where the clause begins that is not finished yet, in judged text."""
        return len(self._read) if self.finished else self._splitter.start

    @property
    def begun(self) -> str:
        """What there is of that clause."""
        return self._read[self.start :]

    def take(self, step: CompletionOutput) -> list[Clause]:
        """Add what the engine said next; the clauses that this finishes."""
        self.last, self.finished = step, step.finish_reason is not None
        self.tokens += step.token_ids
        if step.logprobs is not None:
            self._logprobs = self._logprobs or []
            self._logprobs.extend(step.logprobs)
        self._text += step.text
        piece = "".join(map(self._reader.step, step.token_ids)) if self._by_token else step.text
        self._read += piece
        if self._seam is not None:
            self._stop_at_seam(self._seam, len(piece))
        if self._seam is None or self.finished:
            self._marks.append(Mark(len(self.tokens), len(self._text), len(self._read)))
        return [*self._splitter.feed(piece), *(self._splitter.finish() if self.finished else [])]

    def safe_mark(self, safe: int) -> Mark:
        """The last place that the first ``safe`` characters of judged text reach."""
        found = self.sent
        while self._marks and self._marks[0].read <= safe:
            found = self._marks.popleft()
        return found

    def mark_before(self, start: int) -> Mark:
        """The last place between two tokens at or before ``start`` in judged text, not before what was sent."""
        count, at = self.sent.tokens, self.sent.read
        reached, position = count, at
        reader = self._reader_at(count)
        for token in self.tokens[count:]:
            reached, position = reached + 1, position + len(reader.step(token))
            if position > start:
                break
            if reader.whole:
                count, at = reached, position
        # What the client sees lags behind only until the text goes on.
        return Mark(count, at if self._request.params.detokenize else 0, at)

    def go_back(self, to: Mark) -> list[Clause]:
        """Forget what comes after ``to``, where the next outputs continue; the whole clauses that are left."""
        del self.tokens[to.tokens :]
        if self._logprobs is not None:
            del self._logprobs[to.tokens :]
        # What the engine held back for a stop string is part of it now: its detokenizer starts anew.
        self._text = (self._read if self._by_token else self._text)[: to.text]
        self._read = self._read[: to.read]
        self._marks.clear()
        self._splitter = ClauseSplitter()
        self._reader = self._reader_at(to.tokens)
        self._seam = to.read if self._by_token and self._request.params.stop else None
        self.finished = False
        return self._splitter.feed(self._read)

    def send(self, upto: Mark, *, final: bool) -> CompletionOutput | None:
        """What is to be sent so that the client has everything up to ``upto``; None where that is nothing.

        Args:
            upto: a place that may be reached.
            final: whether nothing follows, so that the finish reason goes with it.
        """
        since = self.sent if self._delta else Mark()
        if self.last is None or not (final or upto.tokens > self.sent.tokens or upto.text > self.sent.text):
            return None
        self.sent = upto
        logprobs = self._logprobs and self._logprobs[since.tokens : upto.tokens]
        return replace(
            self.last,
            index=self.index,
            text=self._text[since.text : upto.text],
            token_ids=self.tokens[since.tokens : upto.tokens],
            logprobs=logprobs,
            cumulative_logprob=self._cumulative() if final else self.last.cumulative_logprob,
            finish_reason=self.last.finish_reason if final else None,
            stop_reason=self.last.stop_reason if final else None,
        )

    @property
    def end(self) -> Mark:
        """The place after everything."""
        return Mark(len(self.tokens), len(self._text), len(self._read))

    def _cumulative(self) -> float | None:
        if self._logprobs is None:
            return None
        return sum(told[token].logprob for token, told in zip(self.tokens, self._logprobs, strict=False) if told)

    def _reader_at(self, count: int) -> TokenReader:
        params = self._request.params
        before = [*self._request.token_ids[-PRIMED:], *self.tokens[:count]]
        return TokenReader(self._request.tokenizer, before, skip_special_tokens=params.skip_special_tokens)

    def _stop_at_seam(self, seam: int, new: int) -> None:
        """Look for stop strings that begin before the place gone back to: the engine sees only what comes after it."""
        params = self._request.params
        stops = [params.stop] if isinstance(params.stop, str) else list(params.stop or ())
        if len(self._read) - seam >= max(map(len, stops)):
            self._seam = None
        if self.finished or len(self.tokens) <= params.min_tokens:
            return
        found = check_stop_strings(self._read, new, stops, params.include_stop_str_in_output)
        if found is None or self.last is None:
            return
        stop, end = found
        if params.detokenize:
            self._text = self._read if end < 0 else self._read[:end]
        self.last, self.finished = replace(self.last, finish_reason="stop", stop_reason=stop), True
