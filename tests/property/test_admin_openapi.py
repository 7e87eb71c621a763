"""schemathesis against the admin API's own OpenAPI: whatever is sent, no 5xx, and answers as documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import schemathesis
from control_plane import ADMIN_KEY, application, control_plane
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from server.admin import build_router
from tests.examples import examples


def _operations() -> list[str]:
    """``METHOD path`` of every route; the service behind them is not asked for that."""
    app = FastAPI()
    app.include_router(build_router(MagicMock()))
    return [f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    with control_plane(folder) as service:
        yield schemathesis.openapi.from_asgi("/openapi.json", application(service))


@pytest.mark.parametrize("label", _operations())
def test_no_input_breaks_it(schema: schemathesis.BaseSchema, label: str) -> None:
    method, path = label.split(" ")

    @given(case=schema[path][method].as_strategy())
    @examples(20, suppress=tuple(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        case.call_and_validate(headers=headers, checks=[not_a_server_error, response_schema_conformance])

    check()
