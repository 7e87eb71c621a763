"""However a stream is cut into pieces, its clauses are the same, and nothing of it is lost."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from classifiers.clauses import MAX_CLAUSE, ClauseSplitter, split_clauses

_PIECES = st.sampled_from(
    ["word", " ", ".", '"', "\n", ";", ",", "}", "\\", "n", "?!", "Dr", "A", "。", "”", "long" * 30, "5", "…", ")"]
)
_TEXTS = st.lists(_PIECES, max_size=60).map("".join)


@given(_TEXTS, st.lists(st.integers(0, 400), max_size=12))
def test_pieces_do_not_matter(text, cuts):
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    splitter = ClauseSplitter()
    found = []
    for start, end in pairwise(places):
        found += splitter.feed(text[start:end])
        assert not found or splitter.start >= found[-1].end
    assert found + splitter.finish() == split_clauses(text)


@given(_TEXTS)
def test_clauses_cover_every_word(text):
    clauses = split_clauses(text)
    assert all(text[clause.start : clause.end] == clause.text for clause in clauses)
    assert all(len(clause.text) <= MAX_CLAUSE for clause in clauses)
    covered = {place for clause in clauses for place in range(clause.start, clause.end)}
    assert all(place in covered for place, char in enumerate(text) if char.isalnum())
