"""Detectors at work for a policy: compiles targets, indexes them, and turns a conversation into a verdict."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from classifiers.answers import document_answers, example_answers
from classifiers.detector import Compiled, TextDetector, View
from classifiers.phrase_index import PhraseIndex
from classifiers.profile import Profile
from classifiers.statement_index import StatementIndex
from classifiers.verbatim import VerbatimIndex
from guard.metrics import DETECTOR_SECONDS
from guard.prompt import seams
from guard.snapshot import Snapshot
from guard.store import Store
from guard.types import (
    ActiveTarget,
    Finding,
    ForgetTarget,
    Gating,
    GuardName,
    GuardToggle,
    Mode,
    TargetKind,
    TargetSpec,
    TenantPolicy,
    Verdict,
)

logger = logging.getLogger(__name__)


#: The score from which a sentence is on a target that the sentence beside it was on. By itself it would need some 0.27;
#: sentences on anything else have 0.001.
_HINT = 0.05

#: How long a target that is no longer current stays indexed, in seconds: requests in flight may still need it.
_GRACE = 900.0


@dataclass(frozen=True, slots=True)
class Reach:
    """What follows from one tenant's policy, by target key.

    Attributes:
        view: what the text detector may match.
        thresholds: of targets that do not use their calibrated one.
        enforced: whose phrases and documents are cut off in outputs.
        monitored: whose phrases and documents are only reported there.
        always: targets whose intervention applies whatever the detectors say.
        stating: of which statements are known that could be told in other words.
    """

    view: View
    thresholds: Mapping[str, float]
    enforced: frozenset[str]
    monitored: frozenset[str]
    always: tuple[ActiveTarget, ...]
    stating: frozenset[str]


class Detection:
    """The text detector and the indexes of protected phrases and documents, kept in step with the registry."""

    def __init__(self, detector: TextDetector, store: Store) -> None:
        self._detector = detector
        self._store = store
        self._indexed: dict[str, ForgetTarget] = {}  # by key; current and retired
        self._current: Mapping[str, ForgetTarget] = {}  # by id, of the snapshot last prepared
        self._retired: dict[str, float] = {}  # key -> when it was last current
        self._reaches: dict[str, tuple[TenantPolicy, Reach]] = {}  # by tenant id
        self._protected: dict[tuple[str, Gating], tuple[str, ...]] = {}
        self.phrases = PhraseIndex()
        self.verbatim = VerbatimIndex()
        self.statements = StatementIndex(detector.encoder)

    def prepare(self, snapshot: Snapshot) -> None:
        """Index the targets of a snapshot before requests use it (see :class:`guard.registry.Registry`).

        Blocking; called from one thread at a time. Costs what changed since the snapshot before.
        """
        before, now = self._current, snapshot.targets
        added = [target for target_id, target in now.items() if before.get(target_id) is not target]
        # By key: after a database was restored, the same revisions are other objects.
        kept = {target.key for target in now.values()}
        gone = [target.key for target in before.values() if target.key not in kept]
        # The same key can come back with another spec: its first bearer was prepared for a write that was undone.
        stale = [target.key for target in added if self._indexed.get(target.key, target).spec != target.spec]
        self._drop(stale)
        self._index([target for target in added if target.key not in self._indexed])
        for target in added:
            self._retired.pop(target.key, None)
        self._retired |= dict.fromkeys(gone, time.monotonic())
        self._purge()
        self._current = now

    def _index(self, targets: Sequence[ForgetTarget]) -> None:
        if not targets:
            return
        # What a text says tells nothing of whether a skill is needed; guard.features looks for those.
        texts = [target for target in targets if target.spec.kind is not TargetKind.SKILL]
        fingerprint = self._detector.fingerprint
        stored = self._store.compiled(texts, fingerprint)
        compiled, fresh = [], []
        for target in texts:
            blob = stored.get(target.key)
            item = Compiled.from_bytes(blob) if blob is not None else self._detector.compile(profile_of(target))
            compiled.append(item)
            if blob is None:
                fresh.append((target, item.to_bytes()))
        if fresh:
            self._store.put_compiled(fresh, fingerprint)
        for item in compiled:
            self._detector.add(item)
            self.statements.add(item)
        named = {item.key: item.phrases for item in compiled}
        for target in targets:
            spec = target.spec
            self.verbatim.add(target.key, spec.documents, run=spec.verbatim_run)
            self.phrases.add(target.key, [*named.get(target.key, ()), *spec.protected_phrases, *spec.tools])
            self._indexed[target.key] = target

    def _purge(self) -> None:
        now = time.monotonic()
        self._drop([key for key, since in self._retired.items() if now - since > _GRACE])

    def _drop(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._retired.pop(key, None)
            self._indexed.pop(key, None)
            self._detector.discard(key)
            self.phrases.discard(key)
            self.verbatim.discard(key)
            self.statements.discard(key)
            for gating in Gating:
                self._protected.pop((key, gating), None)

    async def judge(
        self,
        policy: TenantPolicy,
        texts: Sequence[str],
        runs: Sequence[str],
        *,
        suspected: Collection[str] = (),
        scored: frozenset[str] = frozenset(),
    ) -> Verdict:
        """Scan a conversation on behalf of one tenant.

        Args:
            policy: whose targets and guards apply.
            texts: one text per message.
            runs: the same, cut at special tokens; where they meet, only names are looked for.
            suspected: keys of targets that the rest of the conversation is about, for which a hint is enough.
            scored: keys of targets whose score is told however low it is.

        Returns:
            Findings, also such as only come near their thresholds, and guards that could not judge. Never raises: a
            detector that fails is reported as unavailable, and the policy says what that means.
        """
        began = time.perf_counter()
        lexicon, semantic = policy.guards[GuardName.LEXICON], policy.guards[GuardName.SEMANTIC]
        findings: dict[str, Finding] = {}
        unavailable: set[GuardName] = set()
        scans = [(texts, lexicon.enabled, semantic, scored)]
        if lexicon.enabled and (met := seams(runs)):
            scans.append((met, True, GuardToggle(enabled=False), frozenset()))  # only names count
        for segments, use_lexicon, semantic_toggle, told in scans:
            if not (use_lexicon or semantic_toggle.enabled):
                continue
            try:
                reach = self.reach(policy)
                hints = {key: min(_HINT, reach.thresholds.get(key, _HINT)) for key in suspected}
                scan = await self._detector.scan(
                    segments,
                    reach.view,
                    lexicon=use_lexicon,
                    semantic=semantic_toggle.enabled,
                    thresholds={**reach.thresholds, **hints},
                    scored=told,
                    deadline=semantic_toggle.deadline_ms / 1000,
                )
            except Exception:
                logger.exception("The text detector failed")
                unavailable |= {GuardName.LEXICON} if use_lexicon else set()
                unavailable |= {GuardName.SEMANTIC} if semantic_toggle.enabled else set()
                continue
            unavailable |= {GuardName(name) for name in scan.unavailable}
            if scan.unscanned:
                unavailable |= {GuardName.LEXICON} if use_lexicon else set()
                unavailable |= {GuardName.SEMANTIC} if semantic_toggle.enabled else set()
            for hit in scan.hits:
                target = self._indexed.get(hit.key)
                if target is None or (hit.key in findings and findings[hit.key].score >= hit.score):
                    continue
                findings[hit.key] = Finding(
                    target_id=target.id,
                    revision=target.revision,
                    guard=GuardName(hit.guard),
                    score=hit.score,
                    threshold=hit.threshold,
                    window=hit.window,
                    evidence=hit.evidence,
                )
        elapsed = time.perf_counter() - began
        DETECTOR_SECONDS.observe(elapsed)
        best_first = sorted(findings.values(), key=lambda finding: -finding.score)
        return Verdict(tuple(best_first), tuple(sorted(unavailable)), elapsed * 1000)

    async def scores(self, target: ForgetTarget, prompts: Sequence[Sequence[str]]) -> list[float]:
        """What the text detector says of prompts, given as their texts: in [0, 1], 0 where there is nothing to compare.

        Raises:
            RuntimeError: the target is not indexed any more, or the encoder failed.
        """
        if target.key not in self._indexed:
            raise RuntimeError(f"target {target.id} is not indexed")
        view, scored = self._detector.view([target.key]), frozenset({target.key})
        found = []
        for texts in prompts:
            scan = await self._detector.scan(texts, view, scored=scored)
            if scan.unavailable:
                raise RuntimeError("the sentence encoder failed")
            found.append(max((hit.score for hit in scan.hits), default=0.0))
        return found

    def leaks(self, completion: str, policy: TenantPolicy) -> bool:
        """Whether a complete answer holds a protected phrase or a copy of a document."""
        keys = self.reach(policy).enforced
        return any(index.find(completion, keys) is not None for index in (self.phrases, self.verbatim))

    def self_test(self) -> Mapping[str, bool]:
        """Whether each detector still tells a known positive from a known negative."""
        return self._detector.self_test()

    def target(self, key: str) -> ForgetTarget | None:
        """The target that a key names."""
        return self._indexed.get(key)

    def protected(self, target: ForgetTarget, gating: Gating) -> tuple[str, ...]:
        """What must not be said of a target: its phrases, the answers of its examples and, in a request that was
        flagged for it, what its documents tell. A request that was not flagged may well speak of the places and dates
        that some document mentions.

        Raises:
            LookupError: the target is not indexed any more.
        """
        told = self._protected.get((target.key, gating))
        if told is None:
            if target.key not in self.phrases:
                raise LookupError(f"target {target.id} is not indexed")
            profile = profile_of(target)
            told = self.phrases.phrases(target.key)
            if target.spec.kind is not TargetKind.SKILL:  # "12" is an answer to much else
                told += example_answers(profile)
            if gating is Gating.GATED:
                told += document_answers(profile)
            self._protected[target.key, gating] = told
        return told

    def close(self) -> None:
        """Release the encoder."""
        self._detector.close()

    def reach(self, policy: TenantPolicy) -> Reach:
        """What follows from a policy's targets. Made once for each policy: a request must not pay for all targets."""
        cached = self._reaches.get(policy.tenant.id)
        if cached is None or cached[0] is not policy:
            targets = policy.targets
            reach = Reach(
                view=self._detector.view(targets),
                thresholds={key: one.threshold for key, one in targets.items() if one.threshold is not None},
                enforced=frozenset(key for key, one in targets.items() if one.mode is Mode.ENFORCE),
                monitored=frozenset(key for key, one in targets.items() if one.mode is Mode.MONITOR),
                always=tuple(
                    one for one in targets.values() if one.gating is Gating.ALWAYS and one.mode is Mode.ENFORCE
                ),
                stating=self.statements.stating(targets),
            )
            cached = self._reaches[policy.tenant.id] = (policy, reach)
        return cached[1]


def profile_of(target: ForgetTarget) -> Profile:
    """What the text detector is told of a target."""
    spec: TargetSpec = target.spec
    return Profile(
        key=target.key,
        name=spec.name,
        description=spec.description,
        aliases=(*spec.aliases, *spec.tools),
        documents=spec.documents,
        forget_examples=tuple((example.prompt, example.completion) for example in spec.forget_examples),
        retain_examples=tuple((example.prompt, example.completion) for example in spec.retain_examples),
    )
