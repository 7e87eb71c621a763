"""Alembic's entry point: runs the migrations on the connection that :func:`guard.store.migrate.migrate` hands over."""

from __future__ import annotations

from alembic import context

from guard.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite cannot ALTER most things in place
)
with context.begin_transaction():
    context.run_migrations()
