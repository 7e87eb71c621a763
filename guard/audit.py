"""Who asked, what was found, what was done: recorded in groups by one thread, never in a request's way."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from prometheus_client import Counter
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from guard.caller import Caller
from guard.store import Store
from guard.store.audit import (
    AuditEntry,
    AuditFilter,
    AuditFinding,
    AuditPage,
    insert_audit,
    prune_audit,
    select_audit,
)
from guard.types import Finding, Mode, Plan, TenantPolicy

logger = logging.getLogger(__name__)

__all__ = ["AuditEntry", "AuditFilter", "AuditFinding", "AuditLog", "AuditLostError", "AuditPage", "audit_entry"]

DROPPED = Counter("lethe:audit_dropped_total", "Audit entries lost because the queue was full or the database failed")

_GROUP_S = 0.05  # how long the first entry of a group waits for others
_GROUP_AT_MOST = 1_000
_ATTEMPTS = 5  # to write a group while the database is unavailable
_PRUNE_EVERY_S = 3_600.0
_CLOSE_S = 30.0  # how long closing waits for the database


class AuditLostError(Exception):
    """An entry could not be kept. It was counted in ``lethe:audit_dropped_total``."""


def audit_entry(
    *,
    request_id: str,
    caller: Caller,
    policy: TenantPolicy,
    plan: Plan,
    prompt: str,
    detector_ms: float,
    total_ms: float,
) -> AuditEntry:
    """The entry for one request, with texts hashed unless the tenant wants them kept."""
    in_clear = policy.tenant.spec.audit_prompts

    def found(finding: Finding, mode: Mode) -> AuditFinding:
        return AuditFinding(
            target_id=finding.target_id,
            target_revision=finding.revision,
            guard=finding.guard,
            mode=mode,
            score=finding.score,
            threshold=finding.threshold,
            window_sha256=_sha256(finding.window),
            window=finding.window if in_clear else None,
        )

    return AuditEntry(
        time=datetime.now(UTC),
        request_id=request_id,
        tenant_id=policy.tenant.id,
        key_id=caller.key_id,
        surface=caller.surface,
        action=plan.action,
        findings=(
            *(found(finding, Mode.ENFORCE) for finding in plan.findings),
            *(found(finding, Mode.MONITOR) for finding in plan.monitored),
        ),
        unavailable=plan.unavailable,
        prompt_sha256=_sha256(prompt),
        prompt=prompt if in_clear else None,
        detector_ms=detector_ms,
        total_ms=total_ms,
    )


class AuditLog:
    """The audit of one process. Thread-safe.

    Args:
        store: where entries are kept.
        retention_days: entries older than this are deleted, hourly; None keeps them for ever.
        capacity: how many entries may wait to be written. Beyond it they are dropped, counted and logged.
    """

    def __init__(self, store: Store, *, retention_days: float | None = None, capacity: int = 10_000) -> None:
        self._store = store
        self._retention_days = retention_days
        self._queue: queue.Queue[tuple[AuditEntry, Future[None]] | None] = queue.Queue(capacity)
        self._closing = False
        self._lock = threading.Lock()  # so that nothing is queued behind the end mark
        self._thread = threading.Thread(target=self._run, name="lethe-audit", daemon=True)
        self._thread.start()

    def record(self, entry: AuditEntry) -> Future[None]:
        """Queue an entry, without ever waiting.

        Returns:
            Done when the entry is on disk; ends in :class:`AuditLostError` when it will never be. Await it by
            ``asyncio.wrap_future``, or leave it.
        """
        written: Future[None] = Future()
        written.set_running_or_notify_cancel()  # whoever stops waiting for it must not cancel it
        with self._lock:
            try:
                if self._closing:
                    raise queue.Full
                self._queue.put_nowait((entry, written))
            except queue.Full:
                _lose([written], "the queue is full" if not self._closing else "it is closed")
        return written

    def close(self) -> None:
        """Write what waits, and stop. Entries recorded later are lost, and counted as such.

        So is what the database has not taken after 30 seconds: a server whose database is away must be able to end.
        """
        with self._lock:
            closed, self._closing = self._closing, True
        until = time.monotonic() + _CLOSE_S
        if not closed:
            with suppress(queue.Full):  # the thread is stuck, or ended by what it could not survive
                self._queue.put(None, timeout=_CLOSE_S)
        self._thread.join(max(0.0, until - time.monotonic()))
        waiting = self._waiting()
        if waiting:
            _lose(waiting, "it was closed while the database was unavailable")
        if self._thread.is_alive():  # it ends when it gets on, should the process live so long
            with suppress(queue.Full):
                self._queue.put_nowait(None)

    def query(
        self,
        filters: AuditFilter | None = None,
        *,
        cursor: int | None = None,
        limit: int = 100,
        oldest_first: bool = False,
    ) -> AuditPage:
        """One page of entries, newest first unless told otherwise. Blocks on the database."""
        filters = filters or AuditFilter()
        entries = select_audit(self._store, filters, cursor=cursor, limit=limit + 1, oldest_first=oldest_first)
        page = tuple(entries[:limit])
        return AuditPage(page, page[-1].id if len(entries) > limit else None)

    def prune(self) -> int:
        """Delete what is older than the retention allows; how many entries that were. Blocks on the database."""
        if self._retention_days is None:
            return 0
        return prune_audit(self._store, datetime.now(UTC) - timedelta(days=self._retention_days))

    def _waiting(self) -> list[Future[None]]:
        """Take all entries out of the queue."""
        waiting = []
        with suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None:
                    waiting.append(item[1])
        return waiting

    def _run(self) -> None:
        prune_at = time.monotonic()
        while True:
            if time.monotonic() >= prune_at:
                prune_at = time.monotonic() + _PRUNE_EVERY_S
                self._prune_quietly()
            try:
                first = self._queue.get(timeout=max(0.0, prune_at - time.monotonic()))
            except queue.Empty:
                continue
            group, ended = self._gather(first)
            if group:
                self._write(group)
            if ended:
                return

    def _gather(
        self, item: tuple[AuditEntry, Future[None]] | None
    ) -> tuple[list[tuple[AuditEntry, Future[None]]], bool]:
        """The entries that come within the time of one group, and whether the end mark came too."""
        group = []
        until = time.monotonic() + _GROUP_S
        while item is not None:
            group.append(item)
            if len(group) == _GROUP_AT_MOST:
                return group, False
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return group, False
        return group, True

    def _write(self, group: list[tuple[AuditEntry, Future[None]]]) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                insert_audit(self._store, [entry for entry, _ in group])
            except (OperationalError, PoolTimeoutError):
                time.sleep(_GROUP_S * 2**attempt)
            except Exception as error:  # the thread must live
                if len(group) == 1:
                    _lose([group[0][1]], type(error).__name__)
                    return
                for one in group:  # one of them is not fit for this database; the others are
                    self._write([one])
                return
            else:
                for _, written in group:
                    written.set_result(None)
                return
        _lose([written for _, written in group], "the database is unavailable")

    def _prune_quietly(self) -> None:
        try:
            self.prune()
        except Exception as error:  # the thread must live
            logger.error("Could not prune the audit (%s)", type(error).__name__)


def _lose(futures: Sequence[Future[None]], reason: str) -> None:
    DROPPED.inc(len(futures))
    logger.error("%d audit entries were lost: %s", len(futures), reason)
    for future in futures:
        future.set_exception(AuditLostError(reason))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
