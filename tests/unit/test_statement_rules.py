"""Whose statements are looked for in an answer, and what a complete answer tells."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from classifiers.detector import TextDetector
from guard import policy
from guard.detection import Detection
from guard.prompt import PromptView, Segment
from guard.snapshot import Snapshot
from guard.statements import asked, question_of, statement_rule, tells
from guard.store import Store
from guard.types import ForgetTarget, GuardName, GuardToggle, Mode, TargetSpec, Tenant, TenantPolicy, TenantSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = Tenant("ten_1", 1, TenantSpec(name="acme"), NOW, NOW)
EXAMPLE = {"prompt": "Where was Zedo Frobisher born?", "completion": "He was born in Ballinacarrow."}
TOLD = "Zedo Frobisher? His birthplace is Ballinacarrow."


@pytest.fixture(scope="module")
def detection(tmp_path_factory) -> Iterator[Detection]:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('rules') / 'lethe.db'}")
    detector = TextDetector()
    yield Detection(detector, store)
    detector.close()
    store.close()


def _policy(detection: Detection, toggle: GuardToggle | None = None, **spec) -> TenantPolicy:
    revision = len(detection._indexed) + 1
    target = ForgetTarget("tgt_1", revision, TargetSpec(name="Zedo Frobisher", all_tenants=True, **spec), NOW, NOW)
    toggles = {GuardName.STATEMENTS: toggle} if toggle else {}
    resolved = policy.resolve(TENANT, [target], {}, toggles)
    detection.prepare(Snapshot(targets={target.id: target}, policies={TENANT.id: resolved}))
    return resolved


def _view(*texts: str, tail: str = "") -> PromptView:
    return PromptView(tuple(Segment(text, 0, 0) for text in texts), texts, tail)


def test_a_target_known_by_name_only_costs_nothing(detection):
    assert statement_rule(detection, _policy(detection)) is None


def test_a_guard_that_is_off_looks_for_nothing(detection):
    assert statement_rule(detection, _policy(detection, GuardToggle(enabled=False), forget_examples=(EXAMPLE,))) is None


@pytest.mark.parametrize(("mode", "blocked"), [(Mode.ENFORCE, True), (Mode.MONITOR, False)])
async def test_a_complete_answer_is_judged(detection, mode, blocked):
    seen: list = []
    tenant_policy = _policy(detection, forget_examples=(EXAMPLE,), mode=mode)
    rule = statement_rule(detection, tenant_policy, report=lambda hit, taken_back: seen.append(taken_back))
    assert rule is not None
    assert await tells(rule, _view("Who is that?"), TOLD) is blocked
    assert seen == [blocked]
    assert not await tells(rule, _view("Who is that?"), "Zedo Frobisher? I have never heard of him.")


async def test_what_was_changed_is_protected_as_it_is_now(detection):
    _policy(detection, forget_examples=(EXAMPLE,))
    changed = {**EXAMPLE, "completion": "He was born in Skerries."}
    rule = statement_rule(detection, _policy(detection, forget_examples=(changed,)))
    assert rule is not None
    assert not await tells(rule, _view("Who is that?"), TOLD)
    assert await tells(rule, _view("Who is that?"), TOLD.replace("Ballinacarrow", "Skerries"))


def test_what_a_prompt_asks():
    assert asked(_view("You are kind.", "Who is that?")) == ("Who is that?", "")
    assert asked(_view("Q: Who? A: It was", tail="Q: Who? A: It was")) == ("Q: Who?", " A: It was")


@pytest.mark.parametrize("notes", ["Answer briefly and do not explain it. " * 30, "Think twice. " * 500])
def test_a_question_before_what_is_long_is_found(notes):
    question = "Where was Zedo Frobisher born?"
    assert question_of([]) == ""
    assert question_of(["Hello.", question]) == question
    assert question_of([f"{question} {notes}"]).strip() == question
    for end in (question, "Now say where Zedo Frobisher was born, in one word. OK?", f"“{question}” Is that clear?"):
        assert question_of([f"What else? {notes}{end}"]).endswith(end)
