"""The audit: nothing lost silently, nothing in clear unasked, nothing in a request's way."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from databases import database_url, postgres_server  # noqa: F401  (fixtures)
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from guard import audit as audit_module
from guard.audit import AuditEntry, AuditFilter, AuditFinding, AuditLog, AuditLostError, audit_entry
from guard.caller import Caller
from guard.service import GuardService
from guard.store import Store
from guard.types import (
    Finding,
    GuardName,
    Mode,
    Plan,
    Tenant,
    TenantPolicy,
    TenantSpec,
)

NOW = datetime.now(UTC)
FINDING = AuditFinding("tgt_1", 3, GuardName.LEXICON, Mode.ENFORCE, 0.9, 0.5, "ab" * 32)
ENTRY = AuditEntry(
    time=NOW,
    request_id="chatcmpl-1",
    tenant_id="ten_1",
    key_id="key_1",
    surface="/v1/chat/completions",
    action="refuse",
    findings=(FINDING,),
    unavailable=(GuardName.SEMANTIC, GuardName.LEAK),
    prompt_sha256="cd" * 32,
    prompt=None,
    detector_ms=1.5,
    total_ms=20.25,
)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:  # noqa: F811
    opened = Store.open(database_url)
    yield opened
    opened.close()


@pytest.fixture
def log(store: Store) -> Iterator[AuditLog]:
    opened = AuditLog(store)
    yield opened
    opened.close()


def dropped() -> float:
    return audit_module.DROPPED._value.get()


class TestWriting:
    def test_what_was_recorded_is_read(self, log: AuditLog) -> None:
        log.record(ENTRY).result(5)
        (read,) = log.query().entries
        assert read.id is not None and replace(read, id=None) == ENTRY

    async def test_it_can_be_awaited(self, log: AuditLog) -> None:
        await asyncio.wait_for(asyncio.wrap_future(log.record(ENTRY)), 5)
        assert len(log.query().entries) == 1

    async def test_who_stops_waiting_does_not_cancel_it(self, log: AuditLog) -> None:
        waiting = asyncio.wrap_future(log.record(ENTRY))
        waiting.cancel()
        await asyncio.wrap_future(log.record(ENTRY))
        assert len(log.query().entries) == 2

    def test_entries_are_committed_in_groups(self, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
        groups: list[int] = []
        insert = audit_module.insert_audit

        def counting(store: Store, entries: list[AuditEntry]) -> None:
            groups.append(len(entries))
            insert(store, entries)

        monkeypatch.setattr(audit_module, "insert_audit", counting)
        for written in [log.record(replace(ENTRY, request_id=str(number))) for number in range(500)]:
            written.result(10)
        assert sum(groups) == 500 and len(groups) < 20
        assert [entry.request_id for entry in log.query(limit=500).entries] == [str(n) for n in reversed(range(500))]

    def test_closing_writes_what_waits(self, store: Store) -> None:
        log = AuditLog(store)
        for _ in range(50):
            log.record(ENTRY)
        log.close()
        log.close()
        assert len(log.query(limit=100).entries) == 50
        with pytest.raises(AuditLostError):
            log.record(ENTRY).result(1)

    def test_text_that_no_database_takes_does_not_take_others_along(self, log: AuditLog) -> None:
        strange = replace(ENTRY, prompt="nul \0 and half a pair \ud800", request_id="\0")
        impossible = replace(ENTRY, tenant_id=None)  # type: ignore[arg-type]
        written = [log.record(entry) for entry in (ENTRY, strange, impossible, ENTRY)]
        for number in (0, 1, 3):
            written[number].result(5)
        with pytest.raises(AuditLostError):
            written[2].result(5)
        assert len(log.query().entries) == 3

    def test_what_the_queue_cannot_take_is_counted_and_logged(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = threading.Event()
        insert = audit_module.insert_audit

        def stuck(store: Store, entries: list[AuditEntry]) -> None:
            gate.wait(10)
            insert(store, entries)

        monkeypatch.setattr(audit_module, "insert_audit", stuck)
        log = AuditLog(store, capacity=5)
        before, began = dropped(), time.monotonic()
        written = [log.record(ENTRY)]
        time.sleep(0.2)  # the writer has it, and is stuck
        written += [log.record(ENTRY) for _ in range(8)]
        assert time.monotonic() - began < 5  # nobody waited
        assert dropped() - before == 3 and "queue is full" in caplog.text
        gate.set()
        log.close()
        assert len(log.query().entries) == 6
        assert sum(one.exception() is not None for one in written) == 3

    def test_a_database_that_comes_back_loses_nothing(self, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
        insert, failures = audit_module.insert_audit, iter([True, True])

        def flaky(store: Store, entries: list[AuditEntry]) -> None:
            if next(failures, False):
                raise OperationalError("insert", {}, Exception("database is locked"))
            insert(store, entries)

        monkeypatch.setattr(audit_module, "insert_audit", flaky)
        log.record(ENTRY).result(10)
        assert len(log.query().entries) == 1

    def test_the_database_may_be_busy_for_a_while(self, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
        insert, failures = audit_module.insert_audit, iter([True])

        def busy(store: Store, entries: list[AuditEntry]) -> None:
            if next(failures, False):
                raise PoolTimeoutError("QueuePool limit reached")
            insert(store, entries)

        monkeypatch.setattr(audit_module, "insert_audit", busy)
        log.record(ENTRY).result(10)
        assert len(log.query().entries) == 1

    @pytest.mark.parametrize("error", [OverflowError, PoolTimeoutError, RuntimeError])
    def test_pruning_that_fails_ends_nothing(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        def failing(*_: object) -> int:
            raise error

        monkeypatch.setattr(audit_module, "prune_audit", failing)
        log = AuditLog(store, retention_days=30)  # prunes when it starts
        log.record(ENTRY).result(10)
        log.close()

    def test_a_retention_beyond_all_dates_ends_nothing(self, store: Store) -> None:
        log = AuditLog(store, retention_days=10**6)
        log.record(ENTRY).result(10)
        log.close()

    def test_closing_ends_where_the_database_does_not_answer(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = threading.Event()
        monkeypatch.setattr(audit_module, "_CLOSE_S", 0.2)
        monkeypatch.setattr(audit_module, "insert_audit", lambda *_: gate.wait(10))
        log = AuditLog(store, capacity=5)
        before = dropped()
        log.record(ENTRY)
        time.sleep(0.2)  # the writer has it, and is stuck
        waiting = [log.record(ENTRY) for _ in range(5)]
        closing = threading.Thread(target=log.close, daemon=True)
        closing.start()
        closing.join(5)
        assert not closing.is_alive() and dropped() - before == 5
        assert all(isinstance(one.exception(0), AuditLostError) for one in waiting)
        gate.set()
        log.close()
        assert not log._thread.is_alive()


class TestReading:
    @pytest.fixture
    def filled(self, log: AuditLog) -> AuditLog:
        for number in range(10):
            log.record(
                replace(
                    ENTRY,
                    time=NOW + timedelta(minutes=number),
                    request_id=str(number),
                    tenant_id=f"ten_{number % 2}",
                    action="refuse" if number % 3 else None,
                    findings=(
                        replace(FINDING, target_id=f"tgt_{number % 5}"),
                        replace(FINDING, target_id="tgt_9", guard=GuardName.LEAK),
                    ),
                )
            ).result(5)
        return log

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            (AuditFilter(), "9876543210"),
            (AuditFilter(tenant="ten_1"), "97531"),
            (AuditFilter(action="refuse"), "875421"),
            (AuditFilter(target="tgt_2"), "72"),
            (AuditFilter(target="tgt_2", guard=GuardName.LEXICON), "72"),
            (AuditFilter(target="tgt_2", guard=GuardName.LEAK), ""),
            (AuditFilter(since=NOW + timedelta(minutes=8)), "98"),
            (AuditFilter(until=NOW + timedelta(minutes=1)), "0"),
            (AuditFilter(tenant="ten_0", target="tgt_4", since=NOW), "4"),
        ],
    )
    def test_filters(self, filled: AuditLog, filters: AuditFilter, expected: str) -> None:
        assert "".join(entry.request_id for entry in filled.query(filters).entries) == expected

    @pytest.mark.parametrize(("oldest_first", "expected"), [(False, "9876543210"), (True, "0123456789")])
    def test_pages(self, filled: AuditLog, oldest_first: bool, expected: str) -> None:
        seen, cursor = "", None
        while True:
            page = filled.query(cursor=cursor, limit=3, oldest_first=oldest_first)
            seen += "".join(entry.request_id for entry in page.entries)
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == expected

    def test_retention(self, filled: AuditLog, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("guard.store.audit._PRUNE_BATCH", 2)
        assert filled.prune() == 0  # kept for ever
        old = replace(ENTRY, time=NOW - timedelta(days=31))
        for _ in range(5):
            filled.record(old).result(5)
        keeper = AuditLog(store, retention_days=30)  # prunes when it starts
        keeper.close()
        assert len(filled.query().entries) == 10
        assert keeper.prune() == 0


@pytest.mark.parametrize("in_clear", [False, True])
def test_texts_are_hashed_unless_the_tenant_wants_them(in_clear: bool) -> None:
    tenant = Tenant("ten_1", 1, TenantSpec(name="t", audit_prompts=in_clear), NOW, NOW)
    found = Finding("tgt_1", 3, GuardName.SEMANTIC, 0.9, 0.5, "who is Ann", "evidence of Ann")
    entry = audit_entry(
        request_id="r",
        caller=Caller("ten_1", "key_1", "/v1/completions"),
        policy=TenantPolicy(tenant),
        plan=Plan("refuse", (found,), (GuardName.LEXICON,), (replace(found, target_id="tgt_2"),)),
        prompt="who is Ann",
        detector_ms=1.0,
        total_ms=2.0,
    )
    assert entry.prompt_sha256 == entry.findings[0].window_sha256 == hashlib.sha256(b"who is Ann").hexdigest()
    assert [finding.mode for finding in entry.findings] == [Mode.ENFORCE, Mode.MONITOR]
    assert ("Ann" in repr(entry)) == in_clear


def test_a_service_that_ends_writes_what_waits_before_anything_else_is_waited_for() -> None:
    closed: list[str] = []
    names = ("store", "registry", "detection", "audit")
    parts: dict[str, Any] = {name: SimpleNamespace(close=partial(closed.append, name)) for name in names}
    GuardService(**parts, refusal="", admin_key=None).close()
    assert closed == ["audit", "registry", "detection", "store"]
