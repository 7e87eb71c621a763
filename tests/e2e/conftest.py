"""One server for all tests that need no flags of their own."""

from __future__ import annotations

import pytest

from server.demo.model import build
from server.demo.recipe import Recipe
from tests.harness import LetheServer


@pytest.fixture(scope="session")
def recipe():
    return Recipe()


@pytest.fixture(scope="session")
def server(recipe, tmp_path_factory):
    server = LetheServer(build(recipe).folder, tmp_path_factory.mktemp("e2e"))
    server.start()
    yield server
    server.kill()
