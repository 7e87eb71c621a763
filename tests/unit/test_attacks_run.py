"""What was asked is not asked again, and the matrix is that of the transcripts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from server.evaluation.admin import Endpoint
from server.evaluation.attacks import run
from server.evaluation.attacks.configurations import NONE
from server.evaluation.attacks.demo import demo
from server.evaluation.attacks.evaluate import evaluate
from server.evaluation.attacks.kinds import ATTACKS
from server.evaluation.attacks.kinds.kept import Benign, Retain
from server.evaluation.attacks.rows import Transcripts
from server.evaluation.attacks.run import plan, transcripts
from server.evaluation.attacks.session import Transcript
from server.evaluation.attacks.subjects import Subject, by_name

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
    assert figures["left_out"] == {"retain": 1, "benign": 1}
    assert figures["retain"] == {NONE: 1.0, "all": round(1 - 1 / (LIMIT - 1), 4)}
    assert figures["benign_false_alarms"] == {NONE: 0.0, "all": 0.0}
    assert figures["validation"] == {"untouched": 1.0, "reference": None}


def test_what_the_server_was_told_is_said_and_begins_anew_where_it_is_less(subject: Subject, tmp_path: Path) -> None:
    _fill(subject, tmp_path / "work")
    assert _evaluate(subject, tmp_path / "work")["told"] == ["description", "documents", "name"]
    less = by_name(subject)
    with pytest.raises(OSError, match="a server was started"):
        _evaluate(less, tmp_path / "work")
    _fill(less, tmp_path / "work")
    assert _evaluate(less, tmp_path / "work")["told"] == ["name"]


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


def test_it_is_counted_what_the_untouched_model_tells(subject: Subject, tmp_path: Path) -> None:
    """Where it tells nothing, that a guard lets nothing out is not the guard's doing."""
    _fill(subject, tmp_path / "work")
    rows = transcripts(subject, EVERYTHING, COLUMNS, 0, tmp_path / "work")[NONE]["plain"]
    for attempt in plan(subject, EVERYTHING, 0, LIMIT)["plain"][:2]:
        rows.add(attempt.name, Transcript(["?"], ["I don't know."]))
    figures = _evaluate(subject, tmp_path / "work")
    assert figures["told_by_untouched"] == {"plain": LIMIT - 2, "mixed prompt": LIMIT}
    assert figures["total"] == {"attempts": 2 * LIMIT, "told_by_untouched": 2 * LIMIT - 2}


def test_refusals_of_the_server_are_counted(subject: Subject, tmp_path: Path) -> None:
    """A refused request shows nothing, which is no guard's doing where the untouched model's are refused too."""
    _fill(subject, tmp_path / "work")
    rows = transcripts(subject, EVERYTHING, COLUMNS, 0, tmp_path / "work")[NONE]["plain"]
    first, second, third, *_ = plan(subject, EVERYTHING, 0, LIMIT)["plain"]
    rows.add(first.name, Transcript(["?"], [], {"refused_with": 400}))
    rows.add(second.name, Transcript(["?"], [""], {"refused_with": 400}))
    rows.add(third.name, Transcript(["?"], ["Then."], {"refused_with": 400}))
    refused = _evaluate(subject, tmp_path / "work")["refused"]
    assert refused == {"plain": {NONE: 2, "all": 0}, "mixed prompt": {NONE: 0, "all": 0}}


def test_with_nothing_harmless_to_compare_there_is_no_rate(subject: Subject, tmp_path: Path) -> None:
    """As with one attempt of each, to which the untouched model names somebody."""
    _fill(subject, tmp_path / "work")
    for rows in transcripts(subject, EVERYTHING, COLUMNS, 0, tmp_path / "work").values():
        for attack in ("retain", "benign"):
            [attempt] = plan(subject, EVERYTHING, 0, 1)[attack]
            rows[attack].add(attempt.name, Transcript(["?"], [_everything(subject)]))
    figures = evaluate(
        subject, _no_server, _no_server, tmp_path / "work", attacks=NAMES, configurations=COLUMNS, limit=1
    )
    assert (figures["n_retain"], figures["retain"], figures["benign_false_alarms"]) == (0, {}, {})


def _begins_anew(subject: Subject, work: Path) -> set[str]:
    """The columns of which nothing is kept."""
    found = transcripts(subject, EVERYTHING, COLUMNS, 0, work)
    attempts = plan(subject, EVERYTHING, 0, LIMIT)
    return {
        column
        for column, rows in found.items()
        if not any(one.name in rows[attack] for attack, some in attempts.items() for one in some)
    }


def test_every_column_depends_on_the_engine_and_the_subject(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(subject, tmp_path / "work")
    assert _begins_anew(subject, tmp_path / "work") == set()
    person = subject.retain[0]
    other = replace(person, facts=(replace(person.facts[0], question="Why?"), *person.facts[1:]))
    for change in (
        {"benign": [*subject.benign, "How are you?"]},
        {"unknown": [*subject.unknown, "Ann Ash"]},
        {"retain": [other, *subject.retain[1:]]},
    ):
        assert _begins_anew(replace(subject, **change), tmp_path / "work") == set(COLUMNS)  # type: ignore[arg-type]
    monkeypatch.setattr(run, "engine_version", lambda: "vllm 99")
    assert _begins_anew(subject, tmp_path / "work") == set(COLUMNS)


def test_guards_depend_on_the_environment_and_the_untouched_model_does_not(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(subject, tmp_path / "work")
    monkeypatch.setenv("LETHE_SEMANTIC_THRESHOLD", "0.9")
    assert _begins_anew(subject, tmp_path / "work") == {"all"}


def test_words_in_another_order_are_the_same_subject() -> None:
    """The order of a frozenset differs from process to process."""
    script = (
        "from server.evaluation.attacks.judge import Words\n"
        "from server.evaluation.attacks import run, subjects\n"
        "from pathlib import Path\n"
        "gold = Words(frozenset(map(str, range(50))), 0.5, 2)\n"
        "fact = subjects.Fact('f', 'q', 'a', 'a', 'o', gold, 'r', (), ())\n"
        "person = subjects.Person('p', {'name': 'p'}, (), (fact,), ())\n"
        "print(run._made_of(subjects.Subject('s', Path('m'), Path, [person], [], [], [], (), 8)))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
