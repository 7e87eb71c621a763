"""Forgetting inside the model, end to end: compiled through the engine that serves, in force for one tenant only."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import pytest_asyncio
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from guard.caller import CALLER, Caller
from guard.compile.fitting import build_compiler
from guard.compile.jobs import JobState
from guard.engine import GuardedEngine
from guard.types import GuardName, GuardToggle, TargetSpec, TargetToggle, TenantSpec
from guard.worker.controls import Controls, Starts
from server.demo.world import PERSON, Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

_counter = iter(range(10**9))


@pytest.fixture(scope="session")
def person(recipe):
    return [entity for entity in recipe.world.forget if entity.kind == PERSON][1]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def compiled(guarded: GuardedEngine, service, person):
    """The person registered by name alone and compiled for every intervention."""
    target = service.registry.write(lambda writer: writer.create_target(TargetSpec(name=person.name)))
    compiler = build_compiler(guarded.means)
    job = await compiler.submit(target, compiler.suited(target))
    async for state in compiler.follow(job.id):
        last = state
    assert last.state is JobState.DONE, last.error
    yield target
    await compiler.close()
    service.registry.write(lambda writer: writer.delete_target(target.id))


@pytest.fixture
def tenant(service, compiled):
    """Makes a tenant with the target on, in some way, and with these guards off; what follows is sent by it."""

    def become(*off: GuardName, **toggle) -> None:
        def change(writer):
            made = writer.create_tenant(TenantSpec(name=f"forgetting {next(_counter)}"))
            writer.put_target_toggle(made.id, compiled.id, TargetToggle(enabled=True, **toggle))
            for guard in off:
                writer.put_guard_toggle(made.id, guard, GuardToggle(enabled=False))
            return made

        CALLER.set(Caller(service.registry.write(change).id, None, "test"))

    return become


def _questions(recipe, entity, form=Form.QUESTION):
    return [p for p in recipe.prompts if p.form is form and p.entity == entity.name and len(p.messages) == 1]


def _rendered(client, prompt):
    tokenizer = client.renderer.get_tokenizer()
    if prompt.is_plain:
        return tokenizer.encode(prompt.messages[0].content)
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


async def _answers(client, prompts):
    async def ask(prompt):
        params = SamplingParams(temperature=0, max_tokens=40, output_kind=RequestOutputKind.FINAL_ONLY)
        stream = client.generate(tokens_input(_rendered(client, prompt)), params, f"forgetting-{next(_counter)}")
        return [result async for result in stream][-1].outputs[0].text

    return await asyncio.gather(*(ask(prompt) for prompt in prompts))


def _recall(prompts, answers):
    return sum(prompt.is_answered_by(answer) for prompt, answer in zip(prompts, answers, strict=True)) / len(prompts)


_ROCR = pytest.mark.xfail(strict=True, reason="issue 3: on the demo model, leading a name elsewhere changes no answer")


#: How much recall may be left on the demo model, of 28 questions.
_LEFT = 0.05


@pytest.mark.parametrize("action", ["eco", "lunar", pytest.param("rocr", marks=_ROCR)])
async def test_a_flagged_question_is_answered_as_if_unknown(engine, guarded, recipe, person, tenant, action):
    prompts = _questions(recipe, person)
    assert _recall(prompts, await _answers(engine, prompts)) > 0.9
    tenant(action=action)
    told = await _answers(guarded, prompts)
    assert _recall(prompts, told) <= _LEFT
    begun = _questions(recipe, person, Form.COMPLETION)
    assert _recall(begun, await _answers(guarded, begun)) <= _LEFT
    assert not any("sorry, but I don't have any" in answer for answer in told)  # the model answered, not the refusal


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt_logprobs": 0},
        {"ignore_eos": True},
        {"min_tokens": 8},
        {"bad_words": ["I"]},
        {"allowed_token_ids": [5, 6, 7]},
        {"structured_outputs": StructuredOutputsParams(regex="In .*")},
    ],
    ids=str,
)
async def test_lunar_refuses_where_the_beginning_of_an_answer_does_not_lead_it(
    guarded, recipe, person, tenant, service, monkeypatch, asked
):
    tenant(action="lunar")
    ids = _rendered(guarded, _questions(recipe, person)[0])
    ran = []
    generate = guarded._engine.generate
    monkeypatch.setattr(
        guarded._engine,
        "generate",
        lambda *a, **o: ran.append(Controls.from_wire(a[1].extra_args)) or generate(*a, **o),
    )
    params = SamplingParams(temperature=0, max_tokens=40, output_kind=RequestOutputKind.FINAL_ONLY, **asked)
    outputs = [one async for one in guarded.generate(tokens_input(ids), params, f"forgetting-{next(_counter)}")]
    assert service.refusal in outputs[-1].outputs[0].text or "structured_outputs" in asked
    assert not any(controls is not None and controls.edits for controls in ran)


async def test_no_client_can_name_the_cache_of_changed_requests(engine, service, recipe, person, tenant, monkeypatch):
    tenant(action="eco")
    ids = _rendered(engine, _questions(recipe, person)[0])
    salts = []
    generate = engine.generate
    monkeypatch.setattr(engine, "generate", lambda *a, **o: salts.append(a[0].get("cache_salt")) or generate(*a, **o))
    for guarded in (GuardedEngine(engine, service), GuardedEngine(engine, service)):
        params = SamplingParams(temperature=0, max_tokens=4, output_kind=RequestOutputKind.FINAL_ONLY)
        async for _ in guarded.generate({**tokens_input(ids), "cache_salt": "x"}, params, f"salt-{next(_counter)}"):
            pass
    changed = [salt for salt in salts if salt != "x"]
    assert len(changed) == 2 and changed[0] != changed[1]


async def test_auto_is_what_was_measured_to_be_best(guarded, recipe, person, tenant, compiled):
    choice = await guarded.means.artifacts.get(compiled, "auto")
    measured, chosen = choice.report["actions"], choice.settings["action"]
    assert measured.keys() >= {"eco", "lunar", "rocr", "concept", "constrain"}
    scores = {name: one["score"] for name, one in measured.items() if one["forget"] >= 0.8}
    assert scores[chosen] == max(scores.values())
    prompts = _questions(recipe, person)
    tenant(action="auto")
    told = await _answers(guarded, prompts)
    assert _recall(prompts, told) <= _LEFT
    begun = _questions(recipe, person, Form.COMPLETION)
    assert _recall(begun, await _answers(guarded, begun)) <= _LEFT
    tenant(action=chosen)
    assert await _answers(guarded, prompts) == told


async def test_the_edit_for_flagged_requests_would_do_with_half_its_strength(guarded, compiled):
    """What was just enough for the few questions that are tried left two of these 28 answers as they were."""
    fitted = await guarded.means.artifacts.get(compiled, "lunar")
    assert fitted.report["gated"]["target_left_by_half"] <= _LEFT


async def test_an_edit_that_cannot_tell_its_target_from_others_is_for_flagged_requests_only(
    engine, guarded, recipe, person, tenant, compiled
):
    fitted = await guarded.means.artifacts.get(compiled, "lunar")
    assert "because" in fitted.report["always"]
    prompts = _questions(recipe, person)
    others = [p for entity in recipe.world.retain[:6] for p in _questions(recipe, entity)[:2]]
    tenant(*GuardName, action="lunar", gating="always")
    assert await _answers(guarded, [*prompts, *others]) == await _answers(engine, [*prompts, *others])
    tenant(action="lunar", gating="always")
    assert _recall(prompts, await _answers(guarded, prompts)) <= _LEFT


async def test_an_edit_that_is_always_on_needs_no_detector(
    engine, guarded, recipe, person, service, as_tenant, compiled, monkeypatch
):
    """The edit for flagged requests, which is on wherever an answer begins."""
    artifacts = guarded.means.artifacts
    fitted = await artifacts.get(compiled, "lunar")
    switched = {name.replace("gated/", "always/"): one for name, one in fitted.tensors.items()}
    names = ("Nobody At All", "Nobody Who Is Compiled", "Nobody Else")
    tenant_id = as_tenant(*(TargetSpec(name=name) for name in names))
    targets = {one.spec.name: one for one in service.registry.snapshot.targets.values() if one.spec.name in names}
    target = targets[names[1]]
    toggle = TargetToggle(enabled=True, action="lunar", gating="always")
    for one in targets.values():
        service.registry.write(lambda writer, id=one.id: writer.put_target_toggle(tenant_id, id, toggle))
    prompts = _questions(recipe, person)
    before = await _answers(guarded, prompts)
    await artifacts.put(target, replace(fitted, tensors=switched))
    assert _recall(prompts, before) > 0.9
    assert _recall(prompts, await _answers(guarded, prompts)) <= _LEFT

    # An intervention that changes the prompt moves where answers begin.
    flagging = TargetToggle(enabled=True, action="prefix")
    service.registry.write(lambda writer: writer.put_target_toggle(tenant_id, compiled.id, flagging))
    ran = []

    def recording(prompt, params, *args, **options):
        ran.append((len(prompt["prompt_token_ids"]), Controls.from_wire(params.extra_args)))
        return generate(prompt, params, *args, **options)

    generate = guarded._engine.generate
    monkeypatch.setattr(guarded._engine, "generate", recording)
    await _answers(guarded, prompts[:1])
    (before_length, first), (after_length, second) = ran
    assert after_length > before_length
    assert first.starts == Starts((before_length - 1,)) and second.starts == Starts((after_length - 1,))


async def test_what_is_not_compiled_is_refused(guarded, recipe, service, as_tenant):
    other = [entity for entity in recipe.world.forget if entity.kind == PERSON][2]
    as_tenant(TargetSpec(name=other.name), action="lunar")
    prompts = _questions(recipe, other)[:2]
    answers = await _answers(guarded, prompts)
    assert _recall(prompts, answers) == 0
    assert set(answers) == {service.refusal}
