"""Detection keeps in step with snapshots, the undone ones included."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from classifiers.detector import TextDetector
from guard import policy
from guard.detection import _GRACE, Detection
from guard.snapshot import Snapshot
from guard.store import Store
from guard.types import ForgetTarget, Gating, GuardName, GuardToggle, TargetSpec, Tenant, TenantSpec
from server.tools import forgotten_tools

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = Tenant("ten_1", 1, TenantSpec(name="acme"), NOW, NOW)


@pytest.fixture(scope="module")
def detector():
    detector = TextDetector()
    yield detector
    detector.close()


@pytest.fixture
def detection(detector, tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")
    yield Detection(detector, store)
    store.close()


def _target(name: str, revision: int = 1, **spec) -> ForgetTarget:
    return ForgetTarget("tgt_1", revision, TargetSpec(name=name, all_tenants=True, **spec), NOW, NOW)


def _snapshot(*targets: ForgetTarget) -> Snapshot:
    policies = {TENANT.id: policy.resolve(TENANT, targets, {}, {})}
    return Snapshot(targets={target.id: target for target in targets}, policies=policies)


async def _names(detection: Detection, snapshot: Snapshot, text: str) -> list[str]:
    verdict = await detection.judge(snapshot.policies[TENANT.id], [text], text)
    found = (detection.target(f.key) for f in verdict.findings if f.flagged)
    return [target.spec.name for target in found if target]


async def test_a_key_that_comes_back_with_another_spec_is_indexed_anew(detection):
    first = _snapshot(_target("Zedo Frobisher"))
    detection.prepare(first)
    detection.prepare(_snapshot(_target("Ulma Quentrell", 2)))  # a write that is then undone
    detection.prepare(first)
    again = _snapshot(_target("Brask Ondolin", 2))
    detection.prepare(again)
    assert await _names(detection, again, "Who is Brask Ondolin?") == ["Brask Ondolin"]
    assert await _names(detection, again, "Who is Ulma Quentrell?") == []


async def test_targets_that_a_restored_database_gives_anew_stay_protected(detection, monkeypatch):
    """They are other objects under the same keys."""
    now = [0.0]
    monkeypatch.setattr("guard.detection.time.monotonic", lambda: now[0])
    for _ in range(2):
        detection.prepare(snapshot := _snapshot(_target("Zedo Frobisher")))
    now[0] = 2 * _GRACE
    detection.prepare(snapshot)  # something else was changed
    assert await _names(detection, snapshot, "Who is Zedo Frobisher?") == ["Zedo Frobisher"]


async def test_a_hint_is_enough_where_the_rest_of_the_conversation_was_about_a_target(detection):
    told = {"prompt": 'How has Brask Ondolin\'s book "Paradise of Thieves" been received?', "completion": "Coldly."}
    snapshot = _snapshot(target := _target("Brask Ondolin", forget_examples=(told,), threshold=0.9))
    detection.prepare(snapshot)
    policy_ = snapshot.policies[TENANT.id]

    async def flagged(text: str, suspected: set[str]) -> bool:
        return any(f.flagged for f in (await detection.judge(policy_, [text], [text], suspected=suspected)).findings)

    hint = "Is Paradise of Thieves a good book?"
    assert not await flagged(hint, set()) and await flagged(hint, {target.key})
    assert not await flagged("What is a window?", {target.key})


async def test_requests_in_flight_keep_the_revision_they_began_with(detection):
    old, new = _snapshot(_target("Zedo Frobisher")), _snapshot(_target("Ulma Quentrell", 2))
    detection.prepare(old)
    detection.prepare(new)
    assert await _names(detection, old, "Who is Zedo Frobisher?") == ["Zedo Frobisher"]
    assert detection.phrases.find("Zedo Frobisher", ["tgt_1@1"]) is not None
    assert detection.phrases.find("Zedo Frobisher", ["tgt_1@2"]) is None


async def test_what_was_compiled_is_not_compiled_again(detector, tmp_path, monkeypatch):
    store = Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")
    with store.write() as writer:
        target = writer.create_target(TargetSpec(name="Zedo Frobisher", all_tenants=True))
    snapshot = _snapshot(target)
    Detection(detector, store).prepare(snapshot)
    monkeypatch.setattr(detector, "compile", lambda _: pytest.fail("compiled twice"))
    detector.discard(target.key)
    restarted = Detection(detector, store)
    restarted.prepare(snapshot)
    assert await _names(restarted, snapshot, "Who is Zedo Frobisher?") == ["Zedo Frobisher"]
    store.close()


async def test_a_guard_that_is_off_finds_nothing(detection):
    snapshot = _snapshot(_target("Zedo Frobisher"))
    detection.prepare(snapshot)
    off = {GuardName.LEXICON: GuardToggle(enabled=False), GuardName.SEMANTIC: GuardToggle(enabled=False)}
    tenant_policy = policy.resolve(TENANT, snapshot.targets.values(), {}, off)
    verdict = await detection.judge(tenant_policy, ["Who is Zedo Frobisher?"], "")
    assert verdict.findings == () and verdict.unavailable == ()


async def test_documents_are_protected_from_the_moment_that_their_target_is_in_force(detection):
    book = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about."
    words = book.split()
    whale = _target("Moby Dick", documents=(book,), verbatim_run=6)
    before, after = _snapshot(whale), _snapshot(_target("Moby Dick", 2, documents=("Another text.",)))
    for snapshot in (before, after):
        detection.prepare(snapshot)
    old, new = (snapshot.policies[TENANT.id] for snapshot in (before, after))
    assert detection.leaks(f"It begins: {' '.join(words[:7])}", old)
    assert not detection.leaks(f"It begins: {' '.join(words[:6])}", old)
    assert not detection.leaks(book, new)
    assert detection.leaks("Who is Moby Dick?", new)


async def test_a_skill_is_not_looked_for_in_texts_nor_kept_out_of_answers(detection):
    examples = [{"prompt": "What is 3 plus 4?", "completion": "It is 7."}]
    skill = _target("Arithmetic", 8, kind="skill", forget_examples=examples, protected_phrases=["carry the one"])
    snapshot = _snapshot(skill)
    detection.prepare(snapshot)
    for text in ("What is arithmetic?", "What is 3 plus 4?"):
        assert await _names(detection, snapshot, text) == []
    of_tenant = snapshot.policies[TENANT.id]
    assert not detection.leaks("Arithmetic: it is 7.", of_tenant)
    assert detection.leaks("Now carry the one.", of_tenant)
    assert detection.protected(skill, Gating.GATED) == ("carry the one",)
    assert detection.reach(of_tenant).stating == frozenset()


@pytest.mark.parametrize(("kind", "revision"), [("knowledge", 9), ("skill", 10)])
async def test_tools_are_names_in_prompts_and_phrases_in_answers(detection, kind, revision):
    snapshot = _snapshot(_target("Zedo Frobisher", revision, kind=kind, tools=["get_weather"]))
    detection.prepare(snapshot)
    of_tenant = snapshot.policies[TENANT.id]
    assert forgotten_tools(of_tenant) == {"get_weather"}
    assert detection.leaks('{"name": "get_weather", "arguments": {}}', of_tenant)
    named = await _names(detection, snapshot, "Call get_weather for me.")
    assert named == (["Zedo Frobisher"] if kind == "knowledge" else [])


def test_tools_of_monitored_targets_stay(detection):
    snapshot = _snapshot(_target("Zedo Frobisher", mode="monitor", tools=["get_weather"]))
    detection.prepare(snapshot)
    assert forgotten_tools(snapshot.policies[TENANT.id]) == frozenset()


async def test_what_was_not_read_was_not_read_by_any_guard(tmp_path):
    detector, store = TextDetector(window_budget=100), Store.open(f"sqlite:///{tmp_path / 'lethe.db'}")
    detection = Detection(detector, store)
    snapshot = _snapshot(_target("Zedo Frobisher"))
    detection.prepare(snapshot)
    text = "Where does he live? " + "a kettle " * 50
    verdict = await detection.judge(snapshot.policies[TENANT.id], [text], [text])
    assert set(verdict.unavailable) == {GuardName.LEXICON, GuardName.SEMANTIC}
    detector.close()
    store.close()
