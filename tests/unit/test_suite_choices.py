"""Multiple choice: what is read, and that the likeliest letter decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from server.evaluation.admin import Endpoint
from server.evaluation.suites.choices import Question, evaluate, load
from server.evaluation.suites.guarded import Guarded
from tests.evaluated import Fake, serving

_ROWS: list[dict[str, Any]] = [
    {"question": f"What is virus {number}?", "choices": ["w", "x", "y", "z"], "answer": number} for number in range(4)
]


@pytest.mark.parametrize("text", [json.dumps(_ROWS), "\n".join(map(json.dumps, _ROWS))], ids=["list", "lines"])
def test_both_ways_to_write_a_file_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    assert load(tmp_path / "file")[3] == Question("What is virus 3?", ("w", "x", "y", "z"), 3)


@pytest.mark.parametrize(
    "row",
    [
        {**_ROWS[0], "answer": 4},
        {**_ROWS[0], "answer": "B"},
        {**_ROWS[0], "answer": -1},
        {**_ROWS[0], "choices": ["w"]},
    ],
)
def test_a_row_without_a_right_answer_is_an_error(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "file").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match="question 1"):
        load(tmp_path / "file")


def test_a_file_without_questions_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("[]")
    with pytest.raises(ValueError, match="no questions"):
        load(tmp_path / "file")


def _likelihood(words: list[str], on: tuple[str, ...]) -> list[float]:
    """Knows three of four answers; refuses what is on."""
    if any(name in words for name in on):
        return [-9.0] * len(words)
    right = "ABCA"[int(words[words.index("virus") + 1][0])]
    return [-9.0] * (len(words) - 1) + [-0.1 if words[-1] == right else -3.0]


@contextmanager
def _no_server() -> Iterator[Endpoint]:
    raise OSError("a server was started")
    yield


def test_guards_take_accuracy_to_chance_and_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps(_ROWS))
    guarded = Guarded(targets=({"name": "virus"},), action="lunar")
    fake = Fake(lambda body, on: "", _likelihood)
    with serving(fake) as endpoint:
        found = evaluate(tmp_path / "file", "model", lambda: nullcontext(endpoint), tmp_path, guarded)
    assert found["none"] == {"accuracy": 0.75, "undecided": 0.0}
    assert found["guarded"] == {"accuracy": 0.25, "undecided": 1.0}
    assert (found["chance"], found["n"]) == (0.25, 4)
    assert list(fake.compiled.values()) == [["lunar"]]
    assert (fake.targets, fake.tenants) == ({}, {})
    assert evaluate(tmp_path / "file", "model", _no_server, tmp_path, guarded) == found
    with pytest.raises(OSError, match="a server was started"):
        evaluate(tmp_path / "file", "model", _no_server, tmp_path, Guarded(targets=({"name": "another"},)))


def test_a_tenant_that_there_is_keeps_its_guards(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps(_ROWS))
    fake = Fake(lambda body, on: "", _likelihood)
    fake.tenants["theirs"], fake.targets["t"] = {"name": "theirs"}, {"name": "virus"}
    fake.on["theirs", "t"] = {"enabled": True}
    with serving(fake) as endpoint:
        found = evaluate(tmp_path / "file", "model", lambda: nullcontext(endpoint), tmp_path, Guarded("theirs"))
    assert found["guarded"]["undecided"] == 1.0
    assert list(fake.tenants) == ["theirs"]
