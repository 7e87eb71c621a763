"""The tables. Migrations in ``migrations/`` build them; a test keeps the two in agreement.

``changed_at`` on a row is the global revision (``meta.revision``) of the transaction that last wrote it. Together
with ``tombstones`` it lets a replica read what changed since the revision it knows and nothing else. Tombstones
are never pruned: one is some sixty bytes, and pruning them would need every replica's consent.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Time zone aware on every database; SQLite would otherwise hand back naive values."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Attach or convert to UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: 64 bits everywhere; SQLite numbers its rows automatically only when the type is spelt INTEGER.
_RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _changed_at() -> sa.Column[int]:
    return sa.Column("changed_at", sa.BigInteger, nullable=False, index=True)


def _owner(column: str, table: str, *, primary_key: bool = False, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(
        column, sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), primary_key=primary_key, nullable=nullable
    )


meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # one row, 1
    sa.Column("revision", sa.BigInteger, nullable=False),
)

targets = sa.Table(
    "targets",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False, unique=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    _changed_at(),
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False, unique=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    _changed_at(),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    _owner("tenant_id", "tenants", nullable=True),
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("prefix", sa.String(64), nullable=False),
    sa.Column("from_settings", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("revoked_at", UtcDateTime, nullable=True),
    _changed_at(),
)
sa.Index("ix_api_keys_tenant_id", api_keys.c.tenant_id)

tenant_targets = sa.Table(
    "tenant_targets",
    metadata,
    _owner("tenant_id", "tenants", primary_key=True),
    _owner("target_id", "targets", primary_key=True),
    sa.Column("toggle", sa.Text, nullable=False),
    _changed_at(),
)
sa.Index("ix_tenant_targets_target_id", tenant_targets.c.target_id)

tenant_guards = sa.Table(
    "tenant_guards",
    metadata,
    _owner("tenant_id", "tenants", primary_key=True),
    sa.Column("guard", sa.String(64), primary_key=True),
    sa.Column("toggle", sa.Text, nullable=False),
    _changed_at(),
)

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("changed_at", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("id", sa.String(200), primary_key=True),
)

compiled = sa.Table(
    "compiled",
    metadata,
    _owner("target_id", "targets", primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fingerprint", sa.String(200), primary_key=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.String(16), nullable=False, server_default=""),
)

# Jobs that have not ended. Who runs one holds it for a while and holds it anew as long as it lives.
compile_jobs = sa.Table(
    "compile_jobs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    _owner("target_id", "targets"),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("interventions", sa.Text, nullable=False),
    sa.Column("again", sa.Boolean, nullable=False),
    sa.Column("fitted", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("held_until", UtcDateTime, nullable=False),
)
sa.Index("ix_compile_jobs_target_id", compile_jobs.c.target_id)

# The audit names tenants, targets and keys without foreign keys: it must outlive them.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    sa.Column("time", UtcDateTime, nullable=False, index=True),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("tenant_id", sa.String(64), nullable=False, index=True),
    sa.Column("key_id", sa.String(64), nullable=True),
    sa.Column("surface", sa.Text, nullable=False),
    sa.Column("action", sa.String(64), nullable=True, index=True),
    sa.Column("unavailable", sa.Text, nullable=False),
    sa.Column("prompt_sha256", sa.String(64), nullable=False),
    sa.Column("prompt", sa.Text, nullable=True),
    sa.Column("detector_ms", sa.Float, nullable=False),
    sa.Column("total_ms", sa.Float, nullable=False),
)

audit_findings = sa.Table(
    "audit_findings",
    metadata,
    sa.Column("audit_id", _RowId, sa.ForeignKey("audit.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("target_id", sa.String(64), nullable=False, index=True),
    sa.Column("target_revision", sa.Integer, nullable=False),
    sa.Column("guard", sa.String(64), nullable=False, index=True),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("threshold", sa.Float, nullable=False),
    sa.Column("window_sha256", sa.String(64), nullable=False),
    sa.Column("window", sa.Text, nullable=True),
)
