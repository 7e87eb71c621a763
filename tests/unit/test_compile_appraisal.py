"""What decides which intervention ``auto`` stands for."""

from __future__ import annotations

import pytest

from guard.compile.appraisal import Appraised, chosen


def test_forgetting_and_fluency_decide_and_not_chance_words_that_others_keep() -> None:
    best = Appraised(forget=1.0, kept=0.0, fluency=0.95, seconds=1.0)
    lucky = Appraised(forget=0.85, kept=0.1, fluency=0.95, seconds=1.0)
    assert best.score > lucky.score
    assert Appraised(1.0, 0.01, 0.95, 1.0).score == best.score


def test_of_two_that_forget_alike_the_one_that_leaves_others_alone_is_better() -> None:
    assert Appraised(1.0, 1.0, 0.95, 1.0).score > Appraised(1.0, 0.0, 0.95, 1.0).score


def test_what_forgets_too_little_is_not_chosen_however_well_it_does() -> None:
    weak, strong = Appraised(0.79, 1.0, 1.0, 1.0), Appraised(0.8, 0.0, 0.5, 1.0)
    assert weak.score > strong.score
    assert chosen({"lunar": weak, "concept": strong}) == "concept"
    assert chosen({"lunar": weak}) == chosen({}) == ""


@pytest.mark.parametrize("names", [("eco", "lunar"), ("lunar", "eco")])
def test_of_equals_it_is_eco(names: tuple[str, str]) -> None:
    assert chosen(dict.fromkeys(names, Appraised(1.0, 1.0, 0.9, 1.0))) == "eco"
    better = Appraised(1.0, 1.0, 1.0, 1.0)
    assert chosen({**dict.fromkeys(names, Appraised(1.0, 1.0, 0.9, 1.0)), "lunar": better}) == "lunar"
