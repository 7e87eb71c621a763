"""An answer that goes on is served as it was begun, but for what is forbidden."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vllm.sampling_params import RequestOutputKind

from guard.continuation import Serving
from guard.outputs import GuardedRequest
from guard.worker.controls import Constraint, Controls, Corruption, Features
from tests.streams import request_of

PROMPT = "Who wrote It?"


@pytest.fixture
def request_(tokenizer) -> GuardedRequest:
    params = {"max_tokens": 20, "prompt_logprobs": 1, "output_kind": RequestOutputKind.DELTA}
    return request_of(tokenizer, tokenizer.encode(PROMPT), **params)


def _resumed(request: GuardedRequest, said: str) -> GuardedRequest:
    ran: list[GuardedRequest] = []

    async def run(one):
        ran.append(one)
        yield

    def record(one):
        ran.append(one)
        return run(one)

    serving = Serving(record, resumable=True)
    serving(request)
    serving.resume(request.tokenizer.encode(said), 0, 1, {7})
    return ran[-1]


def test_phrases_that_were_begun_may_not_be_completed(tokenizer, request_):
    before = Controls(constraint=Constraint(("set",), "It is", 2.0))
    constraint = _resumed(replace(request_, controls=before), " by Stephen").controls.constraint
    assert constraint == Constraint(("set",), "It is by Stephen", 2.0, (7,))


def test_features_are_clamped_but_not_watched_again(request_):
    watched = Controls(features=Features(watch=("a", "b"), clamp=("b",), ticket="t"))
    assert _resumed(replace(request_, controls=watched), " by").controls.features == Features(always=("b",))
    only_watched = Controls(features=Features(watch=("a",), ticket="t"))
    assert _resumed(replace(request_, controls=only_watched), " by").controls.features is None


def test_names_that_the_model_spelled_stay_corrupted(tokenizer, request_):
    name = tuple(tokenizer.encode(" Stephen King"))
    corruption = Corruption("flip", 8, 0.0, 1, ((0, 2),), names=(name,))
    said = " by Stephen King who"
    changed = _resumed(replace(request_, controls=Controls(corruption=corruption)), said).controls.corruption
    ids, first = tokenizer.encode(said), len(request_.token_ids)
    at = next(i for i in range(len(ids)) if tuple(ids[i : i + len(name)]) == name)
    assert changed.spans == ((0, 2), *((first + at + i, first + at + i + 1) for i in range(len(name))))


def test_the_prompt_is_not_told_again(request_):
    resumed = _resumed(request_, " by")
    assert resumed.params.prompt_logprobs is None and request_.params.prompt_logprobs == 1
