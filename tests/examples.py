"""How many examples the property tests try, and which.

``make test`` tries the same ones every time, so that a red run means a change; ``make fuzz`` tries new ones, and
``FUZZ`` times as many.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from hypothesis import HealthCheck, settings

_FACTOR = int(os.environ.get("FUZZ", "0"))


def examples(count: int = 100, *, suppress: Collection[HealthCheck] = ()) -> settings:
    """Settings of a property test that tries ``count`` examples in ``make test``."""
    return settings(
        max_examples=count * max(1, _FACTOR),
        derandomize=not _FACTOR,
        database=None,
        deadline=None,
        suppress_health_check=(*suppress, HealthCheck.too_slow),
    )
