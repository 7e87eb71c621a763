"""The state as requests see it: an immutable snapshot, swapped atomically, that follows the database."""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from guard.policy import DEFAULTS, Defaults
from guard.snapshot import Snapshot, advance
from guard.store import DEFAULT_TENANT_ID, Reader, Store, Writer
from guard.store.keys import hash_key, looks_like_ours, new_key
from guard.types import Principal, Scope, TenantSpec

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The longest pause, in seconds, between attempts to follow a database or a change that keeps failing.
_LONGEST_PAUSE = 5.0
_CLOSE_S = 10.0  # how long closing waits for the database


class PrepareError(Exception):
    """A change could not be made ready for requests, so it was not made. ``__cause__`` says why."""


class Registry:
    """Keeps ``snapshot`` in step with the database. Requests read that one attribute and never wait.

    Args:
        store: the truth.
        prepare: makes a snapshot ready for requests (compiles and indexes its targets) *before* it is swapped in. Runs
            in the thread that writes or polls, inside the write's transaction where there is one. It must keep what
            the snapshot before needs, as requests still use that one. If it raises, the snapshot is not used, a
            write is undone, and ``prepare`` is called with the last good snapshot to let go of what it took up.
        defaults: what holds where nobody said anything.
        poll_interval: seconds between looks at the database for changes made by other processes.
    """

    def __init__(
        self,
        store: Store,
        prepare: Callable[[Snapshot], None],
        *,
        defaults: Defaults = DEFAULTS,
        poll_interval: float = 0.25,
    ) -> None:
        self.defaults = defaults
        self._store = store
        self._prepare = prepare
        self._poll_interval = poll_interval
        self._snapshot = Snapshot()
        self._healthy = False
        self._changing = threading.Lock()  # one advance at a time; readers do not take it
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The state to serve a request by. Take it once per request."""
        return self._snapshot

    @property
    def healthy(self) -> bool:
        """Whether the snapshot was in step with the database when last looked at."""
        return self._healthy

    def bootstrap(self, admin_key: str | None = None) -> str | None:
        """Make sure that there is an admin key and, in a new database, an anonymous default tenant. Before ``start``.

        Args:
            admin_key: the one from the settings, which replaces the one given so at an earlier start. None: keep the
                keys that there are, or make one if there is none.

        Returns:
            The key that was made: it cannot be seen again. None when none was.
        """
        with self._store.write() as writer:
            if writer.revision() == 0:
                writer.create_tenant(TenantSpec(name="default", anonymous=True), tenant_id=DEFAULT_TENANT_ID)
            if admin_key is not None:
                writer.replace_settings_key(admin_key)
                return None
            if any(key.revoked_at is None for key in writer.keys(None)):
                return None
            key = new_key(Scope.ADMIN)
            writer.add_key(key, Scope.ADMIN, None)
            return key

    def start(self) -> None:
        """Load the state, and follow it from then on.

        Raises:
            Exception: whatever the database or ``prepare`` raised; there is nothing to serve by then.
        """
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="lethe-registry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following. The last snapshot stays usable.

        A look at the database that takes more than 10 seconds is not waited for: a server whose database is away must
        be able to end.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def write(self, change: Callable[[Writer], T], *, dry_run: bool = False) -> T:
        """Make a change that is in force here when this returns, and everywhere within a poll interval.

        Args:
            change: what to do; runs inside the transaction. Whatever it raises undoes everything.
            dry_run: undo it in any case, after all checks of the store but without ``prepare``.

        Returns:
            What ``change`` returned.

        Raises:
            PrepareError: the new state could not be made ready. Nothing was changed.
        """
        with self._changing:
            if dry_run:
                return self._try_out(change)
            candidate: Snapshot | None = None
            try:
                with self._store.write() as writer:
                    result = change(writer)
                    candidate = self._next(writer)
                    self._make_ready(candidate)
            except Exception:
                if candidate is not None:
                    self._restore()
                raise
            self._swap(candidate)
            return result

    def refresh(self) -> None:
        """Bring the snapshot in step with the database now.

        Raises:
            Exception: whatever the database raised.
            PrepareError: the new state could not be made ready. The snapshot stays as it was.
        """
        with self._changing:
            with self._store.read() as reader:
                candidate = self._next(reader)
            if candidate is not self._snapshot:
                try:
                    self._make_ready(candidate)
                except PrepareError:
                    self._restore()
                    raise
            self._swap(candidate)

    def authenticate(self, key: str | None) -> Principal | None:
        """Who holds ``key``; None when nobody does and a valid key is needed.

        No key, or one not of our making (clients send placeholders), is the anonymous tenant while there is one.
        """
        snapshot = self._snapshot
        if key:
            digest = hash_key(key)
            found = snapshot.keys.get(digest)
            if found is not None and hmac.compare_digest(found.hash, digest):
                return Principal(found.scope, found.tenant_id, found.id)
            if looks_like_ours(key):
                return None
        if snapshot.anonymous_tenant_id is None:
            return None
        return Principal(Scope.TENANT, snapshot.anonymous_tenant_id, None)

    def _try_out(self, change: Callable[[Writer], T]) -> T:
        results: list[T] = []
        try:
            with self._store.write() as writer:
                results.append(change(writer))
                raise _Undo
        except _Undo:
            return results[0]

    def _next(self, reader: Reader) -> Snapshot:
        base = self._snapshot
        revision = reader.revision()
        if revision == base.revision:
            return base
        if revision < base.revision:  # the database was put back to an earlier state
            base = Snapshot()
        return advance(base, reader.changes_since(base.revision), self.defaults)

    def _make_ready(self, candidate: Snapshot) -> None:
        try:
            self._prepare(candidate)
        except Exception as error:
            # The message may quote a target, so only its type is told.
            raise PrepareError(f"the new state could not be made ready ({type(error).__name__})") from error

    def _restore(self) -> None:
        try:
            self._prepare(self._snapshot)
        except Exception as error:  # the snapshot that is in use was ready before and stays so
            logger.error("Could not return to the state before a failed change (%s)", type(error).__name__)

    def _swap(self, candidate: Snapshot) -> None:
        self._snapshot = candidate
        self._healthy = True

    def _follow(self) -> None:
        pause = self._poll_interval
        while not self._stop.wait(pause):
            try:
                if self._store.revision() != self._snapshot.revision or not self._healthy:
                    self.refresh()
                pause = self._poll_interval
            except Exception as error:  # keep serving by the last good snapshot, and say so
                self._healthy = False
                pause = min(2 * pause, _LONGEST_PAUSE)
                cause = error.__cause__ if isinstance(error, PrepareError) else error
                logger.error(
                    "Not in step with the database (%s): serving revision %d, trying again in %.1f s",
                    type(cause).__name__,
                    self._snapshot.revision,
                    pause,
                )


class _Undo(Exception):
    """Ends a transaction that was only tried out."""
