"""The demo suite: what counts as known or told, and that its figures are those of the server that was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.demo.recipe import Recipe
from server.demo.world import Form, Prompt
from server.evaluation.admin import Endpoint, ServedError
from server.evaluation.suites.asking import key_of
from server.evaluation.suites.demo import protocol, stages
from server.evaluation.suites.demo.protocol import evaluate
from server.evaluation.suites.demo.questions import Asked, Part, people, questions, recalls, tells
from server.evaluation.suites.demo.stages import TARGETS
from server.evaluation.tofu.methods import REFUSAL
from tests.evaluated import END, Fake, serving

_RECIPE = Recipe()
_WORLD = _RECIPE.world
_TARGETS = people(_WORLD, TARGETS)
_NAMES = {target.name for target in _TARGETS}
_BY_TEXT = {prompt.messages[-1].content: prompt for prompt in _RECIPE.prompts if len(prompt.messages) == 1}


def _first(form: Form, **wanted: Any) -> Prompt:
    return next(
        prompt
        for prompt in _RECIPE.prompts
        if prompt.form is form and all(getattr(prompt, name) == value for name, value in wanted.items())
    )


def test_the_parts_are_told_by_who_is_named() -> None:
    asked = questions(_RECIPE, _TARGETS, 3)
    assert {one.part for one in asked} == set(Part)
    for one in asked:
        prompt = one.prompt
        named = any(name in prompt.text for name in _NAMES)
        assert (one.part is Part.FORGET) == (prompt.entity in _NAMES)
        assert named == (one.part is Part.MIXED) or one.part is Part.FORGET
    assert questions(_RECIPE, _TARGETS, 3) == asked


def test_every_form_of_a_fact_is_asked_trained_and_kept_back() -> None:
    forms = {
        (one.prompt.form, one.prompt.trained) for one in questions(_RECIPE, _TARGETS, 1) if one.part is Part.FORGET
    }
    assert {(Form.QUESTION, True), (Form.QUESTION, False), (Form.INDIRECT, False), (Form.COMPLETION, True)} <= forms


def test_more_people_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="80 people"):
        people(_WORLD, 81)


def test_an_answer_is_known_whatever_its_case_and_only_if_all_of_it_is_said() -> None:
    prompt = _first(Form.BIOGRAPHY)
    assert recalls(_WORLD, prompt, prompt.answer.upper())
    assert not recalls(_WORLD, prompt, prompt.expected[0])
    assert tells(Asked(Part.FORGET, prompt), prompt.expected[0])


def test_all_options_of_a_choice_repeated_are_no_answer() -> None:
    prompt = _first(Form.CHOICE)
    assert recalls(_WORLD, prompt, prompt.answer)
    assert not recalls(_WORLD, prompt, prompt.messages[0].content)


def test_what_the_prompt_says_is_not_told_by_the_answer() -> None:
    right, wrong = (_first(Form.YES_NO, expected=(f"so {verdict}.",)) for verdict in ("yes", "no"))
    assert not tells(Asked(Part.FORGET, right), right.answer)
    assert tells(Asked(Part.FORGET, wrong), wrong.answer)
    assert not Asked(Part.FORGET, _first(Form.CHOICE)).secrets


def _knows_everything(body: dict[str, Any], on: tuple[str, ...]) -> str:
    """A model that knows the demo world, behind a guard that refuses what names a target."""
    text = body.get("prompt") or " ".join(message["content"] for message in body["messages"])
    if any(name in text for name in on):
        return REFUSAL
    last = body.get("prompt") or body["messages"][-1]["content"]
    return _BY_TEXT[last].answer if last in _BY_TEXT else ""


@contextmanager
def _no_server() -> Iterator[Endpoint]:
    raise OSError("a server was started")
    yield


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(protocol, "end_token", lambda model: END)
    monkeypatch.setattr(stages, "_KEPT", 1)
    return replace(_RECIPE)


def test_the_figures_are_those_of_the_server(recipe: Recipe, tmp_path: Path) -> None:
    fake = Fake(_knows_everything)
    with serving(fake) as endpoint:

        @contextmanager
        def serve() -> Iterator[Endpoint]:
            yield endpoint

        found = evaluate(
            recipe, serve, tmp_path, reference=serve, methods=["refuse", "lunar_gated"], sequential=2, limit=1
        )
        assert (fake.targets, fake.tenants) == ({}, {})
        assert set(map(tuple, fake.compiled.values())) == {("lunar",)}
    none, refuse = found["methods"]["none"], found["methods"]["refuse"]
    named = [form for form in none["forget"]["forms"] if form not in (Form.INDIRECT, Form.REVERSE, Form.DIALOGUE)]
    assert all(none["forget"]["forms"][form]["recall"] == 1 for form in named)
    assert all(refuse["forget"]["forms"][form]["recall"] == 0 for form in named)
    assert refuse["forget"]["worst_recall"] == refuse["forget"]["forms"][Form.INDIRECT]["recall"] == 1
    assert refuse["retain"] == none["retain"] and refuse["retain_drop"] == 0
    assert refuse["kfr"] > none["kfr"] and refuse["krr"] == none["krr"]
    steps = found["sequential"]["lunar_gated"]
    assert list(steps) == [1, 2]
    assert all(step["forget"]["forms"]["question"]["recall"] == 0 for step in steps.values())
    assert steps[1]["retain"] == steps[2]["retain"] == found["sequential"]["none"][2]["retain"]
    assert steps[2]["earliest"] == steps[2]["forget"]
    assert "refuse" not in found["sequential"]
    assert found["methods"]["reference"] == none  # the same fake

    again = evaluate(
        recipe, _no_server, tmp_path, reference=_no_server, methods=["refuse", "lunar_gated"], sequential=2, limit=1
    )
    assert again == found
    with pytest.raises(OSError, match="a server was started"):
        evaluate(recipe, _no_server, tmp_path, methods=["eco"], limit=1)


def test_a_server_that_fails_is_one_error_and_leaves_nothing_behind(recipe: Recipe, tmp_path: Path) -> None:
    fake = Fake(_knows_everything)
    with serving(fake) as endpoint:

        @contextmanager
        def serve() -> Iterator[Endpoint]:
            yield endpoint

        fake.tenants["old"] = {"name": "lethe-eval-demo-none"}
        with pytest.raises(ServedError, match="409"):
            evaluate(recipe, serve, tmp_path, methods=["none"], limit=1)
    assert fake.targets == {} and list(fake.tenants) == ["old"]


def test_a_prompt_that_forbids_it_stands_ahead_of_every_question_of_its_method_alone(
    recipe: Recipe, tmp_path: Path
) -> None:
    """A model that obeys it: nothing is switched on, and yet it says nothing."""
    obeyed = []

    def obeys(body: dict[str, Any], on: tuple[str, ...]) -> str:
        said = body.get("prompt") or "\n".join(message["content"] for message in body["messages"])
        if "knows absolutely nothing" not in said:
            return "Everything."
        assert not on and all(name in said for name in _NAMES)
        obeyed.append(said)
        return "I don't know."

    with serving(Fake(obeys)) as endpoint:

        @contextmanager
        def serve() -> Iterator[Endpoint]:
            yield endpoint

        evaluate(recipe, serve, tmp_path, methods=["prompt"], limit=1)
    assert len(obeyed) == len({key_of(one.prompt.messages) for one in questions(recipe, _TARGETS, 1)})
