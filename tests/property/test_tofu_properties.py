"""ROUGE-L recall and the deviation score for any text and any figures."""

from hypothesis import given
from hypothesis import strategies as st

from server.evaluation.tofu.metrics import deviation_score
from server.evaluation.tofu.rouge import rouge_l_recall

_WORDS = st.lists(st.sampled_from("abcde"), max_size=9)
_SHARE = st.floats(0, 1)


def _longest(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, by its definition."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return 1 + _longest(first[:-1], second[:-1])
    return max(_longest(first[:-1], second), _longest(first, second[:-1]))


@given(_WORDS.filter(bool), st.lists(st.sampled_from("abcde"), max_size=6))
def test_rouge_l_recall_is_the_longest_common_subsequence(reference: list[str], said: list[str]) -> None:
    assert rouge_l_recall(" ".join(reference), " ".join(said)) == _longest(reference, said) / len(reference)


@given(st.text(), st.text(), st.text())
def test_saying_more_never_lowers_recall(reference: str, said: str, more: str) -> None:
    assert 0 <= rouge_l_recall(reference, said) <= rouge_l_recall(reference, f"{said} {more}") <= 1


@given(_SHARE, _SHARE, _SHARE)
def test_forgetting_less_or_keeping_less_is_never_better(forget: float, retain: float, other: float) -> None:
    assert deviation_score(max(forget, other), retain) >= deviation_score(forget, retain)
    assert deviation_score(forget, min(retain, other)) >= deviation_score(forget, retain)
