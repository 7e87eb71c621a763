"""What can go wrong with a state change, told apart so that callers can answer each in its own way."""

from __future__ import annotations


class StoreError(Exception):
    """Base of the errors below. Messages name ids and kinds, never target or tenant text."""


class NotFoundError(StoreError):
    """There is no such object."""

    def __init__(self, kind: str, reference: str) -> None:
        super().__init__(f"no {kind} {reference!r}")
        self.kind = kind


class NameTakenError(StoreError):
    """Another object of the same kind has this name, letter case and spacing aside."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"another {kind} has this name")
        self.kind = kind


class RevisionMismatchError(StoreError):
    """The object is not (or no longer) at the revision that the caller expected."""

    def __init__(self, kind: str, expected: int, actual: int | None) -> None:
        super().__init__(f"{kind} is at revision {actual if actual is not None else 'none'}, not {expected}")
        self.actual = actual


class InvalidChangeError(StoreError):
    """The change would break a rule that holds between objects."""
