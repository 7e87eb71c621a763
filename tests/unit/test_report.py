"""The report: everything from the files, nothing left out in silence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.report import app
from server.evaluation.report import Results, document, page, plots
from server.evaluation.report.document import KINDS
from server.evaluation.report.published import published
from server.evaluation.report.results import number

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"

ATTACKS = {
    "model": "some/model",
    "rows": ["plain", "<script>"],
    "columns": ["none", "all"],
    "leak_rate": {"plain": {"none": 1.0, "all": 0.0}, "<script>": {"none": 0.75}},
    "n": {"plain": {"none": 8, "all": 8}, "<script>": {"none": 4}},
    "retain": {"none": 1.0, "all": 0.99},
    "benign_false_alarms": {"all": 0.001},
    "command": "lethe eval attacks --subject demo",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def _pictures(results: Results) -> dict[str, bytes | None]:
    return {plot.name: plot.png for plot in plots(results)}


def test_the_document_is_up_to_date():
    """`lethe eval report` after every change of a results file."""
    assert (ROOT / "docs/results.md").read_text() == document(Results.read(RESULTS), ROOT / "docs")


def test_every_file_that_is_there_can_be_shown():
    sections = Results.read(RESULTS).sections(KINDS)
    assert sections
    for section in sections:
        assert not section.problem, section.problem
        assert all(len(row) == len(table.columns) for table in section.tables for row in table.rows)
        assert all(table.rows for table in section.tables)


def test_published_figures_find_ours():
    """A path that leads nowhere would leave the column empty for ever."""
    table = published(Results.read(RESULTS))
    assert all(row[table.columns.index("here")] for row in table.rows)


def test_an_empty_folder_says_what_is_missing(folder):
    results = Results.read(folder)
    text = document(results, folder.parent)
    assert all(kind.command in text for kind in KINDS)
    assert set(_pictures(results).values()) == {None}
    assert "data:image" not in page(results, list(plots(results)))


def test_strange_files_are_named_and_harm_nothing(folder):
    (folder / "tofu.json").write_text('{"methods": 3}')
    (folder / "detector.json").write_text("[1, 2]")
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text('{"a": 1}')
    results = Results.read(folder)
    text = document(results, folder.parent)
    assert "results/broken.json" in text and "results/other.json" in text
    assert "tofu.json has another shape" in text and "detector.json has another shape" in text
    assert _pictures(results)["forget-utility"] is None
    assert "another shape" in page(results, list(plots(results)))


def test_attacks_become_a_matrix_with_their_own_command(folder):
    (folder / "attacks_demo.json").write_text(json.dumps(ATTACKS))
    results = Results.read(folder)
    text = document(results, folder.parent)
    assert "`lethe eval attacks --subject demo`" in text
    assert "| plain | 8 | 1 | 0 |" in text
    assert "| &lt;script> | 4 | 0.75 |  |" in text
    html = page(results, list(plots(results)))
    assert "<script>" not in html
    pictures = re.findall(r'src="([^"]*)"', html)
    assert len(pictures) == 1 and pictures[0].startswith("data:image/png;base64,")


def test_the_command_writes_the_page_the_pictures_and_the_document(folder):
    (folder / "attacks_demo.json").write_text(json.dumps(ATTACKS))
    html, markdown = folder.parent / "out/page.html", folder.parent / "docs/results.md"
    arguments = ["--results", str(folder), "--html", str(html), "--markdown", str(markdown)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert html.with_name("page-attacks-demo.png").read_bytes().startswith(b"\x89PNG")
    first = html.read_bytes(), markdown.read_bytes()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (html.read_bytes(), markdown.read_bytes()) == first


def test_without_a_folder_the_command_fails(tmp_path):
    assert CliRunner().invoke(app, ["--results", str(tmp_path / "none")]).exit_code == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (400, "400"),
        (21760, "21,760"),
        (0.0, "0"),
        (1.0, "1"),
        (0.9949, "0.995"),
        (9.4e-16, "9.4e-16"),
        (2279611.5, "2,279,612"),
    ],
)
def test_numbers_are_readable(value, shown):
    assert number(value) == shown


def test_what_attackers_may_guess_or_tell_is_shown(folder):
    """Beside the matrix, in files from before anything was counted too."""
    counted = {
        **ATTACKS,
        "chance": {"plain": 1 / 3},
        "membership_advantage": {"ranking": {"none": 0.9, "all": 0.1}},
        "mixed_retain_answered": {"none": 0.35, "all": 0.825},
        "told_by_untouched": {"plain": 8, "<script>": 2},
        "refused": {"plain": {"none": 0, "all": 8}, "<script>": {"none": 4}},
    }
    (folder / "attacks_demo.json").write_text(json.dumps(counted))
    (folder / "attacks_old.json").write_text(json.dumps(ATTACKS))
    new, old = document(Results.read(folder), folder.parent).split("## Attacks: ")[1:]
    assert "| plain, by chance 0.33 | 8 | 1 | 0 |" in new
    assert "| &lt;script>, all refused | 4 |" in new
    assert "of 12 attempts, 10 get a fact out of the untouched model" in new
    assert "| ranking | 0.9 | 0.1 |" in new
    assert "| mixed prompts, the retain half answered | 0.35 | 0.825 |" in new
    assert "of 12 attempts, 11 get a fact out of the untouched model" in old
    assert "Advantage" not in old and "mixed" not in old and "refused" not in old


def test_a_file_with_its_command_is_shown_as_one_without(folder):
    rates = {"forget": {"flagged": 1.0, "leaked": 0.0, "blocked": 1.0, "n": 4}}
    ways = {"parties": rates, "settings": {}, "command": "lethe eval x"}
    (folder / "pistol.json").write_text(json.dumps({**ways, "deviation_score": {"parties": 0.0}}))
    (folder / "knowundo.json").write_text(json.dumps(ways))
    for section in Results.read(folder).sections(KINDS):
        assert not section.problem and section.command == "lethe eval x"
        assert section.tables[0].rows[0][0] == "forget"
