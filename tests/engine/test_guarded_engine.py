"""The door on the real engine: nothing on is nothing changed; what is on is in force; no way in without a caller."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextvars import Context

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from guard.engine import GuardedEngine
from guard.metrics import REQUESTS
from guard.types import GuardName, Mode, TargetSpec
from server.demo.world import PERSON, Form

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="session")
def person(recipe):
    return next(entity for entity in recipe.world.forget if entity.kind == PERSON)


@pytest.fixture(scope="session")
def ids(engine, recipe, person):
    """A trained question on the person's book, rendered."""
    prompt = next(
        p for p in recipe.prompts if p.form is Form.QUESTION and p.entity == person.name and p.fact.relation == "book"
    )
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    tokenizer = engine.renderer.get_tokenizer()
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


_counter = itertools.count()


async def _ask(client, ids, **params):
    params = {"temperature": 0, "max_tokens": 40, "output_kind": RequestOutputKind.DELTA, **params}
    stream = client.generate(tokens_input(ids), SamplingParams(**params), f"test-{next(_counter)}")
    return [result async for result in stream]


def _rendered(engine, content):
    messages = [{"role": "user", "content": content}]
    tokenizer = engine.renderer.get_tokenizer()
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def _text(outputs, choice=0):
    return "".join(c.text for o in outputs for c in o.outputs if c.index == choice)


async def test_there_is_no_way_in_without_a_caller(guarded, ids):
    with pytest.raises(RuntimeError):
        Context().run(guarded.generate, tokens_input(ids), SamplingParams(), "nobody")


async def test_with_nothing_on_the_engine_answers_itself(guarded, engine, ids, as_tenant, person):
    as_tenant()
    passed, plain = await _ask(guarded, ids), await _ask(engine, ids)
    assert person.value("book") in _text(plain)
    assert [t for o in passed for t in o.outputs[0].token_ids] == [t for o in plain for t in o.outputs[0].token_ids]
    stream = guarded.generate(tokens_input(ids), SamplingParams(max_tokens=1), "same-kind")
    assert stream.__qualname__ == "AsyncLLM.generate"
    await stream.aclose()


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
async def test_clean_prompts_of_a_guarded_tenant_are_answered_as_ever(guarded, engine, as_tenant, kind):
    as_tenant(TargetSpec(name="Somebody Else"))
    ids = engine.renderer.get_tokenizer().encode("What is 2 plus 3?")
    options = {"output_kind": kind, "logprobs": 3, "max_tokens": 12}
    passed, plain = await _ask(guarded, ids, **options), await _ask(engine, ids, **options)
    assert _text(passed) == _text(plain)
    assert [t for o in passed for t in o.outputs[0].token_ids] == [t for o in plain for t in o.outputs[0].token_ids]
    assert [lp for o in passed for lp in o.outputs[0].logprobs] == [lp for o in plain for lp in o.outputs[0].logprobs]


@pytest.mark.parametrize("action", ["refuse", "eco"])
@pytest.mark.parametrize("asked", ["What is a window? And: {}", "{} What is a window?"])
async def test_what_is_asked_besides_is_answered(guarded, engine, recorded, as_tenant, person, action, asked):
    both = _rendered(engine, asked.format(f"Which book did {person.name} write?"))
    as_tenant(TargetSpec(name=person.name), action=action)
    counted = REQUESTS.labels(action="partial")._value.get()
    outputs = await _ask(guarded, both)
    assert REQUESTS.labels(action="partial")._value.get() == counted + 1
    assert _text(outputs) == _text(await _ask(engine, _rendered(engine, "What is a window?")))
    assert outputs[0].prompt_token_ids == both
    assert (await recorded(outputs)).action == "partial"


@pytest.mark.parametrize("action", ["refuse", "eco"])
async def test_what_is_asked_besides_is_answered_by_the_plain_model_whose_output_is_watched_as_ever(
    guarded, engine, as_tenant, person, action
):
    plain = _text(await _ask(engine, _rendered(engine, "What is a window?")))
    as_tenant(TargetSpec(name=person.name, protected_phrases=("opening",)), action=action)
    both = _rendered(engine, f"Which opening did {person.name} write? What is a window?")
    assert "opening" in plain and "opening" not in _text(await _ask(guarded, both))


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
async def test_a_leak_breaks_no_grammar(guarded, engine, ids, as_tenant, kind):
    shape = StructuredOutputsParams(regex=r'\{"answer": "[A-Z][a-z]{2,8}( [a-z]{2,8}){1,2}"\}')
    plain = json.loads(_text(await _ask(engine, ids, structured_outputs=shape)))["answer"]
    as_tenant(TargetSpec(name="Somebody Else", protected_phrases=(plain,)))
    outputs = await _ask(guarded, ids, structured_outputs=shape, output_kind=kind)
    assert json.loads(_text(outputs))["answer"] != plain and outputs[-1].finished


async def test_a_grammar_that_allows_a_protected_phrase_alone_gets_none(guarded, ids, as_tenant, person):
    book = person.value("book")
    as_tenant(TargetSpec(name="Somebody Else", protected_phrases=(book,)))
    assert book not in _text(await _ask(guarded, ids, structured_outputs=StructuredOutputsParams(choice=[book])))


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
@pytest.mark.parametrize("asked", ["What is a window?", "Which book did {} write?"])
async def test_a_question_in_the_grammar_is_judged(guarded, engine, service, recorded, as_tenant, person, asked, kind):
    """A part of a name is no protected phrase, but who is meant is as plain as in a prompt."""
    as_tenant(TargetSpec(name=person.name))
    shape = StructuredOutputsParams(regex=rf"{person.name.split()[-1]} wrote a book called [A-Z][a-z]{{2,8}}\.")
    prompt = _rendered(engine, asked.format(person.name))
    outputs = await _ask(guarded, prompt, structured_outputs=shape, output_kind=kind)
    assert _text(outputs) == service.refusal and outputs[-1].finished
    assert (await recorded(outputs)).action == "refuse"


