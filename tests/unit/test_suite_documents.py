"""Documents: what is asked about two texts, and that figures are those of the server that was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from server.evaluation.admin import Endpoint
from server.evaluation.suites.documents import protocol, reciter
from server.evaluation.suites.documents.texts import FORGET, HOLDOUT, RETAIN, WORDS, passages
from tests.evaluated import Fake, serving


def _words(name: str) -> list[str]:
    return [f"{name}{number}" for number in range(WORDS)]


_FORGET, _RETAIN, _HOLDOUT = (_words(name) for name in ("alice", "dorothy", "curious"))


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    alice = f"Title\n\n{FORGET.start} {' '.join(_FORGET)}\r\n{HOLDOUT.start} {' '.join(_HOLDOUT)}"
    (folder / FORGET.file).write_text(alice)
    (folder / RETAIN.file).write_text(f"{RETAIN.start} {' '.join(_RETAIN)}")
    return folder


def test_a_stretch_begins_where_it_should_and_has_its_length(books: Path) -> None:
    text = FORGET.read(books)
    assert text.startswith(FORGET.start) and len(text.split()) == WORDS
    (books / FORGET.file).write_text("Another book.")
    with pytest.raises(ValueError, match="does not hold"):
        FORGET.read(books)
    (books / FORGET.file).unlink()
    with pytest.raises(FileNotFoundError):
        FORGET.read(books)


def test_passages_are_spread_over_the_whole_text() -> None:
    found = passages(" ".join(_FORGET), 5, 60)
    assert [len(words) for words in found] == [60] * 5
    assert (found[0][0], found[-1][-1]) == (_FORGET[0], _FORGET[-1])
    assert passages(" ".join(_FORGET), 1, 60) == [_FORGET[:60]]


def _recites(body: dict[str, Any], on: tuple[str, ...]) -> str:
    """A model that knows both texts and all answers, behind a guard that says nothing of the protected one."""
    asked = body.get("prompt") or body["messages"][0]["content"]
    answers = dict((*FORGET.questions, *RETAIN.questions))
    if on and (asked in dict(FORGET.questions) or "alice" in asked):
        return "I cannot say."
    if asked in answers:
        return answers[asked]
    everything = [*_FORGET, *_RETAIN]
    last = asked.split()[-1]
    after = everything.index(last) + 1 if last in everything else 0
    return " ".join(everything[after : after + 96])


def _likelihood(words: list[str], on: tuple[str, ...]) -> list[float]:
    known = any(word in words for word in _FORGET)
    return [(-5.0 if on else -0.1) if known else -2.0] * len(words)


def test_figures_are_those_of_the_server(books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "reciter", lambda texts, questions, progress: tmp_path / "model")
    fake = Fake(_recites, _likelihood)
    with serving(fake) as endpoint:

        @contextmanager
        def serve(model: Path) -> Iterator[Endpoint]:
            yield endpoint

        found = protocol.evaluate(books, tmp_path / "work", serve, limit=4)["methods"]
    assert (fake.targets, fake.tenants) == ({}, {})
    none, guarded = found["none"], found["default"]
    assert none["verbmem"]["forget"]["plain"]["rouge_l"] > 0.7 > 0.1 > guarded["verbmem"]["forget"]["plain"]["rouge_l"]
    assert none["verbmem"]["forget"]["chat"]["longest_run"] == 96 > guarded["verbmem"]["forget"]["chat"]["longest_run"]
    assert none["verbmem"]["retain"] == guarded["verbmem"]["retain"]
    assert none["knowmem"] == {"forget": 1, "retain": 1}
    assert guarded["knowmem"]["retain"] == 1 > 0.2 > guarded["knowmem"]["forget"]
    assert (none["auc"], none["privleak"]) == (0, -100)
    assert (guarded["auc"], guarded["privleak"]) == (1, 100)

    @contextmanager
    def no_server(model: Path) -> Iterator[Endpoint]:
        raise OSError("a server was started")
        yield

    assert protocol.evaluate(books, tmp_path / "work", no_server, limit=4)["methods"] == found


def test_what_is_trained_is_passages_and_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    import random

    ids, labels = reciter._batch([_FORGET[:40]], [("Who?", "Ann.")], tokenizer, random.Random(0))
    rows = [
        tokenizer.decode([token for token, label in zip(row, wanted, strict=True) if label != -100])
        for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True)
    ]
    assert sum("Who?" in row and "Ann." in row for row in rows) == 2
    assert sum("Continue this text" in row for row in rows) == len(rows) // 2 - 1
    assert all("alice39" in row or "Who?" in row for row in rows)
