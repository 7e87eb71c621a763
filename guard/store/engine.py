"""Connections: how SQLite and PostgreSQL are opened so that both give snapshot reads and serialised writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from guard.store.errors import StoreError

#: How long a SQLite connection waits for another process to finish writing, in milliseconds.
_BUSY_TIMEOUT_MS = 15_000

#: What libpq is told unless the URL says otherwise, in seconds and, the last, in milliseconds. By itself it waits for a
#: server that has fallen silent as long as the kernel does: a quarter of an hour, or for ever.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "tcp_user_timeout": "20000",
}


def default_url() -> str:
    """The database used when none is named: a SQLite file in the user's data folder."""
    return f"sqlite:///{Path(platformdirs.user_data_dir('lethe')) / 'lethe.db'}"


def open_engine(url: str) -> sa.Engine:
    """Open ``url`` (``sqlite:///FILE`` or ``postgresql+psycopg://...``), making the folder of a SQLite file if need be.

    Raises:
        StoreError: for any other database, and for in-memory SQLite, which no second connection could see.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return sa.create_engine(parsed.set(query={**_PATIENCE, **parsed.query}), pool_pre_ping=True)
    if backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise StoreError("the database URL must be sqlite:///FILE or postgresql+psycopg://...")
    Path(parsed.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed.set(database=str(Path(parsed.database).expanduser())))
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def reading(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that must see one moment of the database from first to last statement."""
    return engine.execution_options(isolation_level="REPEATABLE READ") if engine.name == "postgresql" else engine


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that write."""
    return engine.execution_options(lethe_write=True)


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 would begin transactions by its own rules (never for reads); _begin_sqlite does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # With WAL, NORMAL survives kill -9 but may lose the last commits in a power cut. A target that an operator was
    # told is registered must not come back remembered, and writes are few (the audit commits in groups), so: FULL.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock at once: upgrading a read transaction to a write one fails when another wrote between.
    write = connection.get_execution_options().get("lethe_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
