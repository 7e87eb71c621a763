"""Bringing a database to the newest schema, safely when several processes start at once."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from guard.store.engine import writing

#: Key of the PostgreSQL advisory lock held while migrating ("lethe" in ASCII).
_ADVISORY_LOCK = 0x6C65746865


def migrate(engine: sa.Engine) -> None:
    """Upgrade to head in one transaction, or do nothing when already there.

    A second process waits for the first: on SQLite because the transaction begins with the write lock, on PostgreSQL
    by an advisory lock that ends with the transaction.
    """
    with writing(engine).begin() as connection:
        if engine.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: sa.Connection) -> Config:
    """Alembic's configuration for migrations that run on ``connection``, inside the transaction it is in."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
