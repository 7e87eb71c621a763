"""Compile jobs in the database, so that they outlive the process that runs them.

Whoever runs a job holds it, and says so again and again; a job that nobody has held for :data:`HELD` is anybody's.
Clocks of servers that share a database must not differ by much of that.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from guard.store import schema
from guard.store.reader import Reader
from guard.store.store import Store
from guard.types import ForgetTarget

#: How long a job is held by who does not say that he still runs it.
HELD = timedelta(seconds=15)
_NEVER = datetime.fromtimestamp(0, UTC)
_TABLE = schema.compile_jobs


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job as it is kept.

    Attributes:
        id: of the job.
        target: as it is now.
        interventions: what is to be fitted, in this order.
        again: fit also what was fitted before the job.
        fitted: what the job has fitted.
    """

    id: str
    target: ForgetTarget
    interventions: tuple[str, ...]
    again: bool = False
    fitted: tuple[str, ...] = ()


class JobQueue:
    """The jobs of one model that have not ended. Every method blocks: call it from threads.

    Args:
        store: where they are kept.
        model: fingerprint of the model.
    """

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model
        self._owner = secrets.token_hex(8)

    def put(self, job: QueuedJob) -> None:
        """Keep a new job, held by this process; nothing is kept where its target was deleted meanwhile."""
        now = datetime.now(UTC)
        with self._store.transaction() as connection:
            target = sa.select(schema.targets.c.id).where(schema.targets.c.id == job.target.id)
            if connection.execute(target.with_for_update()).first() is None:
                return
            values = {
                "id": job.id,
                "target_id": job.target.id,
                "model": self._model,
                "interventions": json.dumps(job.interventions),
                "again": job.again,
                "fitted": json.dumps(job.fitted),
                "created_at": now,
                "owner": self._owner,
                "held_until": now + HELD,
            }
            connection.execute(sa.insert(_TABLE).values(values))

    def fitted(self, job_id: str, names: Sequence[str]) -> None:
        """Note what a job has fitted."""
        self._update(_TABLE.c.id == job_id, fitted=json.dumps(list(names)))

    def end(self, job_id: str) -> None:
        """Forget a job; an unknown one is ignored."""
        with self._store.transaction() as connection:
            connection.execute(sa.delete(_TABLE).where(_TABLE.c.id == job_id))

    def hold(self) -> None:
        """Say that this process still runs its jobs."""
        self._update(_TABLE.c.owner == self._owner, held_until=datetime.now(UTC) + HELD)

    def release(self) -> None:
        """Leave the jobs of this process to anybody."""
        self._update(_TABLE.c.owner == self._owner, owner="", held_until=_NEVER)

    def adopt(self, interventions: Container[str]) -> list[QueuedJob]:
        """Hold the jobs that nobody holds and that ask for ``interventions`` only, and say which; oldest first."""
        now, found = datetime.now(UTC), []
        free = sa.and_(_TABLE.c.model == self._model, _TABLE.c.held_until < now, _TABLE.c.owner != self._owner)
        query = sa.select(_TABLE).where(free).order_by(_TABLE.c.created_at)
        with self._store.engine.connect() as connection:  # mostly there is none, and nobody need wait for a writer
            if connection.execute(query).first() is None:
                return []
        with self._store.transaction() as connection:
            for row in connection.execute(query.with_for_update(skip_locked=True)).all():
                names, fitted = (tuple(json.loads(text)) for text in (row.interventions, row.fitted))
                if not all(name in interventions for name in names):
                    continue
                held = {"owner": self._owner, "held_until": now + HELD}
                connection.execute(sa.update(_TABLE).where(_TABLE.c.id == row.id).values(held))
                target = Reader(connection).target(row.target_id)
                found.append(QueuedJob(row.id, target, names, row.again, fitted))
        return found

    def _update(self, which: sa.ColumnElement[bool], **values: object) -> None:
        with self._store.transaction() as connection:
            connection.execute(sa.update(_TABLE).where(which).values(values))
