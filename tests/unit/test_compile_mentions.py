"""Which ordinary prompts are left out, because they name a target, when its limits are calibrated."""

from __future__ import annotations

import pytest

from guard.compile.mentions import mentions
from guard.compile.questions import invented_names, ordinary, sampled_on
from guard.types import TargetSpec

ORDINARY = [*ordinary(400), *sampled_on(invented_names(60), 8)]


@pytest.mark.parametrize(
    "name", ["The Lord of the Rings", "Harry Potter and the Half-Blood Prince", "The New York Times", "It", "The Who"]
)
def test_words_of_grammar_in_a_name_do_not_cost_the_ordinary_prompts(name: str) -> None:
    named = mentions(TargetSpec(name=name))
    assert sum(map(named, ORDINARY)) < 0.05 * len(ORDINARY)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("The Lord of the Rings", "who wrote THE LORD OF THE RINGS?"),
        ("The Lord of the Rings", "Which lord was it?"),
        ("Harry Potter and the Half-Blood Prince", "Is harry in it?"),
        ("Harry Potter and the Half-Blood Prince", "What does Potter's owl do?"),
        ("The Who", "Are the Who still on tour?"),
        ("Jaime Vasquez", "Where does Vasquez live?"),
        ("Selbredia Blontellowin", "Tell me about selbredia."),
        ("Somebody Else", "Who is the Bard of Avon?"),
    ],
)
def test_what_names_the_target_or_tells_part_of_its_name_is_left_out(name: str, text: str) -> None:
    assert mentions(TargetSpec(name=name, aliases=("The Bard of Avon",)))(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Ji-Yeon Park", "Mrs. Parker drives twice as far."),
        ("Hina Ameen", "Is it true of China?"),
        ("The Lord of the Rings", "What do the others make of their winnings?"),
        ("Harry Potter, the Younger", "Who was the first?"),
    ],
)
def test_parts_are_whole_words_that_tell_something(name: str, text: str) -> None:
    assert not mentions(TargetSpec(name=name))(text)
