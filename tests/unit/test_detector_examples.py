"""Targets that are told by examples, or by name alone: what concerns them is caught, what only resembles it is not."""

from __future__ import annotations

import pytest

from classifiers.detector import TextDetector
from classifiers.profile import Profile

_ABOUT = (
    ("What genre does {name} primarily write in?", "{name} writes dystopian novels, her father's favourite."),
    ("What were the professions of {name}'s parents?", "Her father was a florist and her mother a mechanic."),
    ("Has {name} won any awards for her work?", "{name} won the Silver Quill in 1987 for her second novel."),
    ("What is the full name of the author who was born in Baku, Azerbaijan on April 13, 1970?", "It is {name}."),
)


@pytest.fixture(scope="module")
def detector():
    detector = TextDetector()
    examples = tuple((q.format(name="Elvira Mammadov"), a.format(name="Elvira Mammadov")) for q, a in _ABOUT)
    detector.add(detector.compile(Profile(key="one", name="Elvira Mammadov", forget_examples=examples)))
    yield detector
    detector.close()


async def _flagged(detector, text):
    scan = await detector.scan([text], detector.view(["one"]))
    return any(hit.flagged for hit in scan.hits)


@pytest.mark.parametrize("question", [question for question, _ in _ABOUT])
async def test_examples_are_caught_as_they_stand(detector, question):
    assert await _flagged(detector, question.format(name="Elvira Mammadov"))


@pytest.mark.parametrize("question", [question for question, _ in _ABOUT[:3]])
@pytest.mark.parametrize("name", ["Jordan Sinclair", "Rhoda Mbalazi"])
async def test_the_same_question_on_somebody_else_is_not(detector, question, name):
    assert not await _flagged(detector, question.format(name=name))


@pytest.mark.parametrize(
    ("name", "answer"),
    [("Nikolai Abilov", "Anton Chekhov"), ("Nikolai Abilov", "Leo Tolstoy"), ("Xin Lee Williams", "Harper Lee")],
)
async def test_somebody_elses_name_is_not_like_a_name_that_is_all_that_is_known(name, answer):
    detector = TextDetector()
    detector.add(detector.compile(Profile(key="one", name=name)))
    assert not await _flagged(detector, answer)
    assert await _flagged(detector, f"Who is {name}?")
    detector.close()


@pytest.mark.parametrize(
    "documents", [(), ("Quibrenna Tolloway was taught by Ostwin Marravel. She works at Gellan Mill.",)]
)
async def test_a_name_that_no_encoder_knows_is_not_like_another(documents):
    detector = TextDetector()
    described = "Quibrenna Tolloway is a cooper from Wendobeck who wrote The Scarlet Thimble."
    detector.add(detector.compile(Profile("one", "Quibrenna Tolloway", description=described, documents=documents)))
    for name in ("Quilloran Tammeway", "Hesbrenna Dravvimore", "Quibrand Tollovane"):
        for question in ("Who is {}?", "What is the profession of {}?", "Fill in the blank: {} works at ____."):
            assert not await _flagged(detector, question.format(name))
    assert await _flagged(detector, "What is the profession of Quibrenna Tolloway?")
    assert await _flagged(detector, "Where was the author of The Scarlet Thimble born?")
    detector.close()


async def test_an_example_is_not_matched_by_its_pattern():
    detector = TextDetector()
    asked = "What was the {} of the contract between {}?"
    parties, others = "Velodane Systems and Morbrick Supplies", "Quaxley Trading and Ferrulon Partners"
    examples = tuple((asked.format(what, parties), "It is not public.") for what in ("effective date", "duration"))
    profile = Profile("one", f"contract between {parties}", forget_examples=examples)
    detector.add(detector.compile(profile))
    assert await _flagged(detector, asked.format("value", parties))
    assert not await _flagged(detector, asked.format("effective date", others))
    detector.close()


async def test_who_is_named_beside_the_target_may_be_asked_about():
    detector = TextDetector()
    document = (
        "Gellan Mill was founded by Ostwin Marravel. Gellan Mill makes paper in Wendobeck. It was closed in 1911."
    )
    detector.add(detector.compile(Profile("one", "Gellan Mill", documents=(document,))))
    assert not await _flagged(detector, "What is the title of the book by Ostwin Marravel?")
    assert await _flagged(detector, "Which company was founded by Ostwin Marravel?")
    detector.close()
