"""The columns of the matrix are tenants of one server."""

from __future__ import annotations

import pytest

from server.evaluation.admin import admin
from server.evaluation.attacks.configurations import registered
from server.evaluation.attacks.subjects import Person
from server.evaluation.suites.guarded import Guarded
from tests.evaluated import Fake, serving

_ANN = Person("Ann Ash", {"name": "Ann Ash"}, (), (), ())
_AUTO = ["eco", "lunar", "rocr", "concept", "auto"]


def _server() -> Fake:
    return Fake(lambda body, on: "")


@pytest.mark.parametrize(
    ("names", "fitted"),
    [(["none", "eco"], ["eco"]), (["all+auto"], _AUTO), (["eco", "all+auto"], _AUTO), (["all"], None)],
)
def test_what_a_column_needs_is_fitted_first(names: list[str], fitted: list[str] | None) -> None:
    """The choice among what is fitted comes last; without that job nothing is chosen, and "auto" refuses."""
    fake = _server()
    with serving(fake) as endpoint, registered(endpoint, [_ANN], names):
        assert list(fake.compiled.values()) == ([] if fitted is None else [fitted])


def test_a_tenant_of_auto_is_made_with_the_choice() -> None:
    fake = _server()
    with serving(fake) as endpoint, admin(endpoint) as api:
        Guarded(targets=({"name": "Ann Ash"},)).keys(api, "t-{}")
        assert list(fake.compiled.values()) == [_AUTO]
