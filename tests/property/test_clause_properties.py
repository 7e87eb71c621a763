"""However a stream is cut into pieces, its clauses are the same, and nothing of it is lost."""

from __future__ import annotations

from itertools import cycle, pairwise

from hypothesis import given
from hypothesis import strategies as st

from classifiers.clauses import MAX_CLAUSE, ClauseSplitter, split_clauses
from classifiers.compiled import Compiled
from classifiers.statement_index import StatementIndex
from classifiers.statements import Context
from guard.prompt import PromptView
from guard.statements import ClauseJudge, StatementRule
from guard.types import GuardToggle

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


_FACTS = ("this person wrote The Tidemaker's Ledger in 1987", "this person was born in Ballinacarrow")
_SAID = st.lists(
    st.sampled_from(
        [
            "The",
            "Tidemaker",
            "Ledger",
            "1987",
            "born",
            "in",
            "Ballinacarrow",
            "Orla",
            "Vesperton",
            "kettle",
            "Tide",
            "1950",
            "19876",
            "she",
        ]
    ),
    max_size=12,
).map(" ".join)
_KEYS = frozenset({"vesper@1"})


def _index() -> StatementIndex:
    index = StatementIndex(None)  # words alone decide
    index.add(
        Compiled(
            "vesper@1",
            ("Orla Vesperton",),
            own=frozenset({"oria", "vesperton"}),
            parts={"vesperton": (1.0, 1.0)},
            evidence=_FACTS,
            answers=(0, 0),
        )
    )
    return index


@given(_SAID, st.integers(0, 100))
def test_what_leaves_of_a_begun_clause_can_state_nothing(clause, cut):
    index = _index()
    left = index.untold(clause[:cut], _KEYS)
    assert left <= index.untold(clause, _KEYS), "what left once has left"
    assert index.candidates(clause[:left], Context(), _KEYS) == []
    word = clause.rfind(" ", 0, left) + 1
    whole = clause[: left if word == left else word + len(clause[word:].split(" ")[0])]
    assert {"1987", "Tidemaker", "Ballinacarrow", "Vesperton"}.isdisjoint(whole.split()), "nor the beginning of one"


@given(st.lists(_SAID, max_size=3), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_what_leaves_of_a_clause_that_grows_is_what_leaves_of_it_as_it_stands(clauses, sizes):
    rule = StatementRule(_index(), _KEYS, frozenset(), GuardToggle(), "")
    judge = ClauseJudge(rule, PromptView((), (), ""))
    for clause in clauses:  # one after the other, as in an answer
        end = 0
        for size in cycle(sizes):
            end += size
            assert judge.untold(clause[:end]) == rule.index.untold(clause[:end], _KEYS)
            if end >= len(clause):
                break
