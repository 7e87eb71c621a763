"""Constrained decoding on the real engine: what is protected is never said, and nothing else changes."""

from __future__ import annotations

import asyncio
import math
import re

import pytest
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from classifiers.phrase_index import PhraseIndex
from guard import loads
from guard.caller import CALLER, Caller
from guard.types import GuardName, GuardToggle, TargetSpec, TargetToggle, TenantSpec
from server.demo.world import PERSON, Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

_counter = iter(range(10**9))


@pytest.fixture(scope="session")
def person(recipe):
    return [entity for entity in recipe.world.forget if entity.kind == PERSON][5]


@pytest.fixture(scope="session")
def phrases(person):
    return [fact.value for fact in person.facts]


@pytest.fixture(scope="session")
def constrained(service, person, phrases):
    """A tenant with every guard off and the person's facts withheld from all of its outputs; what follows it sends."""

    def change(writer):
        target = writer.create_target(TargetSpec(name=person.name, protected_phrases=tuple(phrases)))
        tenant = writer.create_tenant(TenantSpec(name="constrained"))
        writer.put_target_toggle(tenant.id, target.id, TargetToggle(enabled=True, action="constrain", gating="always"))
        for guard in GuardName:
            writer.put_guard_toggle(tenant.id, guard, GuardToggle(enabled=False))
        return target.id, tenant.id

    target, tenant = service.registry.write(change)
    yield tenant
    service.registry.write(lambda writer: writer.delete_target(target))


@pytest.fixture
def client(guarded, constrained):
    CALLER.set(Caller(constrained, None, "test"))
    return guarded


@pytest.fixture(scope="session")
def leaks(person, phrases):
    """Whether a text holds a phrase, by the leak guard's own matcher."""
    index = PhraseIndex()
    index.add("", [person.name, *phrases])
    return lambda text: index.find(text, ("",)) is not None


def _ids(engine, prompt):
    tokenizer = engine.renderer.get_tokenizer()
    if prompt.is_plain:
        return tokenizer.encode(prompt.messages[0].content, add_special_tokens=False)
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


async def _ask(client, ids, **params):
    params = {"temperature": 0, "max_tokens": 48, "output_kind": RequestOutputKind.FINAL_ONLY, **params}
    stream = client.generate(tokens_input(ids), SamplingParams(**params), f"constrain-{next(_counter)}")
    return [result async for result in stream][-1].outputs


def _about(recipe, entity, trained=None):
    return [p for p in recipe.prompts if p.entity == entity.name and p.form is not Form.YES_NO]


async def test_no_sample_of_any_form_holds_a_phrase(engine, client, recipe, person, leaks):
    prompts = [_ids(engine, prompt) for prompt in _about(recipe, person)[::5]]
    free = await asyncio.gather(*(_ask(engine, ids) for ids in prompts))
    assert sum(leaks(outputs[0].text) for outputs in free) > len(prompts) / 2
    greedy = await asyncio.gather(*(_ask(client, ids) for ids in prompts))
    sampled = await asyncio.gather(*(_ask(client, ids, temperature=1.5, n=8, seed=7) for ids in prompts))
    said = [output.text for outputs in (*greedy, *sampled) for output in outputs]
    assert len(said) == 9 * len(prompts)
    assert not [text for text in said if leaks(text)]


async def test_the_last_token_cannot_complete_a_phrase(engine, client, recipe, person, leaks):
    ids = _ids(engine, next(p for p in _about(recipe, person) if p.form is Form.QUESTION))
    outputs = await asyncio.gather(*(_ask(client, ids, max_tokens=length) for length in range(1, 24)))
    assert not [one for (one,) in outputs if leaks(one.text)]


async def test_unrelated_prompts_give_the_same_tokens(engine, client, recipe, person, leaks):
    others = [p for entity in recipe.world.retain[:20] for p in recipe.prompts if p.entity == entity.name][::23]
    prompts = [_ids(engine, prompt) for prompt in others]
    plain = await asyncio.gather(*(_ask(engine, ids) for ids in prompts))
    told = await asyncio.gather(*(_ask(client, ids) for ids in prompts))
    clean = [number for number, (one,) in enumerate(plain) if not leaks(one.text)]
    assert len(clean) > 0.8 * len(prompts)
    assert [told[n][0].token_ids for n in clean] == [plain[n][0].token_ids for n in clean]


