"""The benchmark's traffic is what a chat client sends: conversations that grow, in which every question is new."""

from __future__ import annotations

from itertools import islice

from benchmarks.traffic import conversations


def test_conversations_grow_side_by_side() -> None:
    requests = list(islice(conversations(3, 2, seed=7), 12))
    assert [len(request) for request in requests] == [1, 1, 3, 3, 5, 5] * 2
    for earlier, later in zip(requests[:4], requests[2:6], strict=True):
        assert later[: len(earlier)] == earlier
    asked = [request[-1]["content"] for request in requests]
    assert len(set(asked)) == len(asked) and all(question.startswith("Request 7-") for question in asked)


def test_a_question_does_not_hold_its_answer() -> None:
    for request in islice(conversations(2), 40):
        for question, answer in zip(request[0:-1:2], request[1::2], strict=True):
            assert answer["content"] not in question["content"] and "\n" not in question["content"]
