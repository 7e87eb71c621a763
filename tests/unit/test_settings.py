"""The settings: what they take, and what they refuse before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from server.settings import Settings


@pytest.mark.parametrize(("days", "taken"), [(1, True), (36_500, True), (0, False), (36_501, False), (10**6, False)])
def test_the_audits_retention_is_a_number_of_days_that_dates_can_tell(
    days: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_AUDIT_RETENTION_DAYS", str(days))
    if taken:
        assert Settings().audit_retention_days == days
    else:
        with pytest.raises(ValidationError):
            Settings()
