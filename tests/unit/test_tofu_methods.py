"""What a server is told for TOFU."""

from __future__ import annotations

import pytest

from server.evaluation.tofu.methods import registered
from tests.evaluated import Fake, serving


@pytest.mark.parametrize(("compiled", "expected"), [(None, 3), (1, 1)])
def test_a_quick_look_compiles_only_who_is_asked_about(compiled: int | None, expected: int) -> None:
    fake = Fake(lambda body, on: "")
    targets = [{"name": name} for name in ("Ann", "Bob", "Cid")]
    with serving(fake) as endpoint, registered(endpoint, targets, ["none", "eco"], compiled=compiled):
        assert [fake.targets[target]["name"] for target in fake.compiled] == ["Ann", "Bob", "Cid"][:expected]
        assert len({target for _, target in fake.on}) == 3
    assert not fake.targets
