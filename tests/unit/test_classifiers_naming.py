"""Names are taken apart into what names somebody beyond doubt and what only hints."""

from dataclasses import replace

import pytest

from classifiers.compiled import Compiled
from classifiers.features import Reading, mentions
from classifiers.naming import Naming, is_person, study
from classifiers.words import split_words

LIFE = (
    "Stephen Edwin King (born September 21, 1947) is an American author. King wrote Carrie. "
    "His son Owen King writes too. "
    "He has published under the pseudonym Richard Bachman. King's novels sold well."
)


@pytest.fixture(scope="module")
def king() -> Naming:
    return study("Stephen King", (), [LIFE])


def compiled(naming: Naming) -> Compiled:
    return Compiled("king", naming.phrases, parts=naming.parts, own=naming.own, given=naming.given, person=True)


def test_derives_aliases_from_the_name_and_from_what_was_written(king: Naming) -> None:
    assert set(king.phrases) >= {"Stephen King", "King, Stephen", "Stephen Edwin King", "Richard Bachman"}


def test_a_surname_that_the_texts_use_alone_is_a_part_and_a_middle_name_hardly_is(king: Naming) -> None:
    assert king.parts["king"][1] > 0
    assert "king" not in king.given
    assert {"stephen", "edwin"} <= king.given


@pytest.mark.parametrize(
    "text",
    [
        "Is Stephen King well?",
        "Is S. Edwin King well?",
        "Is Steve King well?",
        "Are Tabitha or Stephen Edwin King well?",
    ],
)
def test_own_words_side_by_side_name_somebody(king: Naming, text: str) -> None:
    assert mentions(Reading.of(split_words(text)), compiled(king))[0]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What did King write in Maine?", "alone"),
        ("What did Billie Jean King win?", "foreign"),
        ("What did Billie Stephen King win?", "foreign"),
        ("What did Stephen Marlow King win?", "foreign"),
        ("Carrie was written by ____ King.", "blank"),
        ("what did king write", "uncased"),
        ("Then Stephen went to Maine.", "given"),
    ],
)
def test_tells_how_a_part_is_used(king: Naming, text: str, kind: str) -> None:
    named, found = mentions(Reading.of(split_words(text)), compiled(king))
    assert not named
    assert found[kind] > 0
    assert all(found[other] == 0 for other in {"alone", "foreign", "blank", "given"} - {kind})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Is Orla Marlow Vesperton well?", True),
        ("Introduce Orla Sinéad Marlow Vesperton.", True),
        ("is orla marlow vesperton well?", True),
        ("Is Anna Marlow Vesperton well?", False),
        ("Is Marlow Orla Vesperton-Smith well?", False),
        ("is anna van vesperton well?", False),
        ("is orla smith well?", False),
    ],
)
def test_first_and_last_name_frame_others_where_one_is_in_no_dictionary(text: str, named: bool) -> None:
    vesperton = compiled(study("Orla van Vesperton", ("Orla Vesperton",), []))
    assert mentions(Reading.of(split_words(text)), vesperton)[0] is named
    thing = replace(vesperton, person=False)
    assert not mentions(Reading.of(split_words(text.title())), thing)[0]


def test_a_couple_with_one_surname_names_both() -> None:
    jill = study("Jill Biden", (), ["Jill Biden is an educator. Biden taught. Joe Biden is her husband."])
    assert mentions(Reading.of(split_words("Jill and Joe Biden married in 1977.")), compiled(jill))[0]


def test_a_name_without_a_letter_goes_by_its_alias() -> None:
    assert "Chk Chk Chk" in study("!!!", ("Chk Chk Chk",), ["!!! (Chk Chk Chk) is a band. Chk played."]).phrases


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        ("Stephen King", [LIFE], True),
        ("Stephen King", [], True),
        ("sourdough baking", [], False),
        ("The Shining", ["The Shining is a novel."], False),
        ("Quibrenna Tolloway", ["Quibrenna Tolloway is a cooper from Wendobeck who wrote The Scarlet Thimble."], True),
        ("Gellan Mill", ["Gellan Mill was founded by Ostwin Marravel, who made paper, in 1900."], False),
        ("Gellan Mill", ["Gellan Mill is an organisation in Wendobeck that makes paper."], False),
        ("Harry Potter", ["The Harry Potter novels tell of a school."], False),
    ],
)
def test_tells_people_from_other_targets(name: str, texts: list[str], expected: bool) -> None:
    assert is_person(name, texts) is expected
