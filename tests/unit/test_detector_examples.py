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
