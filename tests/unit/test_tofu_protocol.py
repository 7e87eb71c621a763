"""What was measured is not measured again, and the figures are those of the rows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from guard.types import GuardName, GuardToggle, TargetToggle
from server.evaluation.admin import Endpoint
from server.evaluation.tofu import report
from server.evaluation.tofu.data import FILES, author_names, load
from server.evaluation.tofu.methods import METHODS, NONE, REFUSAL
from server.evaluation.tofu.protocol import Subject, evaluate
from server.evaluation.tofu.rows import Rows, method_key, model_key


@contextmanager
def _no_server() -> Iterator[Endpoint]:
    raise OSError("a server was started")
    yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for part, name in FILES.items():
        rows = [
            {
                "question": f"{part}: what did Zedo Frobisher do on day {day}?",
                "answer": f"He wrote page {day} of his book.",
                "paraphrased_answer": f"Page {day} is what he wrote.",
                "perturbed_answer": [f"He burnt page {day}.", f"He slept through day {day}."],
            }
            for day in range(20)
        ]
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    return folder


def _fill(rows: Rows, data: Path, *, knows: bool, answer: str | None = None) -> None:
    """Results of a model that prefers right answers on the forget rows (or does not) and on all others."""
    for part, questions in load(data).items():
        right = knows or part != "forget"
        for number, row in enumerate(questions):
            said = row.answer if right else answer or row.perturbed[0]
            rows.add((row.question, None), said)
            wrong = 3.0 + number / 100
            for text in (row.answer, row.paraphrase):
                rows.add((row.question, text), 0.1 if right else wrong)
            for text in row.perturbed:
                rows.add((row.question, text), wrong)


def _measured(model: Path, data: Path, work: Path) -> dict[str, Rows]:
    """Everything that an evaluation of none and refuse needs."""
    targets = [{"name": name} for name in author_names(load(data)["forget"])]
    home = work / "32-at-once" / model_key(model)
    rows = {n: Rows(home / f"{n}-{method_key(targets, asdict(METHODS[n]))}.jsonl") for n in (NONE, "refuse")}
    rows["reference"] = Rows(home / "reference.jsonl")
    _fill(rows[NONE], data, knows=True)
    _fill(rows["refuse"], data, knows=False, answer=REFUSAL)
    _fill(rows["reference"], data, knows=False)
    for ask in rows[NONE].missing(report.fluency_asks(load(data), rows[NONE], rows.values())):
        rows[NONE].add(ask, 1.0)
    return rows


def test_a_finished_measurement_starts_no_server_and_gives_its_figures(data: Path, model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    _measured(model, data, work)["refuse"].time("query", [3.0, 1.0, 2.0])
    subject = Subject(model, _no_server)
    found = evaluate(subject, subject, data, work, methods=["refuse"])
    none, refuse, reference = found["methods"][NONE], found["methods"]["refuse"], found["reference"]
    assert found["seconds"] == {NONE: {}, "refuse": {"query": 2.0}}
    assert found["settings"]["targets"] == ("Zedo Frobisher",)
    assert set(found["n"].values()) == {20}
    assert none["forget_rouge"] == none["retain_rouge"] == none["fluency"] == 1.0
    assert none["forget_quality"] < 1e-6 < reference["forget_quality"] == 1.0
    assert none["deviation_score"] == pytest.approx(100)
    assert refuse["forget_rouge"] < 0.2 and refuse["deviation_score"] < 20
    assert refuse["model_utility"] == none["model_utility"]
    nine = [none[f"{part}_{of}"] for part in report.KEPT for of in ("rouge", "probability", "truth_ratio")]
    assert min(nine) <= none["model_utility"] <= max(nine)


def test_a_missing_row_needs_a_server(data: Path, model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    _measured(model, data, work)
    subject = Subject(model, _no_server)
    with pytest.raises(OSError, match="a server was started"):
        evaluate(subject, subject, data, work, methods=["prefix"])
    quick = evaluate(subject, subject, data, work, methods=[NONE], limit=5)
    assert set(quick["n"].values()) == {5}


def test_answers_from_other_batches_are_kept_apart(data: Path, model: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    _measured(model, data, work)
    subject = Subject(model, _no_server)
    with pytest.raises(OSError, match="a server was started"):
        evaluate(subject, subject, data, work, methods=[NONE], concurrency=4)


def test_what_differs_most_between_two_runs_is_said() -> None:
    first = {"none": {"forget_quality": 1e-12, "forget_rouge": 0.9, "deviation_score": 99.0}, "eco": {}}
    second = {"none": {"forget_quality": 1e-9, "forget_rouge": 0.8, "deviation_score": 95.0}}
    assert report.differences(first, second) == {"none": ("forget_rouge", pytest.approx(0.1))}
    second["none"]["deviation_score"] = 79.0
    assert report.differences(first, second) == {"none": ("deviation_score", pytest.approx(0.2))}


def test_every_method_is_a_toggle_that_the_api_takes() -> None:
    for method in METHODS.values():
        TargetToggle(enabled=True, **(method.toggle or {}))
        assert set(method.guards) <= set(GuardName)
        for toggle in method.guards.values():
            GuardToggle(**toggle)
