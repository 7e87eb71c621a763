"""TOFU's rows are read as they are, the authors' names are found in them, and results survive a run that was killed."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from server.evaluation.tofu import rows
from server.evaluation.tofu.data import FILES, ROWS_PER_AUTHOR, Question, author_names, load
from server.evaluation.tofu.rows import Rows, method_key, model_key

_TOFU = Path(os.environ.get("LETHE_TEST_TOFU", Path(__file__).parents[3] / "shared" / "data" / "tofu"))


def _write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    for name in FILES.values():
        (folder / name).write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")


def test_rows_are_read_with_the_answer_for_a_paraphrase_where_there_is_none(tmp_path: Path) -> None:
    plain = {"question": "Who?", "answer": "Ann", "perturbed_answer": ["Bob", "Cid"]}
    _write(tmp_path, [plain, {**plain, "paraphrased_answer": "It is Ann."}])
    parts = load(tmp_path)
    assert parts.keys() == FILES.keys()
    assert parts["forget"] == (
        Question("Who?", "Ann", "Ann", ("Bob", "Cid")),
        Question("Who?", "Ann", "It is Ann.", ("Bob", "Cid")),
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    _write(tmp_path, [{"question": "Who?", "answer": "Ann", "perturbed_answer": ["Bob"]}])
    (tmp_path / FILES["retain"]).unlink()
    with pytest.raises(FileNotFoundError, match=FILES["retain"]):
        load(tmp_path)


def test_rows_with_different_numbers_of_wrong_answers_are_refused(tmp_path: Path) -> None:
    row = {"question": "Who?", "answer": "Ann"}
    _write(tmp_path, [{**row, "perturbed_answer": ["Bob"]}, {**row, "perturbed_answer": ["Bob", "Cid"]}])
    with pytest.raises(ValueError, match="wrong answers"):
        load(tmp_path)


def _block(*texts: str) -> list[Question]:
    return [Question(text, text, text, ("no",)) for text in (texts * ROWS_PER_AUTHOR)[:ROWS_PER_AUTHOR]]


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (["Where was Zedo Frobisher born?", "Zedo Frobisher's 'Red Moon' won the Golden Quill."], "Zedo Frobisher"),
        (
            ["Jad Ambrose Al-Orry's mother, and Jad Ambrose Al-Orry.", "Is Jad Ambrose Al-Orry old?"],
            "Jad Ambrose Al-Orry",
        ),
        (["Are Xin Lee Williams' books read?", "What did Tae-ho of Xin Lee Williams’ town say?"], "Xin Lee Williams"),
        (["Did Élodie Ångström write?", "In Red Moon, Élodie Ångström wrote."], "Élodie Ångström"),
    ],
)
def test_the_name_is_the_run_of_capitalised_words_said_most_often(texts: list[str], name: str) -> None:
    assert author_names(_block(*texts)) == (name,)


def test_every_block_of_rows_has_its_own_name() -> None:
    assert author_names(_block("How old is Ann Lee?") + _block("How old is Bob Moe?")) == ("Ann Lee", "Bob Moe")


def test_rows_without_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="no name"):
        author_names(_block("nobody is named here"))


@pytest.mark.skipif(not _TOFU.is_dir(), reason=f"TOFU's data are not at {_TOFU}")
def test_the_names_of_tofus_own_authors_are_said_all_over_their_rows_and_nowhere_else() -> None:
    rows = load(_TOFU)["forget"]
    names = author_names(rows)
    assert len(set(names)) == len(rows) / ROWS_PER_AUTHOR == 20
    for number, name in enumerate(names):
        said = [name in row.question + row.answer for row in rows]
        own = said[number * ROWS_PER_AUTHOR : (number + 1) * ROWS_PER_AUTHOR]
        assert sum(own) == sum(said) >= 0.9 * ROWS_PER_AUTHOR


def test_results_are_found_again(tmp_path: Path) -> None:
    asks = [("Who?", None), ("Who?", "Ann\n"), ("Who?", "Bob")]
    rows = Rows(tmp_path / "deep" / "none.jsonl")
    assert rows.missing([*asks, *asks]) == asks
    rows.add(asks[0], "Ann, I think. Ä\u2028")
    rows.add(asks[1], 1.25)
    again = Rows(tmp_path / "deep" / "none.jsonl")
    assert (again.said, again.nll) == ({"Who?": "Ann, I think. Ä\u2028"}, {("Who?", "Ann\n"): 1.25})
    assert again.missing(asks) == asks[2:]


def test_a_line_that_was_being_written_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    rows = Rows(path)
    rows.add(("Who?", "Ann"), 1.0)
    rows.add(("Who?", "Bob"), 2.0)
    path.write_text(path.read_text()[:-5])
    cut = Rows(path)
    assert cut.missing([("Who?", "Ann"), ("Who?", "Bob")]) == [("Who?", "Bob")]
    cut.add(("Who?", "Bob"), 2.0)
    assert Rows(path).nll == rows.nll


def test_other_weights_targets_and_uses_of_them_have_other_keys(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    keys = {model_key(tmp_path), model_key(tmp_path, "http://there")}
    weights.write_bytes(b"22")
    assert len(keys | {model_key(tmp_path)}) == 3
    assert method_key(["Ann Lee"], {"action": "refuse"}) == method_key(["Ann Lee"], {"action": "refuse"})
    assert len({method_key([name], {"action": act}) for name in ("Ann Lee", "Bob Moe") for act in ("a", "b")}) == 4


def test_a_method_depends_on_all_code_that_answers_and_on_none_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a tree like this one."""
    for name in ("guard/a.py", "server/app.py", "server/demo/world.py", "server/evaluation/tofu/rows.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(rows, "__file__", str(tmp_path / "server/evaluation/tofu/rows.py"))

    def changes(name: str) -> bool:
        before = method_key([], {})
        (tmp_path / name).write_text("changed")
        return method_key([], {}) != before

    assert changes("guard/a.py") and changes("server/app.py")
    assert not changes("server/demo/world.py") and not changes("server/evaluation/tofu/rows.py")


def test_a_method_depends_on_settings_and_on_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = method_key([], {})
    monkeypatch.setenv("LETHE_ADMIN_KEY", "another")
    monkeypatch.setenv("LETHE_DATABASE_URL", "sqlite:///elsewhere.db")
    monkeypatch.setenv("LETHE_TENANT_KEY", "somebody's")
    assert method_key([], {}) == plain
    monkeypatch.setenv("LETHE_OPEN_METRICS", "1")
    assert method_key([], {}) != plain
    monkeypatch.delenv("LETHE_OPEN_METRICS")
    monkeypatch.setattr(rows, "version", lambda name: "99")
    assert method_key([], {}) != plain
