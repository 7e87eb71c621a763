"""Clauses end where a sentence, a line or a JSON value does, and nowhere else."""

from __future__ import annotations

import pytest

from classifiers.clauses import MAX_CLAUSE, ClauseSplitter, split_clauses


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("He left. She stayed; it rained!", ["He left.", " She stayed;", " it rained!"]),
        ("Born in 1950.\n\n- Taught by Dr. J. Smith\n", ["Born in 1950.", "- Taught by Dr. J. Smith\n"]),
        ("It cost 3.5 million? “Yes.” Fine", ["It cost 3.5 million?", " “Yes.”", " Fine"]),
        ('{"name": "Ann Lee", "born": "1950"}', ['{"name": "Ann Lee",', ' "born": "1950"}']),
        (r'{"text": "He left.\nShe stayed."}', [r'{"text": "He left.\n', 'She stayed."}']),
        ("彼は去った。彼女は残った。", ["彼は去った。", "彼女は残った。"]),
        ("...\n\n?!", []),
    ],
)
def test_where_clauses_end(text, clauses):
    assert [clause.text for clause in split_clauses(text)] == clauses


def test_positions_are_those_of_the_text():
    text = "One.\n\nTwo; three. "
    assert all(text[clause.start : clause.end] == clause.text for clause in split_clauses(text))


def test_a_text_without_borders_is_cut_between_words():
    text = "word " * 200
    clauses = split_clauses(text)
    assert all(len(clause.text) <= MAX_CLAUSE and clause.text.split()[-1] == "word" for clause in clauses)
    assert "".join(clause.text for clause in clauses).rstrip() == text.rstrip()


def test_a_wide_stop_waits_for_its_closing_mark():
    splitter = ClauseSplitter()
    assert splitter.feed("他走了。") == []
    assert [clause.text for clause in splitter.feed("」她留下")] == ["他走了。」"]