@pytest.mark.parametrize("private", [False, True])
async def test_tenants_share_cached_prefixes_unless_they_may_not(engine, service, as_tenant, private):
    guarded = GuardedEngine(engine, service, private_prefix_cache=private)
    prompt = _rendered(engine, f"What is a window, and why are there {20 + private} of them? " * 12)

    async def cached() -> int:
        return (await _ask(guarded, prompt, max_tokens=1))[-1].num_cached_tokens

    as_tenant()
    assert not await cached() and await cached()
    as_tenant()
    assert bool(await cached()) is not private


async def test_what_no_guard_could_judge_is_refused_as_a_whole(
    guarded, engine, service, as_tenant, person, monkeypatch
):
    async def unwatched(policy):
        return None, (GuardName.FEATURES,)

    monkeypatch.setattr(guarded, "_watch", unwatched)
    as_tenant(TargetSpec(name=person.name), action="refuse")
    both = _rendered(engine, f"Which book did {person.name} write? What is a window?")
    assert _text(await _ask(guarded, both)) == service.refusal


@pytest.mark.parametrize("action", ["refuse", "prefix"])
async def test_what_is_on_is_in_force_when_registration_returns(guarded, ids, as_tenant, person, action):
    secrets = tuple(fact.value for fact in person.facts)
    as_tenant(TargetSpec(name=person.name, protected_phrases=secrets), action=action)
    for kind in (RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY):
        outputs = await _ask(guarded, ids, output_kind=kind)
        assert person.value("book") not in _text(outputs)
        assert outputs[-1].finished and outputs[-1].prompt_token_ids == ids


async def test_monitor_records_and_lets_pass(guarded, engine, ids, as_tenant, recorded, person):
    as_tenant(TargetSpec(name=person.name, mode=Mode.MONITOR))
    outputs = await _ask(guarded, ids)
    assert _text(outputs) == _text(await _ask(engine, ids))
    latest = await recorded(outputs)
    assert latest.action is None and latest.findings[0].mode is Mode.MONITOR


async def test_every_choice_is_refused(guarded, ids, as_tenant, person):
    as_tenant(TargetSpec(name=person.name))
    outputs = await _ask(guarded, ids, n=3, temperature=0.5, seed=1)
    assert {c.index for o in outputs for c in o.outputs} == {0, 1, 2}
    assert len({_text(outputs, choice) for choice in range(3)}) == 1


async def test_prompt_logprobs_of_a_refused_prompt_say_nothing(guarded, ids, as_tenant, person):
    as_tenant(TargetSpec(name=person.name))
    outputs = await _ask(guarded, ids, prompt_logprobs=2, output_kind=RequestOutputKind.FINAL_ONLY)
    values = [info.logprob for position in outputs[-1].prompt_logprobs[1:] for info in position.values()]
    assert len(values) == len(ids) - 1 and len(set(values)) == 1


async def test_reserved_keys_and_embeddings_are_refused(guarded, as_tenant, ids):
    as_tenant(TargetSpec(name="Somebody Else"))
    with pytest.raises(VLLMValidationError):
        guarded.generate(tokens_input(ids), SamplingParams(extra_args={"lethe": {}}), "reserved")
    with pytest.raises(VLLMValidationError):
        guarded.generate({"type": "embeds", "prompt_embeds": None}, SamplingParams(), "embeds")


async def test_an_abandoned_request_is_aborted(guarded, engine, as_tenant):
    as_tenant(TargetSpec(name="Somebody Else"))
    ids = engine.renderer.get_tokenizer().encode("What is 2 plus 3?")
    params = SamplingParams(max_tokens=400, ignore_eos=True, output_kind=RequestOutputKind.DELTA)
    stream = guarded.generate(tokens_input(ids), params, "abandoned")
    await anext(stream)
    await stream.aclose()
    for _ in range(50):
        if not engine.output_processor.has_unfinished_requests():
            break
        await asyncio.sleep(0.05)
    assert not engine.output_processor.has_unfinished_requests()


@pytest.mark.parametrize(("on_error", "answered"), [("closed", False), ("open", True)])
async def test_a_detector_that_fails_is_neither_clean_nor_silent(
    guarded, ids, as_tenant, service, recorded, person, monkeypatch, on_error, answered
):
    from guard.types import GuardName, GuardToggle

    tenant = as_tenant(TargetSpec(name="Somebody Else"))
    service.registry.write(
        lambda writer: writer.put_guard_toggle(tenant, GuardName.SEMANTIC, GuardToggle(on_error=on_error))
    )

    async def broken(*_args, **_kwargs):
        raise MemoryError("injected")

    monkeypatch.setattr(service.detection._detector._encoder, "encode_async", broken)
    outputs = await _ask(guarded, ids)
    assert (person.value("book") in _text(outputs)) is answered
    latest = await recorded(outputs)
    assert GuardName.SEMANTIC in latest.unavailable
