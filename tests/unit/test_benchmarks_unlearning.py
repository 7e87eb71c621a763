"""The baselines of benchmarks/unlearning: losses by hand, ULD's subtraction, and that nothing asked is trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.unlearning.data import Split, split
from benchmarks.unlearning.difference import Difference, assistant_of, subtracted
from benchmarks.unlearning.judging import Answering, trade_off
from benchmarks.unlearning.losses import Read, answer_logprobs, kl_from_uniform, kl_to, nll, npo, read
from benchmarks.unlearning.methods import METHODS, objective
from benchmarks.unlearning.training import Found, Plan, Search
from server.demo.batches import IGNORED, Batch
from server.demo.forms import user
from server.demo.recipe import Recipe
from server.demo.world import Form, Prompt
from server.evaluation.suites.asking import key_of
from server.evaluation.suites.demo.questions import Part, people, questions


def _read(*probabilities: tuple[float, ...], labels: tuple[int, ...], rows: tuple[int, ...]) -> Read:
    return Read(torch.tensor(probabilities).log(), torch.tensor(labels), torch.tensor(rows))


#: Two answers: one of two tokens with probabilities 1/2 and 1/4, one of a single token with 1/8.
_GIVEN = _read((0.5, 0.25, 0.25), (0.5, 0.25, 0.25), (0.125, 0.75, 0.125), labels=(0, 1, 2), rows=(0, 0, 1))


def _model(layers: int = 3, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.3,  # so that its answers differ from prompt to prompt
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


_BATCH = Batch(
    torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]]),
    torch.tensor([[IGNORED, 7, 8, IGNORED], [10, IGNORED, IGNORED, IGNORED]]),
)


def test_cross_entropy_is_the_mean_over_tokens_and_log_probability_the_sum_over_each_answer() -> None:
    assert nll(_GIVEN).item() == pytest.approx((1 + 2 + 3) / 3 * math.log(2))
    assert answer_logprobs(_GIVEN).tolist() == pytest.approx([-3 * math.log(2), -3 * math.log(2)])


def test_npo_by_hand() -> None:
    """With beta 1 and an answer as likely as before, -2 log sigmoid(0) is 2 ln 2; half as likely, 2 ln 1.5."""
    before = torch.tensor([-3.0, -3.0])
    assert npo(before, before, 1.0).item() == pytest.approx(2 * math.log(2))
    assert npo(before - math.log(2), before, 1.0).item() == pytest.approx(2 * math.log(1.5))


def test_npo_with_a_small_beta_has_the_gradient_of_gradient_ascent() -> None:
    logprobs = torch.tensor([-2.0, -5.0], requires_grad=True)
    npo(logprobs, torch.tensor([-1.0, -1.0]), 1e-4).backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.5, 0.5], rel=1e-3)  # that of their mean


def test_npo_leaves_alone_what_is_forgotten() -> None:
    logprobs = torch.tensor([-1.0, -400.0], requires_grad=True)
    npo(logprobs, torch.tensor([-1.0, -1.0]), 0.1).backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0] > 0.1 and abs(logprobs.grad[1]) < 1e-9


def test_divergences_by_hand() -> None:
    even, skewed = (_read(p, labels=(0,), rows=(0,)) for p in ((0.5, 0.5), (0.25, 0.75)))
    # KL(skewed || even): the reference weighs.
    assert kl_to(even, skewed).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert kl_to(skewed, skewed).item() == pytest.approx(0)
    assert kl_from_uniform(skewed).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl_from_uniform(even).item() == pytest.approx(0)


def test_a_batch_is_read_at_its_answers_alone() -> None:
    model = _model()
    given = read(model, _BATCH)
    assert given.labels.tolist() == [7, 8, 10] and given.rows.tolist() == [0, 0, 1]
    alone = model(input_ids=torch.tensor([[9]])).logits[0, 0]
    torch.testing.assert_close(given.logits[2], alone, atol=0.1, rtol=0.05)  # bfloat16


def test_objectives_are_their_terms() -> None:
    model, original = _model(), _model(seed=1)
    given, before = read(model, _BATCH), read(original, _BATCH)
    logprobs = answer_logprobs(given), answer_logprobs(before)
    expected = {
        "ga": -nll(given),
        "gd": 4 * nll(given),  # the same answers are forgotten and kept
        "kl": 5 * kl_to(given, before) - nll(given),
        "npo": npo(*logprobs, 0.1),
        "npo_gd": npo(*logprobs, 0.1) + 5 * nll(given),
        "uld": nll(given) + 5 * kl_from_uniform(given),
    }
    assert set(expected) == set(METHODS)
    for name, value in expected.items():
        method = METHODS[name]
        found = objective(method, model, original, _BATCH, (_BATCH, 5.0) if method.retain else None)
        torch.testing.assert_close(found, value, msg=name)


def test_what_the_assistant_knows_is_subtracted_from_likely_tokens_only() -> None:
    base = torch.tensor([[0.9, 0.08, 0.015, 0.005]]).log()
    assistant = torch.tensor([[10.0, 5.0, 5.0, -5.0]])
    found = subtracted(base, assistant, weight=0.5, top_filter=0.05)
    # Below 0.045 of probability nothing is subtracted.
    torch.testing.assert_close(found - base, torch.tensor([[-5.0, -2.5, 0.0, 0.0]]))


def test_so_many_of_the_likeliest_tokens_count_as_likely_however_sure_the_model_is() -> None:
    base = torch.tensor([[50.0, 3.0, 2.0, 1.0]])
    found = subtracted(base, torch.ones(1, 4), weight=1.0, top_filter=0.5)
    torch.testing.assert_close(base - found, torch.tensor([[1.0, 1.0, 0.0, 0.0]]))


def test_an_assistant_is_the_first_layers() -> None:
    model = _model()
    ids = torch.tensor([[5, 6, 7]])
    states = model(input_ids=ids, output_hidden_states=True).hidden_states
    found = assistant_of(model, 1).eval()(input_ids=ids).logits
    torch.testing.assert_close(found, model.lm_head(model.model.norm(states[1])))


def test_generating_by_difference_with_caches_and_padding_is_subtracting_anew_at_every_token() -> None:
    model, assistant = _model(), _model(1, seed=2)
    prompts = [[5, 6, 7, 8, 9], [11, 12]]
    padded = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 0, 11, 12]])
    output = Difference(model, assistant).generate(padded, (padded != 0).long(), do_sample=False, max_new_tokens=6)
    for prompt, row in zip(prompts, output[:, 5:].tolist(), strict=True):
        for _ in range(6):
            ids = torch.tensor([prompt])
            logits = subtracted(model(input_ids=ids).logits[:, -1], assistant(input_ids=ids).logits[:, -1])
            prompt.append(int(logits.argmax()))
        assert row == prompt[-6:]
    plain = model.generate(input_ids=padded, attention_mask=(padded != 0).long(), do_sample=False, max_new_tokens=6)
    assert not torch.equal(plain, output)


class _Scripted:
    """A judge that says what it was told to, look by look: the recall of retain, which is the score too."""

    untouched: ClassVar = {"forget": 1.0, "retain": 1.0, "general": 1.0}

    def __init__(self, *retain: float) -> None:
        self._retain = iter(retain)

    def recalls(self, model: Answering) -> dict[str, float]:
        return {"forget": 1.0, "retain": next(self._retain), "general": 1.0}

    def score(self, recalls: Mapping[str, float]) -> float:
        return recalls["retain"]


def _searched(name: str, *retain: float) -> tuple[LlamaForCausalLM, Found]:
    """What a method finds in two epochs with two looks or four in each; its tokenizer counts the letters of words."""
    prompts = tuple(Prompt(Form.QUESTION, user(f"{'a' * n} b"), f"{'a' * n} cc", ()) for n in range(1, 9))
    parts = Split(prompts[:4], prompts[4:], (), ())
    original, plan = _model(), Plan(epochs=2, checks=2, batch_tokens=16, assistant_layers=1, seed=0)
    method = replace(METHODS[name], grid=METHODS[name].grid[-1:])

    def tokenizer(texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}

    search = Search(original, tokenizer, parts, _Scripted(*retain), plan)  # type: ignore[arg-type]
    return original, search.best(method, lambda tried: None)


def test_a_search_keeps_the_best_look_and_leaves_the_original_alone() -> None:
    original, found = _searched("npo_gd", 0.7, 0.9, 0.3, 0.8)
    assert [one["score"] for one in found.grid] == [0.7, 0.9, 0.3, 0.8]
    assert found.chosen == found.grid[1] and found.chosen["epochs"] == 1
    for name, weight in _model().state_dict().items():
        assert torch.equal(weight, original.state_dict()[name])
    assert isinstance(found.model, LlamaForCausalLM)
    assert not torch.equal(found.model.lm_head.weight, original.lm_head.weight.bfloat16())


def test_without_a_retain_term_a_search_ends_when_too_little_is_left() -> None:
    assert len(_searched("ga", 0.7, 0.4)[1].grid) == 2


def test_the_trade_off_is_that_of_the_worst_and_nothing_for_nothing() -> None:
    untouched = {"forget": 1.0, "retain": 0.8, "general": 1.0}
    assert trade_off({"forget": 0.0, "retain": 0.9, "general": 1.0}, untouched) == pytest.approx(1)
    assert trade_off({"forget": 0.5, "retain": 0.4, "general": 0.5}, untouched) == pytest.approx(0.5)
    assert trade_off({"forget": 0.0, "retain": 0.0, "general": 1.0}, untouched) == 0
    assert trade_off(untouched, untouched) == 0


def test_what_is_asked_in_the_end_neither_chooses_nor_is_trained_to_be_kept() -> None:
    recipe = Recipe()
    targets = people(recipe.world, 10)
    parts = split(recipe, targets, 3, 2)
    test, validation = ({key_of(one.prompt.messages) for one in some} for some in (parts.test, parts.validation))
    retain = {key_of(prompt.messages) for prompt in parts.retain}
    assert parts.test == questions(recipe, targets, 3)
    assert not test & validation and not (test | validation) & retain
    names = [target.name for target in targets]
    assert {prompt.entity for prompt in parts.forget} == set(names)
    assert not any(name in prompt.text for name in names for prompt in parts.retain)
    assert all(prompt.trained for prompt in (*parts.forget, *parts.retain))
    assert {one.part for one in parts.validation} == {Part.FORGET, Part.RETAIN, Part.GENERAL}