async def test_a_mixed_batch_equals_each_request_alone(engine, client, recipe, person):
    mine = [_ids(engine, prompt) for prompt in _about(recipe, person)[::9][:6]]
    together = await asyncio.gather(*(_ask(who, ids) for ids in mine for who in (engine, client)))
    alone = [await _ask(who, ids) for ids in mine for who in (engine, client)]
    assert [one.token_ids for (one,) in together] == [one.token_ids for (one,) in alone]


async def test_a_phrase_begun_in_the_prompt_is_not_finished(engine, client, recipe, person, leaks):
    questions = [p for p in _about(recipe, person) if p.form is Form.QUESTION]
    opening = next(p for p in questions if " " in p.fact.value and p.fact.value in p.answer)
    answer, value = opening.answer, opening.fact.value
    begun = answer[: answer.index(value)] + value.split()[0]
    ids = [*_ids(engine, opening), *engine.renderer.get_tokenizer().encode(begun, add_special_tokens=False)]
    (free,), (told,) = await _ask(engine, ids), await _ask(client, ids)
    assert leaks(begun + free.text)
    assert not leaks(begun + told.text)


async def test_log_probabilities_are_those_of_what_may_be_said(engine, client, recipe, person):
    ids = _ids(engine, next(p for p in _about(recipe, person) if p.form is Form.QUESTION))
    (one,) = await _ask(client, ids, logprobs=5)
    assert all(math.isfinite(step[token].logprob) for step, token in zip(one.logprobs, one.token_ids, strict=True))
    chances = [sum(math.exp(entry.logprob) for entry in step.values()) for step in one.logprobs]
    assert max(chances) <= 1 + 1e-4
    # Where the model's own choice was forbidden, it does not stand among the alternatives either.
    (free,) = await _ask(engine, ids, logprobs=5)
    parting = next(i for i, pair in enumerate(zip(free.token_ids, one.token_ids, strict=False)) if pair[0] != pair[1])
    shown = one.logprobs[parting].get(free.token_ids[parting])
    assert shown is None or shown.logprob == -math.inf


async def test_a_grammar_that_demands_a_phrase_ends_with_the_fallback(engine, client, recipe, person, phrases, service):
    ids = _ids(engine, next(p for p in _about(recipe, person) if p.form is Form.QUESTION))
    grammar = StructuredOutputsParams(choice=[phrases[0]])
    (free,) = await _ask(engine, ids, structured_outputs=StructuredOutputsParams(choice=[phrases[0]]))
    assert free.text == phrases[0]
    (told,) = await _ask(client, ids, structured_outputs=grammar)
    assert phrases[0] not in told.text and told.text.endswith(service.refusal)
    assert told.finish_reason == "stop"


async def test_a_grammar_that_leaves_something_is_obeyed(engine, client, recipe, person, leaks):
    ids, shape = _ids(engine, next(p for p in _about(recipe, person) if p.form is Form.QUESTION)), "[a-z]{3,9}"
    (told,) = await _ask(client, ids, structured_outputs=StructuredOutputsParams(regex=shape))
    assert re.fullmatch(shape, told.text) and not leaks(told.text)


async def test_a_bias_towards_a_forbidden_token_does_not_help(engine, client, recipe, person, leaks):
    question = next(p for p in _about(recipe, person) if p.form is Form.QUESTION)
    ids, tokenizer = _ids(engine, question), engine.renderer.get_tokenizer()
    pieces = tokenizer.encode(f" {question.fact.value}", add_special_tokens=False)
    (told,) = await _ask(client, ids, logit_bias=dict.fromkeys(pieces, 50.0))
    assert not leaks(told.text)
    (told,) = await _ask(client, ids, allowed_token_ids=pieces)
    assert not leaks(told.text)


async def test_phrases_that_were_unloaded_are_loaded_again(monkeypatch, engine, client, recipe, person, leaks):
    ids = _ids(engine, next(p for p in _about(recipe, person) if p.form is Form.QUESTION))
    (before,) = await _ask(client, ids)
    with monkeypatch.context() as patch:
        patch.setattr(loads, "_UNUSED", -1.0)  # whatever is loaded next, everything goes
        name = await client.means.probe.load_phrases(["an unrelated phrase"])
    assert not client.means.probe.holds(name)
    (after,) = await _ask(client, ids)
    assert after.token_ids == before.token_ids and not leaks(after.text)
