"""Indexes of what is known of some targets, for tests of what compares texts with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from classifiers.detector import TextDetector
from classifiers.profile import Profile
from classifiers.statement_index import StatementIndex


@contextmanager
def indexed(*profiles: Profile) -> Iterator[StatementIndex]:
    """The statements of these targets, with an encoder of their own."""
    detector = TextDetector()
    try:
        index = StatementIndex(detector.encoder)
        for profile in profiles:
            index.add(detector.compile(profile))
        yield index
    finally:
        detector.close()
