"""ReLearn's figures on answers whose values can be worked out by hand."""

import math

import pytest

from server.evaluation import metrics


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        ("Who wrote It?", "It was written by Stephen King.", {"Stephen", "King"}),
        ("When was Ann Lee born?", "Ann Lee was born on 13/04/1970 in Baku.", {"13/04/1970", "Baku"}),
        ("Where?", "Baku. She was born in Baku.", {"Baku"}),
        ("Where?", "Somewhere. Nobody knows.", set()),
        ("What is it?", "a lowercase answer", set()),
    ],
)
def test_entities_are_names_and_numbers_that_the_question_does_not_give(question, answer, found):
    assert metrics.entities(question, answer) == found


def test_an_entity_is_covered_whatever_its_case():
    assert metrics.coverage(["Baku", "1970"], "born in BAKU") == 0.5
    with pytest.raises(ValueError, match="no entity"):
        metrics.coverage([], "born in Baku")


def test_half_of_few_entities_is_forgotten_but_not_half_of_many():
    few, many = ["a1", "b1"], ["a1", "b1", "c1", "d1"]
    assert metrics.forgetting_rate([(few, "a1"), (few, "a1 b1")]) == 0.5
    assert metrics.forgetting_rate([(many, "a1 b1"), (many, "a1")]) == 0.5
    assert metrics.retention_rate([(many, "a1 b1"), (many, "a1")]) == 0.5


def test_answers_without_entities_do_not_count():
    assert metrics.forgetting_rate([([], "yes"), (["Baku"], "no")]) == 1.0
    assert metrics.retention_rate([([], "yes")]) is None


def test_richness_of_words():
    assert metrics.brunet("one two three four") == pytest.approx(4 ** (4**-0.165))
    assert metrics.brunet("one one one one") == pytest.approx(4.0)
    assert metrics.brunet("...") == 1000
    assert metrics.honore("one two two") == pytest.approx(100 * math.log(3) / (1 - 0.5 + 0.1))
    assert metrics.honore("one") == metrics.honore("") == 0


def test_the_linguistic_score_falls_with_perplexity_and_with_repetition():
    text = "the author was born in a small town by the sea"
    score = metrics.linguistic_score([text], [1.0])
    assert 0 < metrics.linguistic_score([text], [3.0]) < score < 1
    assert metrics.linguistic_score(["born in born in born in born in born in a"], [1.0]) < score
    assert metrics.linguistic_score([text, ""], [1.0, 1.0]) < score
    with pytest.raises(ValueError, match="no answers"):
        metrics.linguistic_score([], [])
