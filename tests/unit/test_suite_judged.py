"""The suites without a model: rows are read as they are, and the real guards are asked about small data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guard.types import TargetSpec
from server.evaluation.rwku import BENIGN_SETS
from server.evaluation.suites import knowundo, overrefusal, pistol
from server.evaluation.suites.judging import Case, Judged, judge, rates
from server.evaluation.tofu.data import FILES


def test_rates_are_shares_of_a_group() -> None:
    cases = [Case("a", "?", "!")] * 2 + [Case("b", "?", "!")]
    judged = [Judged(True, False, True), Judged(False, False, False), Judged(False, True, True)]
    found = rates(cases, judged)
    assert found["a"] == {"flagged": 0.5, "leaked": 0.0, "blocked": 0.5, "n": 2}
    assert found["b"] == {"flagged": 0.0, "leaked": 1.0, "blocked": 1.0, "n": 1}


def test_questions_and_answers_are_judged_for_one_tenant_at_a_time() -> None:
    target = TargetSpec(name="Zedo Frobisher")
    cases = [
        Case("asked", "Who is Zedo Frobisher?", "A writer."),
        Case("answered", "Who wrote the Red Moon?", "It was Zedo Frobisher."),
        Case("neither", "How long do I bake bread?", "For an hour."),
    ]
    done: list[int] = []
    with judge() as judging:
        first, second = (judging.tenant(name, [target]) for name in ("first", "second"))
        free = judging.tenant("free", [])
        assert (
            judging.judge(first, cases, done.append)
            == judging.judge(second, cases)
            == [
                Judged(flagged=True, leaked=False, blocked=True),
                Judged(flagged=False, leaked=True, blocked=True),
                Judged(flagged=False, leaked=False, blocked=False),
            ]
        )
        assert not any(one.blocked for one in judging.judge(free, cases))
    assert done == [3]


def _contract(seller: str, buyer: str, edge: str) -> list[dict[str, Any]]:
    asked = ("When was", "Who signed", "Where was", "What is the sum in")
    return [
        {"edge": edge, "question": f"{how} the contract between {seller} and {buyer}?", "answer": f"{edge} {at}."}
        for at, how in enumerate(asked)
    ]


def test_contracts_are_linked_by_their_parties(tmp_path: Path) -> None:
    rows = _contract("Wnzatj SAS", "Jzrcws SA", "A_B") + _contract("Wnzatj SAS", "Qpubwe PLC", "A_C")
    rows += _contract("Clsvfw AG", "Mjlwxf NV", "E_F")
    (tmp_path / pistol.FILE).write_text(json.dumps(rows))
    assert pistol.load(tmp_path)[0].parties == {"Wnzatj SAS", "Jzrcws SA"}
    found = pistol.evaluate(tmp_path, limit=1)
    assert found["parties"]["forget"] == {"flagged": 1.0, "leaked": 0.0, "blocked": 1.0, "n": 4}
    assert found["parties"]["linked"]["blocked"] == 1 and found["parties"]["independent"]["blocked"] == 0
    assert found["deviation_score"]["parties"] == pytest.approx(50)
    assert {group: part["n"] for group, part in found["contract"].items()} == {
        "forget": 2,
        "linked": 2,
        "independent": 2,
    }


def test_a_contract_whose_parties_are_not_said_is_an_error(tmp_path: Path) -> None:
    (tmp_path / pistol.FILE).write_text(json.dumps([{"edge": "A_B", "question": "When?", "answer": "Then."}]))
    with pytest.raises(ValueError, match="A_B"):
        pistol.load(tmp_path)


def _rows(*texts: str) -> str:
    return json.dumps([{"text": text, "labels": "Yes."} for text in texts])


def test_rows_belong_to_the_one_person_that_they_name(tmp_path: Path) -> None:
    private = [f"What is number {at} of Ann Lee?" for at in range(4)]
    public = [f"What is work {at} of Ann Lee?" for at in range(3)]
    (tmp_path / knowundo.FILES["forget"]).write_text(_rows(*private, "Who lives in Baker St?"))
    (tmp_path / knowundo.FILES["over_forget"]).write_text(_rows(*public, "And who is it?"))
    (person,), left_out = knowundo.load(tmp_path)
    assert (person.name, left_out) == ("Ann Lee", 2)
    assert [question for question, _ in person.rows["forget"]] == private
    found = knowundo.evaluate(tmp_path)
    assert (found["person"]["forget"]["n"], found["person"]["over_forget"]["n"]) == (4, 3)
    assert (found["private"]["forget"]["n"], found["private"]["over_forget"]["n"]) == (2, 1)
    assert found["person"]["forget"]["blocked"] == found["person"]["over_forget"]["blocked"] == 1


def _lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))


def test_what_is_near_is_told_from_what_names_a_target(tmp_path: Path) -> None:
    person = {"entity": "Ann Lee", "subject": "Ann Lee", "intro": "Ann Lee is a painter.", "text": "Ann Lee paints."}
    for name in ("intro", "passage", *(f"forget_level{level}" for level in (1, 2, 3))):
        _lines(tmp_path / "rwku" / f"{name}.jsonl", {**person, "query": "Who is Ann Lee?", "answer": "A painter"})
    near = {"entity": "Ann Lee", "query": "What is a brush made of?", "answer": "Hair"}
    for level in (1, 2):
        named = {"entity": "Ann Lee", "query": "Who taught Bob Moe?", "answer": "Ann Lee"}
        _lines(tmp_path / "rwku" / f"neighbor_level{level}.jsonl", near, named)
    for name in BENIGN_SETS:
        _lines(tmp_path / "benign" / f"{name}.jsonl", {"question": "How long do I bake bread?", "answer": "An hour"})
    row = {"question": "What did Zedo Frobisher write?", "answer": "Red Moon.", "perturbed_answer": ["Blue Sun."]}
    for part, name in FILES.items():
        _lines(tmp_path / "tofu" / name, row if part == "forget" else {**row, "question": "Where is Baku?"})
    found = overrefusal.evaluate(tmp_path, limit=2)
    assert found["settings"]["targets"] == 1 + 1 + 10
    groups = found["groups"]
    assert {group for group in groups if group.startswith("benign")} == {f"benign/{name}" for name in BENIGN_SETS}
    assert groups["neighbor/level1"] == {"flagged": 0.0, "leaked": 0.0, "blocked": 0.0, "n": 1}
    assert groups["neighbor/level1, names a target"] == {"flagged": 0.0, "leaked": 1.0, "blocked": 1.0, "n": 1}
    assert {"tofu/retain", "tofu/real_authors", "tofu/world_facts", "demo/retain", "demo/general"} <= groups.keys()
    assert not any(group.startswith("forget") for group in groups)
