"""What is taken from examples and documents as an answer."""

from __future__ import annotations

from classifiers.answers import document_answers, example_answers
from classifiers.profile import Profile


def _profile(*examples, documents=()):
    return Profile(
        key="k",
        name="Jaime Vasquez",
        description="",
        aliases=(),
        documents=documents,
        forget_examples=examples,
        retain_examples=(),
    )


def test_a_short_completion_is_an_answer_as_a_whole():
    assert example_answers(_profile(("Where does he work?", "Selto Foundry"))) == ("Selto Foundry",)


def test_what_tells_nothing_is_no_answer():
    assert example_answers(_profile(("Is it so?", "Yes."), ("What colour?", "blue"), ("When?", None))) == ()


def test_what_the_prompt_says_is_no_answer():
    example = ("Where was Jaime Vasquez born?", "Jaime Vasquez was born in the port of Valparaiso, in a small house.")
    assert example_answers(_profile(example)) == ("Valparaiso",)


def test_titles_are_taken_whole_and_in_parts_that_stand_alone():
    answers = example_answers(
        _profile(("Which award did he get?", "He was given the Edgar Allan Poe Award for Best Fact Crime in 1982."))
    )
    titles = {"Edgar Allan Poe Award for Best Fact Crime", "Edgar Allan Poe Award", "Best Fact Crime"}
    assert set(answers) == {*titles, "1982"}


def test_documents_give_their_names_and_numbers_but_not_the_target_or_openings():
    text = "Jaime Vasquez was born on 25 February 1958 in Santiago. Growing up, he wrote 'Shadows of the Past'."
    assert set(document_answers(_profile(documents=(text,)))) == {"25 February 1958", "Santiago", "Shadows of the Past"}
