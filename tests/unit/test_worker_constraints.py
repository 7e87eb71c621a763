"""What constrained requests may not say next, without an engine."""

from __future__ import annotations

import math

import pytest
import torch
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.sample.sampler import Sampler

from guard.decoding import Vocabulary
from guard.worker.constraints import Constraints
from guard.worker.controls import Constraint, Controls, Corruption
from guard.worker.sampler import EndingSampler

_TEXTS = ["", "art", "icle", " kinglo", " Steph", "en", " a", ".", " b"]
_END = 0
_TOKEN = {text: number for number, text in enumerate(_TEXTS)}


@pytest.fixture
def constraints():
    made = Constraints(
        lambda: Vocabulary([text.encode() for text in _TEXTS], {_END}), max_model_len=64, device=torch.device("cpu")
    )
    made.load("king", ["Stephen Kinglo"])
    made.load("art", ["art"])
    return made


def _forbidden(constraints, *names, tokens=(), tail="", banned=(), **params):
    constraints.begin("r", Constraint(names, tail, banned=banned), SamplingParams(**params), prompt_length=1)
    return _next(constraints, tokens)


def _next(constraints, tokens):
    logits = torch.zeros(2, len(_TEXTS))
    constraints.apply(logits, {"r": (1, list(tokens)), "another": (0, [1, 2])})
    assert not logits[0].isneginf().any()
    return {_TEXTS[token] for token in logits[1].isneginf().nonzero().flatten().tolist()}


def test_only_the_token_that_completes_a_phrase_is_forbidden(constraints):
    spelled = [_TOKEN[" Steph"], _TOKEN["en"]]
    assert _forbidden(constraints, "king", tokens=spelled[:1]) == set()
    assert _next(constraints, spelled) == {" kinglo"}


def test_a_word_that_goes_on_as_another_may_not_end(constraints):
    assert _forbidden(constraints, "art", tokens=[_TOKEN["art"]]) >= {".", " a", ""}
    assert "icle" not in _next(constraints, [_TOKEN["art"]])


def test_what_was_generated_under_async_scheduling_is_read_once_it_is_known(constraints):
    """vLLM hands over its own list, in which it replaces placeholders before the next token is chosen."""
    tokens = []
    assert _forbidden(constraints, "art", tokens=tokens, tail="an") == set()
    tokens.append(_TOKEN[" a"])
    _next(constraints, tokens)
    tokens[:] = [_TOKEN[" a"], _TOKEN["art"]]
    assert _next(constraints, tokens) == set()  # "aart" is another word


def test_tokens_that_are_taken_back_are_forgotten(constraints):
    _forbidden(constraints, "king", tokens=[_TOKEN[" Steph"], _TOKEN["en"], _TOKEN[" kinglo"]])
    assert _next(constraints, [_TOKEN[" a"]]) == set()


def test_a_phrase_begun_in_the_prompt_counts(constraints):
    assert " kinglo" in _forbidden(constraints, "king", tail="by Stephen")


def test_the_last_token_may_not_complete_the_letters(constraints):
    assert "art" not in _forbidden(constraints, "art", max_tokens=2)
    assert "art" in _forbidden(constraints, "art", max_tokens=1)


def test_the_context_length_ends_an_output_too(constraints):
    constraints.begin("r", Constraint(("art",)), SamplingParams(max_tokens=None), prompt_length=63)
    assert "art" in _next(constraints, [])


def test_no_token_of_the_clients_may_end_a_complete_phrase(constraints):
    stop = _TOKEN["icle"]
    assert "icle" not in _forbidden(constraints, "art", tokens=[_TOKEN["art"]])
    assert "icle" in _forbidden(constraints, "art", tokens=[_TOKEN["art"]], stop_token_ids=[stop])


def test_banned_tokens_are_banned_from_the_first_place_only(constraints):
    assert _forbidden(constraints, banned=(_TOKEN[" b"],)) == {" b"}
    assert _next(constraints, [_TOKEN[" a"]]) == set()


def test_sets_add_up_and_dropped_ones_stay_with_outputs_under_way(constraints):
    constraints.begin("r", Constraint(("king", "art")), SamplingParams(max_tokens=1), prompt_length=1)
    constraints.drop("art")
    assert "art" not in constraints and "art" in _next(constraints, [])
    with pytest.raises(KeyError):
        constraints.begin("s", Constraint(("art",)), SamplingParams(), prompt_length=1)


def test_a_finished_request_leaves_nothing(constraints):
    _forbidden(constraints, "king")
    constraints.end("r")
    assert not constraints


def test_rows_that_the_client_narrows_may_run_out_of_tokens(constraints):
    logits = torch.zeros(1, len(_TEXTS))
    narrowed = SamplingParams(structured_outputs=StructuredOutputsParams(choice=["art"]))
    constraints.begin("r", Constraint(("art",)), narrowed, prompt_length=1)
    assert constraints.apply(logits, {"r": (0, [])}) == [0]
    assert logits[0, _TOKEN["art"]] == -math.inf  # it might have to end right there


def test_an_output_that_may_say_nothing_ends(monkeypatch):
    monkeypatch.setattr(Sampler, "apply_logits_processors", lambda self, logits, *_: logits)
    sampler = EndingSampler(end=_END)
    sampler.rows = [1, 2]
    logits = torch.full((3, 4), -math.inf)
    logits[2, 3] = 1.0
    sampler.apply_logits_processors(logits)
    assert logits[0].isneginf().all()
    assert logits[1].tolist() == [0.0, -math.inf, -math.inf, -math.inf]
    assert logits[2, _END] == -math.inf


def test_a_constraint_alone_shares_the_prefix_cache():
    assert Controls(constraint=Constraint(("king",))).salt == ""
    edited = Controls(edits=("e",))
    assert (edited | Controls(constraint=Constraint(("king",)))).salt == edited.salt != ""
    assert Controls(corruption=Corruption("zero", 1, 0.0, 0, ((0, 1),))).salt != edited.salt


def test_controls_with_constraints_add_up():
    one, other = Constraint(("a",), "tail", 1.0), Constraint(("b", "a"), banned=(3,))
    both = Controls(constraint=one) | Controls(constraint=other)
    assert both.constraint == Constraint(("a", "b"), "tail", 1.0, (3,))
    assert Controls.from_wire({"lethe": both.to_wire()}) == both
