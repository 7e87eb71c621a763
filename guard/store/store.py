"""The database behind the control plane: the one place where state lives."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from guard.store import schema
from guard.store.engine import default_url, open_engine, reading, writing
from guard.store.migrate import migrate
from guard.store.reader import Reader
from guard.store.writer import Writer
from guard.types import ForgetTarget

T = TypeVar("T")

#: How many ids one query may name.
_IN_AT_MOST = 500


class Store:
    """A SQLite or PostgreSQL database at the newest schema. Thread-safe; every method blocks: call it from threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading = reading(engine)
        self._writing = writing(engine)
        self._thread = threading.local()

    @classmethod
    def open(cls, url: str | None = None) -> Store:
        """Open the database, creating or migrating it as needed.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql+psycopg://...``; None: a file in the user's data folder.

        Raises:
            StoreError: the URL names another kind of database.
            sqlalchemy.exc.SQLAlchemyError: it cannot be reached.
        """
        engine = open_engine(url or default_url())
        migrate(engine)
        return cls(engine)

    @property
    def engine(self) -> sa.Engine:
        """The engine beneath, for those who share its pool."""
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """One moment of the database, the same for every question asked of it."""
        with self._reading.begin() as connection:
            yield Reader(connection)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """One transaction: committed when the block ends, undone when it raises. Writers pass one at a time."""
        with self._writing.begin() as connection:
            self._thread.connection = connection
            try:
                yield Writer(connection)
            finally:
                self._thread.connection = None

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A bare write transaction, for what is no state: it neither bumps the revision nor waits for who does.

        Inside a ``write()`` block of the same thread it joins that one: SQLite would wait for itself otherwise.
        """
        current: sa.Connection | None = getattr(self._thread, "connection", None)
        if current is not None:
            yield current
        else:
            with self._writing.begin() as connection:
                yield connection

    def revision(self) -> int:
        """The global revision. Cheap enough to poll."""
        with self.read() as reader:
            return reader.revision()

    def versions(self, targets: Iterable[ForgetTarget], fingerprint: str) -> dict[str, str]:
        """Of what :meth:`compiled` would give, what changes whenever it is put anew; without reading it."""
        table = schema.compiled
        columns = (table.c.target_id, table.c.revision, table.c.version)
        return {key: row.version for key, row in self._compiled(targets, fingerprint, columns).items()}

    def compiled(self, targets: Iterable[ForgetTarget], fingerprint: str) -> dict[str, bytes]:
        """What was compiled from these targets, at their revisions, earlier: by ``ForgetTarget.key``.

        Args:
            targets: those wanted; what is missing in the result must be compiled.
            fingerprint: names whatever else the result depends on, such as the encoder and the code's version.
        """
        return {key: blob for key, (_, blob) in self.versioned(targets, fingerprint).items()}

    def versioned(self, targets: Iterable[ForgetTarget], fingerprint: str) -> dict[str, tuple[str, bytes]]:
        """As :meth:`compiled`, each with its version."""
        rows = self._compiled(targets, fingerprint, schema.compiled.c)
        return {key: (row.version, row.blob) for key, row in rows.items()}

    def put_compiled(self, blobs: Iterable[tuple[ForgetTarget, bytes]], fingerprint: str) -> None:
        """Keep compiled results, dropping those of earlier revisions. Nothing is kept of targets deleted meanwhile.

        Not state, only saved work: the global revision stays. Inside a ``write()`` block it joins that transaction.
        """
        with self.transaction() as connection:
            for batch in batched(blobs, _IN_AT_MOST):
                _replace_compiled(connection, batch, fingerprint)

    def _compiled(
        self, targets: Iterable[ForgetTarget], fingerprint: str, columns: Iterable[sa.Column[Any]]
    ) -> dict[str, sa.Row[Any]]:
        wanted = {target.key: target.id for target in targets}
        table = schema.compiled
        found: dict[str, sa.Row[Any]] = {}
        with self._reading.begin() as connection:
            for ids in batched(wanted.values(), _IN_AT_MOST):
                query = sa.select(*columns).where(table.c.target_id.in_(ids), table.c.fingerprint == fingerprint)
                found |= {f"{row.target_id}@{row.revision}": row for row in connection.execute(query)}
        return {key: row for key, row in found.items() if key in wanted}


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """``itertools.batched`` for Python 3.11."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _replace_compiled(connection: sa.Connection, batch: Sequence[tuple[ForgetTarget, bytes]], fingerprint: str) -> None:
    ids = schema.targets.c.id
    wanted = [target.id for target, _ in batch]
    existing = set(connection.execute(sa.select(ids).where(ids.in_(wanted)).with_for_update()).scalars())
    kept = [(target, blob) for target, blob in batch if target.id in existing]
    if not kept:
        return
    table = schema.compiled
    older = sa.and_(table.c.target_id == sa.bindparam("of"), table.c.revision < sa.bindparam("at"))
    same = sa.and_(
        table.c.target_id == sa.bindparam("of"),
        table.c.revision == sa.bindparam("at"),
        table.c.fingerprint == fingerprint,
    )
    connection.execute(
        sa.delete(table).where(sa.or_(older, same)), [{"of": target.id, "at": target.revision} for target, _ in kept]
    )
    connection.execute(
        sa.insert(table),
        [
            {
                "target_id": target.id,
                "revision": target.revision,
                "fingerprint": fingerprint,
                "blob": blob,
                "version": secrets.token_hex(8),
            }
            for target, blob in kept
        ],
    )
