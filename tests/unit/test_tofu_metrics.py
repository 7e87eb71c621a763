"""TOFU's figures on numbers that can be worked out by hand."""

import math

import numpy as np
import pytest

from guard.compile.fluency import distinct_share, fluency, plausibility_bar, shuffled
from server.evaluation.tofu import metrics
from server.evaluation.tofu.rouge import rouge_l_recall

_REFUSAL = "I have no information about that."


def _nll(*probabilities: float) -> np.ndarray:
    return -np.log(np.array(probabilities))


def test_probability_is_the_mean_of_the_answers_probabilities() -> None:
    assert metrics.probability(_nll(0.5, 0.1)) == pytest.approx(0.3)


def test_choice_probability_is_the_right_answers_share() -> None:
    wrong = np.stack([_nll(0.3, 0.2), _nll(0.1, 0.1)])
    assert metrics.choice_probability(_nll(0.5, 0.8), wrong) == pytest.approx((0.5 + 0.8) / 2)
    assert metrics.choice_probability(_nll(0.2), np.stack([_nll(0.2, 0.2, 0.2)])) == pytest.approx(0.25)


def test_the_truth_ratio_takes_the_geometric_mean_of_the_wrong_answers() -> None:
    ratios = metrics.truth_ratios(_nll(0.4, 0.1), np.stack([_nll(0.1, 0.4), _nll(0.1, 0.1)]))
    assert ratios == pytest.approx([2.0, 1.0])


def test_truth_ratios_of_both_kinds() -> None:
    ratios = np.array([4.0, 0.25, 1.0])
    assert metrics.indifference(ratios) == pytest.approx((0.25 + 0.25 + 1) / 3)
    assert metrics.truthfulness(ratios) == pytest.approx((0.75 + 0 + 0) / 3)


def test_the_reference_against_itself_has_full_forget_quality() -> None:
    ratios = np.random.default_rng(0).lognormal(0.4, 0.5, 400)
    assert metrics.forget_quality(ratios, ratios) == 1.0


def test_a_model_that_knows_has_no_forget_quality_and_one_that_does_not_has_some() -> None:
    rng = np.random.default_rng(0)
    never_knew, knows, like_it = (rng.lognormal(mean, 0.5, 400) for mean in (0.4, 0.9, 0.4))
    assert metrics.forget_quality(knows, never_knew) < 1e-9
    assert metrics.forget_quality(like_it, never_knew) > 0.05
    assert metrics.forget_quality(np.ones(400), never_knew) < 1e-9  # a refusal, which knows nothing at all


def test_model_utility_is_the_harmonic_mean() -> None:
    assert metrics.model_utility([0.5] * 9) == pytest.approx(0.5)
    assert metrics.model_utility([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert metrics.model_utility([0.9] * 8 + [0.0]) == 0.0


@pytest.mark.parametrize(
    ("forget", "retain", "score"), [(0, 1, 0), (1, 1, 100), (0, 0, 100), (1, 0, 100 * math.sqrt(2)), (0.3, 0.6, 50)]
)
def test_the_deviation_score_is_the_distance_from_the_ideal(forget: float, retain: float, score: float) -> None:
    assert metrics.deviation_score(forget, retain) == pytest.approx(score)


@pytest.mark.parametrize(
    ("reference", "answer", "recall"),
    [
        ("The cat sat", "the CAT sat.", 1.0),
        ("The cat sat", "The dog said that the cat had sat", 1.0),
        ("the cat sat", "sat cat the", 1 / 3),
        ("a b c d e f", "a c x e", 0.5),
        ("a b a b", "b a", 0.5),
        ("Paris", "", 0.0),
        ("?!", "Paris", 0.0),
        ("writes", "write", 0.0),
    ],
)
def test_rouge_l_recall_is_the_share_of_words_in_order(reference: str, answer: str, recall: float) -> None:
    assert rouge_l_recall(reference, answer) == pytest.approx(recall)


def test_going_round_in_circles_is_seen() -> None:
    assert distinct_share("the author was born in a small town by the sea") == 1.0
    assert distinct_share("he was born and " * 10) < 0.2
    assert distinct_share("too short") == 1.0


def test_fluency_counts_sentences_that_are_plausible_and_do_not_repeat() -> None:
    answers = ["A plain answer.", "Purple of seven the ran", "and so on " * 20, "  ", _REFUSAL]
    nll = np.array([1.0, 9.0, 1.0, 1.0, 9.0])
    assert fluency(answers, nll, bar=5.0, refusal=_REFUSAL) == pytest.approx(2 / 5)


def test_own_answers_are_plausible_and_shuffled_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    own, mixed = rng.normal(2.0, 0.5, 400), rng.normal(9.0, 0.8, 400)
    bar = plausibility_bar(own, mixed)
    assert own.max() < bar < mixed.min()
    assert plausibility_bar(own, mixed + 1) > bar


def test_shuffling_keeps_the_words_and_always_gives_the_same_order() -> None:
    text = "the author was born in a small town by the sea"
    assert shuffled(text) == shuffled(text) != text
    assert sorted(shuffled(text).split()) == sorted(text.split())
