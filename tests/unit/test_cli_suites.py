"""``lethe eval SUITE``: what cannot be measured is one line and exit status 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli.evaluate import app
from server.evaluation.admin import Endpoint
from server.evaluation.suites.pistol import FILE

_QUESTION = json.dumps({"question": "Which?", "choices": ["a", "b"], "answer": 0})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "questions.jsonl").write_text(_QUESTION)
    (tmp_path / "targets.json").write_text("[]")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("demo --methods none,magic", "magic"),
        ("demo --sequential 81 --methods none", "80 people"),
        ("overrefusal --data {folder}", "passage.jsonl"),
        ("pistol --data {folder}", FILE),
        ("knowundo --data {folder}", "unlearn_train.json"),
        ("documents --data {folder}", "Alice"),
        ("choices {folder}/questions.jsonl --model m", "--targets"),
        ("choices {folder}/questions.jsonl --model m --tenant-key k", "--base-url"),
        ("choices {folder}/none.jsonl --model m --targets {folder}/targets.json", "none.jsonl"),
    ],
)
def test_an_error_is_one_line(folder: Path, arguments: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.demo.model.build", lambda recipe, progress: None)
    result = CliRunner().invoke(app, arguments.format(folder=folder).split())
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("lethe eval")]
    assert said in line


def test_figures_are_written_and_shown(tmp_path: Path) -> None:
    rows = [
        {"edge": edge, "question": f"When was the contract between {parties}?", "answer": "Then."}
        for edge, parties in (("A_B", "Wnzatj SAS and Jzrcws SA"), ("E_F", "Clsvfw AG and Mjlwxf NV"))
        for _ in range(2)
    ]
    (tmp_path / FILE).write_text(json.dumps(rows))
    result = CliRunner().invoke(app, ["pistol", "--data", str(tmp_path), "--json", str(tmp_path / "out.json")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out.json").read_text())["parties"]["forget"]["n"] == 4
    assert "forget" in result.stdout


def test_a_running_server_is_attacked_where_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = []

    def evaluate(subject: object, serve: Callable[[Path], AbstractContextManager[Endpoint]], *_: object, **known: Any):
        with serve(tmp_path) as server:
            served.append((server, known["place"]))
        raise ValueError("that was all")

    arguments = "attacks --subject tofu --attacks plain --guards none --base-url http://there/v1 --admin-key k"
    monkeypatch.setattr("server.evaluation.attacks.tofu.tofu", lambda *_: None)
    monkeypatch.setattr("server.evaluation.attacks.evaluate.evaluate", evaluate)
    assert CliRunner().invoke(app, arguments.split()).exit_code == 2
    assert served == [(Endpoint("http://there", "k"), "http://there")]
