"""The output guards of one request, put together: what an answer passes on its way out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from classifiers.phrase_matcher import Match
from classifiers.results import Hit
from classifiers.statements import word_keys
from classifiers.words import split_words
from guard.continuation import Serving
from guard.leakguard import LeakGuard, LeakRule
from guard.outputs import GuardedRequest
from guard.policy import decide
from guard.rollback import StatementGuard
from guard.service import GuardService
from guard.statements import statement_rule
from guard.types import Finding, GuardName, TenantPolicy


class OutputGuards:
    """What watches the answers to one request, and what was come upon in them.

    Attributes:
        leaks: what was found, and whether the answer was cut for it.
        unavailable: the guards that could not judge.
    """

    def __init__(self, service: GuardService, request: GuardedRequest, policy: TenantPolicy) -> None:
        self._service, self._request, self._policy = service, request, policy
        self.leaks: list[tuple[Match | Hit | Finding, bool]] = []
        self.unavailable: set[GuardName] = set()

    @property
    def cut(self) -> bool:
        """Whether something was taken out of an answer."""
        return any(cut for _, cut in self.leaks)

    async def watch(
        self,
        stack: contextlib.AsyncExitStack,
        source: AsyncIterator[RequestOutput],
        serving: Serving,
        *,
        as_if_unknown: bool = False,
    ) -> AsyncIterator[RequestOutput]:
        """``source`` past the guards that the tenant has on.

        Args:
            stack: closes them.
            source: the answer as it comes.
            serving: what ``source`` is served by, to have an answer go on in other words.
            as_if_unknown: the model answers as if it did not know, and may repeat what it was asked about.
        """
        request, policy = self._request, self._policy
        rule = statement_rule(
            self._service.detection,
            policy,
            fallback=self._service.refusal_text(policy),
            ignored=word_keys(split_words(request.view.joined)) if as_if_unknown else frozenset(),
            report=lambda hit, taken_back: self.leaks.append((hit, taken_back)),
            failed=lambda: self.unavailable.add(GuardName.STATEMENTS),
        )
        if rule is not None:
            stated = StatementGuard(request, rule, serving).watch(source)
            source = await stack.enter_async_context(contextlib.aclosing(stated))
        if policy.guards[GuardName.LEAK].enabled:
            source = LeakGuard(request, self._leak_rule(as_if_unknown)).watch(source)
        return source

    async def harmless(self, held: Sequence[RequestOutput]) -> bool:
        """Whether a whole answer speaks of no target. A client's grammar says what its prompt did not: a question that
        every answer must begin with is judged where it comes out.
        """
        said: dict[int, list[int]] = {}
        for one in (one for result in held for one in result.outputs):
            if self._request.params.output_kind is not RequestOutputKind.DELTA:
                said.pop(one.index, None)  # each output carries the whole answer
            said.setdefault(one.index, []).extend(one.token_ids)
        texts = [self._request.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in said.values()]
        plan = decide(await self._service.detection.judge(self._policy, texts, ()), self._policy)
        self.unavailable.update(plan.unavailable)
        self.leaks.extend((finding, True) for finding in plan.findings)
        self.leaks.extend((finding, False) for finding in plan.monitored)
        return plan.action is None

    def _leak_rule(self, as_if_unknown: bool) -> LeakRule:
        detection = self._service.detection
        reach = detection.reach(self._policy)
        said = detection.phrases.said(self._request.view.joined, reach.enforced) if as_if_unknown else frozenset()
        return LeakRule(
            index=detection.phrases,
            verbatim=detection.verbatim,
            ignored=said,
            enforced=reach.enforced,
            monitored=reach.monitored,
            fallback=self._service.refusal_text(self._policy),
            report=lambda match, cut: self.leaks.append((match, cut)),
        )
