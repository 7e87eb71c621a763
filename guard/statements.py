"""Judging the clauses of an answer for facts told in other words, while the engine goes on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from classifiers.clauses import Clause, ClauseSplitter, split_clauses
from classifiers.results import Hit
from classifiers.statement_index import Candidate, Stated, StatementIndex
from classifiers.statements import Context, is_question, repeats, shortened, subject_of
from classifiers.windows import sentences
from guard import metrics
from guard.detection import Detection
from guard.prompt import PromptView
from guard.types import GuardName, GuardToggle, OnError, TenantPolicy

logger = logging.getLogger(__name__)

#: How often a choice is rolled back before the fallback is said.
ATTEMPTS = 3
#: How much of what was asked is compared together with an answer, in characters.
_ASKED = 300


@dataclass(frozen=True, slots=True)
class StatementRule:
    """What must not be told in answer to one request.

    Attributes:
        index: every target's statements.
        enforced: keys of targets whose statements are taken back.
        monitored: keys of targets whose statements are only reported.
        toggle: how long a judgement may take, and what it counts as when it fails.
        fallback: what is said instead.
        report: called once for each choice and target.
        failed: called when a clause could not be judged.
        ignored: keys of words that may be told (see :func:`classifiers.statements.word_keys`).
        attempts: how often a choice is rolled back.
        owner: whose turn at the encoder its clauses take; tenants have theirs.
    """

    index: StatementIndex
    enforced: frozenset[str]
    monitored: frozenset[str]
    toggle: GuardToggle
    fallback: str
    report: Callable[[Hit, bool], None] | None = None  # (what was stated, whether it was taken back)
    failed: Callable[[], None] | None = None
    ignored: frozenset[str] = frozenset()
    attempts: int = ATTEMPTS
    owner: str | None = None

    @property
    def keys(self) -> frozenset[str]:
        """All targets that are looked for."""
        return self.enforced | self.monitored

    def note_failure(self) -> bool:
        """Count what could not be judged; whether it must not leave."""
        if self.failed is not None:
            self.failed()
        return self.toggle.on_error is OnError.CLOSED and bool(self.enforced)

    def note(self, found: Iterable[Stated], reported: set[str]) -> bool:
        """Report what was found of targets that are not in ``reported`` yet; whether any of it must not leave."""
        forbidden = False
        for hit, _ in found:
            forbidden |= hit.key in self.enforced
            if hit.key not in reported and self.report is not None:
                reported.add(hit.key)
                self.report(hit, hit.key in self.enforced)
        return forbidden


class ClauseVerdict(Enum):
    """What a judgement of a clause says."""

    CLEAR = auto()
    STATED = auto()
    UNAVAILABLE = auto()  # it failed, and that is not to count as clear


class ClauseJudge:
    """Judges the clauses of one choice, in order; those that by their words can state nothing are clear at once.

    What a clause that was taken back told may not be told in the rest of the answer either, whatever it is told of.

    Args:
        rule: what must not be told.
        view: what the prompt says.
    """

    def __init__(self, rule: StatementRule, view: PromptView) -> None:
        self._rule = rule
        self._question, self._begun = asked(view)
        self._before = self._begun
        self._named, self._subject = rule.index.spoken_of(view.texts, rule.keys), subject_of(view.texts)
        self._pending: deque[tuple[Clause, asyncio.Future[ClauseVerdict]]] = deque()
        self._reported: set[str] = set()
        self._taken_back: list[Mapping[str, float]] = []
        self._looked_at, self._untold = "", 0

    @property
    def tasks(self) -> list[asyncio.Future[ClauseVerdict]]:
        """The judgements under way."""
        return [task for _, task in self._pending if not task.done()]

    @property
    def start(self) -> int | None:
        """Where the first clause begins that is being judged; None where none is."""
        return self._pending[0][0].start if self._pending else None

    def untold(self, begun: str) -> int:
        """How many characters of a clause that is not finished may leave: it will not be about them that it is taken
        back. None do where the conversation speaks of a target.

        Asked at every token, so it goes on from the last word that was looked at.
        """
        rule = self._rule
        if self._taken_back or not self._named.isdisjoint(rule.enforced):
            return 0
        if not begun.startswith(self._looked_at):
            self._untold = 0
        word = begun.rfind(" ", 0, self._untold) + 1
        self._looked_at, self._untold = begun, word + rule.index.untold(begun[word:], rule.enforced)
        return self._untold

    def ask(self, clauses: Iterable[Clause]) -> None:
        """Judge the next clauses."""
        index, keys = self._rule.index, self._rule.keys
        for clause in clauses:
            context = Context(self._question, self._before, self._named, self._rule.ignored, self._subject)
            candidates = index.candidates(clause.text, context, keys)
            self._before = clause.text
            self._named |= {one.key for one in candidates if one.named}
            if any(repeats(clause.text, told) for told in self._taken_back):
                again: asyncio.Future[ClauseVerdict] = asyncio.get_running_loop().create_future()
                again.set_result(ClauseVerdict.STATED)
                self._pending.append((clause, again))
            elif telling := [one for one in candidates if one.rows]:
                self._pending.append((clause, asyncio.ensure_future(self._judge(clause, context, telling))))

    def objection(self) -> tuple[Clause, ClauseVerdict] | None:
        """The first clause that must not leave, as far as is known, and why; those before it are clear."""
        while self._pending and self._pending[0][1].done():
            clause, task = self._pending.popleft()
            if (verdict := task.result()) is not ClauseVerdict.CLEAR:
                return clause, verdict
        return None

    def go_back(self, left: Sequence[Clause]) -> None:
        """Forget what is being judged; ``left`` are the clauses that precede the next."""
        for _, task in self._pending:
            task.cancel()
        self._pending.clear()
        self._before = left[-1].text if left else self._begun

    async def _judge(self, clause: Clause, context: Context, candidates: Sequence[Candidate]) -> ClauseVerdict:
        rule = self._rule
        began = time.perf_counter()
        try:
            judging = rule.index.judge(clause.text, context, candidates, owner=rule.owner)
            found = await asyncio.wait_for(judging, rule.toggle.deadline_ms / 1000)
        except Exception as error:
            logger.error("A clause could not be judged: %r", error)
            return ClauseVerdict.UNAVAILABLE if rule.note_failure() else ClauseVerdict.CLEAR
        finally:
            metrics.CLAUSE_SECONDS.observe(time.perf_counter() - began)
        self._taken_back += [told for hit, told in found if hit.key in rule.enforced]
        return ClauseVerdict.STATED if rule.note(found, self._reported) else ClauseVerdict.CLEAR


def statement_rule(
    detection: Detection,
    policy: TenantPolicy,
    *,
    fallback: str = "",
    ignored: frozenset[str] = frozenset(),
    report: Callable[[Hit, bool], None] | None = None,
    failed: Callable[[], None] | None = None,
) -> StatementRule | None:
    """What a tenant's requests must not be told in other words; None where there is no such thing."""
    toggle, reach = policy.guards[GuardName.STATEMENTS], detection.reach(policy)
    if not (toggle.enabled and reach.stating):
        return None
    return StatementRule(
        index=detection.statements,
        enforced=reach.enforced & reach.stating,
        monitored=reach.monitored & reach.stating,
        toggle=toggle,
        fallback=fallback,
        report=report,
        failed=failed,
        ignored=ignored,
        owner=policy.tenant.id,
    )


async def tells(rule: StatementRule, view: PromptView, completion: str) -> bool:
    """Whether a complete answer has a clause that must not leave."""
    judge = ClauseJudge(rule, view)
    judge.ask(split_clauses(completion))
    while judge.start is not None:
        await asyncio.wait(judge.tasks)
        if judge.objection() is not None:
            judge.go_back(())
            return True
    return False


def asked(view: PromptView) -> tuple[str, str]:
    """What a prompt asks, shortened, and the beginning of the clause that the answer goes on with."""
    if not view.tail:
        return question_of(view.texts), ""
    splitter = ClauseSplitter()
    splitter.feed(view.tail)
    return question_of([view.tail[: splitter.start]]), view.tail[splitter.start :]


def question_of(texts: Sequence[str]) -> str:
    """What the last of a conversation's messages asks, shortened: how it ends, or, where no question stands there, the
    last one before. Empty where there is no message.
    """
    text = "".join(texts[-1:])
    end = text[-_ASKED:]
    if end == text or any(map(is_question, sentences(end))):
        return end
    before = [one for one in sentences(shortened(text)) if is_question(one)]
    return before[-1][-_ASKED:] if before else end
