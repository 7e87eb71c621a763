"""One server for the matrix, with a tenant for each guard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import Entity, Form, World
from tests.conformance.surfaces import Question
from tests.harness import LetheServer

GUARDS = ("lexicon", "semantic", "prefix", "statements", "leak", "everything")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe()


@pytest.fixture(scope="session")
def world(recipe: Recipe) -> World:
    return recipe.world


@pytest.fixture(scope="session")
def server(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LetheServer]:
    flags = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-prompt-tokens-details"]
    # The demo model never saw JSON; free white space is what it would choose for ever.
    flags += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    server = LetheServer(build(recipe).folder, tmp_path_factory.mktemp("conformance"), *flags)
    server.start()
    yield server
    server.kill()


def question_about(recipe: Recipe, entity: Entity, relation: str = "book") -> Question:
    """A trained question on one fact, in both shapes."""

    def ask(form: Form) -> str:
        return next(
            prompt.messages[0].content
            for prompt in recipe.prompts
            if prompt.form is form and prompt.entity == entity.name and prompt.fact.relation == relation
        )

    return Question(ask(Form.QUESTION), ask(Form.COMPLETION), entity.value(relation))
