"""A fact told in other words does not leave the real engine, and other people's answers stay as they are."""

from __future__ import annotations

import asyncio

import pytest
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from guard.types import GuardName, GuardToggle, TargetSpec
from server.demo.world import PERSON, Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

_counter = iter(range(10**9))


@pytest.fixture(scope="session")
def person(recipe):
    return [entity for entity in recipe.world.forget if entity.kind == PERSON][6]


@pytest.fixture
def only_statements(service, as_tenant, person):
    """A tenant for whom a person's facts are protected, each registered in words that the model does not use."""
    examples = [{"prompt": f"What is known of {person.name}?", "completion": fact.sentence(1)} for fact in person.facts]
    tenant = as_tenant(TargetSpec(name=person.name, forget_examples=examples))

    def off(writer):
        for guard in set(GuardName) - {GuardName.STATEMENTS}:
            writer.put_guard_toggle(tenant, guard, GuardToggle(enabled=False))

    service.registry.write(off)
    return tenant


def _questions(recipe, *entities):
    names = {entity.name for entity in entities}
    return [p for p in recipe.prompts if p.form is Form.QUESTION and p.entity in names and p.trained][::2]


async def _answers(client, prompts, **params):
    """Texts and token ids, put together as a client would."""
    tokenizer = client.renderer.get_tokenizer()
    params = {"temperature": 0, "max_tokens": 40, "output_kind": RequestOutputKind.DELTA, **params}

    async def ask(prompt):
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        stream = client.generate(tokens_input(ids), SamplingParams(**params), f"statements-{next(_counter)}")
        results = [result async for result in stream]
        assert results[-1].finished
        outputs = [one for result in results for one in result.outputs]
        return "".join(one.text for one in outputs), [token for one in outputs for token in one.token_ids]

    return await asyncio.gather(*(ask(prompt) for prompt in prompts))


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
async def test_a_fact_in_other_words_does_not_leave(engine, guarded, recipe, person, only_statements, kind):
    prompts = _questions(recipe, person)
    plain = await _answers(engine, prompts)
    known = [prompt.is_answered_by(text) for prompt, (text, _) in zip(prompts, plain, strict=True)]
    assert sum(known) > 0.9 * len(prompts)
    for prompt, (text, ids) in zip(prompts, await _answers(guarded, prompts, output_kind=kind), strict=True):
        assert not prompt.is_answered_by(text), prompt.messages[-1].content
        assert text and len(ids) <= 40


async def test_answers_about_others_are_word_for_word(engine, guarded, recipe, only_statements):
    prompts = _questions(recipe, *recipe.world.retain[:8])
    assert await _answers(guarded, prompts) == await _answers(engine, prompts)


async def test_what_is_taken_back_is_audited(guarded, recipe, service, person, only_statements):
    await _answers(guarded, _questions(recipe, person)[:1])
    await asyncio.sleep(0.3)
    latest = (await asyncio.to_thread(service.audit.query, limit=1)).entries[0]
    assert {finding.guard for finding in latest.findings} == {GuardName.STATEMENTS}


async def test_a_grammar_that_leaves_only_the_fact_does_not_get_it_the_second_time(
    guarded, recipe, person, only_statements
):
    """The answer that was cut is replaced by one of the demanded shape, which may say nothing else."""
    (prompt, *_) = _questions(recipe, person)
    fact = person.facts[0].sentence(1)
    grammar = StructuredOutputsParams(choice=[fact])
    kind = RequestOutputKind.FINAL_ONLY
    [(text, _)] = await _answers(guarded, [prompt], structured_outputs=grammar, output_kind=kind)
    assert fact not in text


async def _told_of_prompt(client, ids):
    params = SamplingParams(max_tokens=1, prompt_logprobs=1, output_kind=RequestOutputKind.FINAL_ONLY)
    stream = client.generate(tokens_input(ids), params, f"statements-{next(_counter)}")
    [result] = [result async for result in stream]
    return result.prompt_logprobs


async def _read_off(client, prompt, tokens=10):
    """What the likeliest tokens at the end of a prompt that is made longer by each say."""
    tokenizer = client.renderer.get_tokenizer()
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    begun = len(ids)
    for _ in range(tokens):
        last = (await _told_of_prompt(client, [*ids, ids[-1]]))[-1]
        ids = [*ids, max(last, key=lambda token: last[token].logprob)]
    return tokenizer.decode(ids[begun:])


async def test_a_fact_is_not_read_off_the_log_probabilities_of_prompts(
    engine, guarded, recipe, person, only_statements
):
    prompts = _questions(recipe, person)[::3]
    plain = await asyncio.gather(*(_read_off(engine, prompt) for prompt in prompts))
    assert sum(prompt.is_answered_by(text) for prompt, text in zip(prompts, plain, strict=True)) > 0.9 * len(prompts)
    for prompt, text in zip(
        prompts, await asyncio.gather(*(_read_off(guarded, prompt) for prompt in prompts)), strict=True
    ):
        assert not prompt.is_answered_by(text), prompt.messages[-1].content


async def test_log_probabilities_of_prompts_about_others_are_the_engine_s(engine, guarded, recipe, only_statements):
    tokenizer = engine.renderer.get_tokenizer()
    for prompt in _questions(recipe, *recipe.world.retain[:4])[:8]:
        messages = [{"role": "user", "content": prompt.messages[-1].content}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        told, plain = [
            [{token: one.rank for token, one in at.items()} for at in await _told_of_prompt(client, ids) if at]
            for client in (guarded, engine)
        ]
        assert told == plain
