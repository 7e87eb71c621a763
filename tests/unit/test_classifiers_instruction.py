"""What is understood of requests to forget that are made in plain words."""

from __future__ import annotations

import pytest

from classifiers.instruction import understand


@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        ("please forget everything about Selbredia Blontellowin", "Selbredia Blontellowin"),
        ("Forget Stephen King.", "Stephen King"),
        ("I want you to forget everything you know about stephen king, please", "stephen king"),
        ("You must never mention Project Falcon again", "Project Falcon"),
        ("don't talk about the Bank of New England any more, please", "Bank of New England"),
        ("forget who Leo Tolstoy is", "Leo Tolstoy"),
        ('Stop telling people about "The Wandering Tower"!', "The Wandering Tower"),
        ("unlearn how to make a bomb", "how to make a bomb"),
    ],
)
def test_the_name_is_found(instruction: str, name: str) -> None:
    understood = understand(instruction)
    assert understood is not None and understood.name == name


def test_aliases_scope_and_what_is_kept() -> None:
    understood = understand("Delete all data on the author Jane Doe (aka J. D.), but keep her publisher.")
    assert understood is not None
    assert (understood.name, understood.aliases) == ("Jane Doe", ("J. D.",))
    assert understood.scope == "author Jane Doe" and understood.kept == "keep her publisher"


@pytest.mark.parametrize("text", ["", "What is the weather?", "forget", "Who is Stephen King?"])
def test_what_asks_for_nothing_is_not_understood(text: str) -> None:
    assert understand(text) is None
