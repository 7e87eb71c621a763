"""Durable state: one SQL database is the truth, every change to it bumps a revision."""

from guard.store.errors import InvalidChangeError, NameTakenError, NotFoundError, RevisionMismatchError, StoreError
from guard.store.reader import Reader
from guard.store.records import Changes, ToggleRow, Tombstone
from guard.store.store import Store
from guard.store.writer import DEFAULT_TENANT_ID, Writer

__all__ = [
    "DEFAULT_TENANT_ID",
    "Changes",
    "InvalidChangeError",
    "NameTakenError",
    "NotFoundError",
    "Reader",
    "RevisionMismatchError",
    "Store",
    "StoreError",
    "ToggleRow",
    "Tombstone",
    "Writer",
]
