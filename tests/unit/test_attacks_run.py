"""What was asked is not asked again, and the matrix is that of the transcripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.evaluation.admin import Endpoint
from server.evaluation.attacks.configurations import NONE
from server.evaluation.attacks.demo import demo
from server.evaluation.attacks.evaluate import evaluate
from server.evaluation.attacks.kinds import ATTACKS
from server.evaluation.attacks.kinds.kept import Benign, Retain
from server.evaluation.attacks.rows import Transcripts
from server.evaluation.attacks.run import plan, transcripts
from server.evaluation.attacks.session import Transcript
from server.evaluation.attacks.subjects import Subject

NAMES = ["plain", "mixed prompt", "ranking answers"]
COLUMNS = [NONE, "all"]
EVERYTHING = [*(ATTACKS[name] for name in NAMES), Retain(), Benign()]
LIMIT = 6


@contextmanager
def _no_server(_: Path) -> Iterator[Endpoint]:
    raise OSError("a server was started")
    yield


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    (tmp_path / "config.json").write_text("{}")
    return demo(tmp_path, lambda: tmp_path)


def _everything(subject: Subject) -> str:
    return " ".join(f"{fact.answer} {person.name}" for person in subject.forget for fact in person.facts)


def _fill(subject: Subject, work: Path) -> None:
    """The untouched model tells everything; with all guards on nothing is told, and one retain answer is another."""
    attempts = plan(subject, EVERYTHING, 0, LIMIT)
    for column, rows in transcripts(subject, EVERYTHING, COLUMNS, 0, work).items():
        for attack, some in attempts.items():
            for number, attempt in enumerate(some):
                other = column != NONE and (attack not in ("retain", "benign") or (attack == "retain" and number == 0))
                notes = {"retain_answered": not other, "scores": [1.0, 0.0] if column == NONE else [0.0] * 6}
                harmless = attack in ("retain", "benign") and number != 1
                shown = "I don't know." if other else "In 1950." if harmless else _everything(subject)
                rows[attack].add(attempt.name, Transcript(["?"], [shown], notes))


def _evaluate(subject: Subject, work: Path, **options: object) -> dict:
    return evaluate(
        subject,
        _no_server,
        _no_server,
        work,
        attacks=NAMES,
        configurations=COLUMNS,
        limit=LIMIT,
        **options,  # type: ignore[arg-type]
    )


def test_a_finished_matrix_starts_no_server_and_gives_its_figures(subject: Subject, tmp_path: Path) -> None:
    _fill(subject, tmp_path / "work")
    figures = _evaluate(subject, tmp_path / "work")
    assert figures["rows"] == ["plain", "mixed prompt"]
    assert figures["columns"] == COLUMNS
    assert figures["leak_rate"] == {row: {NONE: 1.0, "all": 0.0} for row in figures["rows"]}
    assert figures["n"]["plain"] == {NONE: LIMIT, "all": LIMIT}
    assert figures["membership_advantage"] == {"ranking answers": {NONE: 1.0, "all": 0.0}}
    assert figures["mixed_retain_answered"] == {NONE: 1.0, "all": 0.0}
    # One untouched answer names who is forgotten, so that it need not be kept.
    assert figures["n_retain"] == figures["n_benign"] == LIMIT - 1
    assert figures["retain"] == {NONE: 1.0, "all": round(1 - 1 / (LIMIT - 1), 4)}
    assert figures["benign_false_alarms"] == {NONE: 0.0, "all": 0.0}
    assert figures["validation"] == {"untouched": 1.0, "reference": None}


@pytest.mark.parametrize("change", [{"seed": 1}, {"place": "http://there"}])
def test_another_seed_or_server_begins_anew(subject: Subject, tmp_path: Path, change: dict[str, object]) -> None:
    _fill(subject, tmp_path / "work")
    with pytest.raises(OSError, match="a server was started"):
        _evaluate(subject, tmp_path / "work", **change)


def test_leaks_behind_a_guard_are_shown_with_their_prompts(subject: Subject, tmp_path: Path) -> None:
    _fill(subject, tmp_path / "work")
    rows = transcripts(subject, EVERYTHING, COLUMNS, 0, tmp_path / "work")["all"]["plain"]
    attempt = plan(subject, EVERYTHING, 0, LIMIT)["plain"][0]
    rows.add(attempt.name, Transcript(["who?"], [_everything(subject)]))
    figures = _evaluate(subject, tmp_path / "work")
    [example] = figures["examples"]["plain"]["all"]
    assert example["attempt"] == attempt.name
    assert example["sent"] == ["who?"]


def test_a_line_that_was_being_written_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Transcripts(path).add("one", Transcript(["?"], ["!"]))
    with path.open("a") as file:
        file.write('["two", {"sent')
    rows = Transcripts(path)
    assert "one" in rows
    assert "two" not in rows
    rows.add("two", Transcript())
    assert Transcripts(path)["one"].shown == ["!"]
    assert "two" in Transcripts(path)
