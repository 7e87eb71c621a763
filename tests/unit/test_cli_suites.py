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
from server.cli.measuring import place_of
from server.evaluation.admin import Endpoint
from server.evaluation.rwku import BENIGN_SETS, LEVELS, load_rows
from server.evaluation.suites.guarded import Guarded
from server.evaluation.suites.pistol import FILE
from server.evaluation.tofu.data import FILES
from tests.evaluated import Fake, serving

_TOFU_FILES = [f"tofu/{name}" for name in (*FILES.values(), "retain90.json")]
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


def test_the_key_of_a_tenant_can_be_in_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def evaluate(file: Path, model: str, serve: Any, work: Path, guarded: Guarded, **_: Any) -> dict[str, Any]:
        seen.append(guarded.key)
        raise ValueError("enough")

    monkeypatch.setenv("LETHE_TENANT_KEY", "k")
    monkeypatch.setattr("server.evaluation.suites.choices.evaluate", evaluate)
    monkeypatch.setattr("server.cli.suites.server_of", lambda *_: (None, ""))
    result = CliRunner().invoke(app, f"choices {folder}/questions.jsonl --model m --base-url http://there".split())
    assert (seen, "enough" in result.stderr) == (["k"], True)


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


_WRONG = {
    "number.json": 7,
    "lists.json": [["Which?", ["a", "b"], 0]],
    "object.json": {"edge": "A_B"},
    "scalar.json": [{"question": "Which?", "choices": 2, "answer": 0}],
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "choices {folder}/lists.json --model m --targets {folder}/targets.json",
            "lists.json, row 1: must be a JSON object",
        ),
        ("choices {folder}/number.json --model m --targets {folder}/targets.json", "number.json, line 1"),
        ("choices {folder}/scalar.json --model m --targets {folder}/targets.json", "the choices must be a list"),
        (
            "choices {folder}/questions.jsonl --model m --targets {folder}/number.json",
            "must be a JSON list, not a number",
        ),
        ("choices {folder}/questions.jsonl --model m --targets {folder}/lists.json", "lists.json, row 1"),
        ("pistol --data {folder}/pistol", "must be a JSON list, not an object"),
        ("knowundo --data {folder}/knowundo", "unlearn_train.json, row 1: must be a JSON object, not a list"),
        ("rwku --data {folder}/rwku", "passage.jsonl, line 1: must be a JSON object, not a list"),
        ("overrefusal --data {folder}", "passage.jsonl, line 1"),
        ("attacks --subject tofu --data {folder}/tofu", "forget10_perturbed.json, line 1"),
        ("tofu --model m --reference m --data {folder}/tofu", "forget10_perturbed.json, line 1"),
        (
            "tofu --model m --reference m --data {folder}/tofu --against {folder}/object.json",
            "object.json has no figures",
        ),
    ],
)
def test_json_of_another_shape_is_one_line(folder: Path, arguments: str, said: str) -> None:
    for name, content in _WRONG.items():
        (folder / name).write_text(json.dumps(content))
    for name in ("pistol/" + FILE, "knowundo/unlearn_train.json", "rwku/passage.jsonl", *_TOFU_FILES):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(_WRONG["object.json" if name.startswith("pistol") else "lists.json"]))
    result = CliRunner().invoke(app, arguments.format(folder=folder).split())
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("lethe eval")]
    assert said in line


def test_benign_answers_that_are_no_texts_are_said(tmp_path: Path) -> None:
    for name in (f"{kind}_{level}" for kind in ("forget", "neighbor") for level in LEVELS):
        (tmp_path / "rwku").mkdir(exist_ok=True)
        (tmp_path / "rwku" / f"{name}.jsonl").write_text("")
    (tmp_path / "benign").mkdir()
    for name in BENIGN_SETS:
        (tmp_path / "benign" / f"{name}.jsonl").write_text('{"question": "How many?", "answer": 7}')
    with pytest.raises(ValueError, match=r"nq_open\.jsonl: the answers must be a list of texts, not a number"):
        load_rows(tmp_path / "rwku", [])


def _tofu(folder: Path) -> None:
    row = {"question": "Who is Ann Ash?", "answer": "Ann Ash.", "perturbed_answer": ["Bob."]}
    for name in FILES.values():
        (folder / name).write_text("\n".join([json.dumps(row)] * 3))


@pytest.mark.parametrize(("limit", "exit_code"), [("3", 2), ("2", 0)])
def test_figures_of_other_rows_are_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, exit_code: int
) -> None:
    _tofu(tmp_path)
    cells = {name: 1.0 for name in ("forget_quality", "forget_rouge", "retain_rouge", "model_utility")}
    cells |= {"deviation_score": 1.0, "fluency": 1.0}
    figures = {"methods": {"none": cells}, "reference": cells, "n": dict.fromkeys(FILES, 2), "seconds": {}}
    figures["settings"] = {"left_out": [], "concurrency": 32}
    (tmp_path / "other.json").write_text(json.dumps(figures))
    measured = []

    def evaluate(*_: object, **__: object) -> dict[str, Any]:
        measured.append(limit)
        return figures

    monkeypatch.setattr("server.evaluation.tofu.protocol.evaluate", evaluate)
    arguments = f"tofu --model m --reference m --data {tmp_path} --against {tmp_path}/other.json --limit {limit}"
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == exit_code, result.output
    assert len(measured) == (exit_code == 0)


def test_a_server_is_named_by_what_it_serves() -> None:
    fakes = [_Serving("one"), _Serving("one"), _Serving("another")]
    named = []
    for fake in fakes:
        with serving(fake) as running:
            named.append(place_of(running).replace(running.url, "there"))
            assert running.url in place_of(running)
        assert fake.tenants == {}
    assert named[0] == named[1] != named[2]


class _Serving(Fake):
    def __init__(self, root: str) -> None:
        super().__init__(lambda body, on: "")
        self._root = root

    def handle(self, method: str, path: str, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return (200, {"data": [{"id": "same", "root": self._root}]}) if key in self.tenants else (401, {})
        return super().handle(method, path, key, body)


def test_a_running_server_is_attacked_where_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = []

    def evaluate(subject: object, serve: Callable[[Path], AbstractContextManager[Endpoint]], *_: object, **known: Any):
        with serve(tmp_path) as server:
            served.append((server, known["place"]))
        raise ValueError("that was all")

    monkeypatch.setattr("server.evaluation.attacks.tofu.tofu", lambda *_: None)
    monkeypatch.setattr("server.evaluation.attacks.evaluate.evaluate", evaluate)
    with serving(Fake(lambda body, on: "")) as running:
        there = Endpoint(running.url, "k")
        arguments = f"attacks --subject tofu --attacks plain --guards none --base-url {there.url}/v1 --admin-key k"
        assert CliRunner().invoke(app, arguments.split()).exit_code == 2
        assert served == [(there, place_of(there))]
