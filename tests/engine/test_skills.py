"""A skill behind the door: the engine's keys are those of transformers, and what needs the skill is not answered."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.compile.fitting import build_compiler
from guard.compile.grounds import render
from guard.compile.jobs import JobState
from guard.types import TargetSpec
from guard.worker.controls import RESERVED, Controls, Features
from sae_features.skills import KeyBox, KeyDirection, SkillKeys
from server.demo.world import Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LAYER = 1
_counter = iter(range(10**9))


@pytest.fixture(scope="session")
def tokenizer(engine):
    return engine.renderer.get_tokenizer()


@pytest.fixture(scope="session")
def prompts(recipe):
    """Questions of one turn: sums that the model can do, and others."""

    def of(forms, step):
        fitting = [p for p in recipe.prompts if p.form in forms and len(p.messages) == 1 and p.trained]
        return [p.messages[0].content for p in fitting][::step]

    return of({Form.ARITHMETIC}, 2), of({Form.QUESTION, Form.DEFINITION, Form.TASK, Form.UNKNOWN, Form.INSTRUCTION}, 31)


async def _ask(client, ids, features=None, **params):
    params = {"temperature": 0, "max_tokens": 32, "output_kind": RequestOutputKind.FINAL_ONLY, **params}
    if features is not None:
        params["extra_args"] = {RESERVED: Controls(features=features).to_wire()}
    stream = client.generate(tokens_input(ids), SamplingParams(**params), f"skills-{next(_counter)}")
    return [result async for result in stream]


def _text(results):
    return "".join(choice.text for result in results for choice in result.outputs)


async def test_the_judged_key_is_that_of_transformers_in_a_mixed_batch(engine, guarded, tokenizer, prompts):
    oracle = AutoModelForCausalLM.from_pretrained(engine.model_config.model, dtype=torch.float32).eval()
    seen = []
    handle = oracle.model.layers[_LAYER].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    generator, probe = torch.Generator().manual_seed(0), guarded.means.probe
    width = oracle.config.intermediate_size
    skills = [
        SkillKeys(_LAYER, KeyDirection(torch.randn(width, generator=generator), 0.1, 0.0)),
        SkillKeys(_LAYER, KeyBox(torch.zeros(width), torch.rand(width, generator=generator) + 0.1, -10.0)),
    ]
    names = tuple([await probe.load_skill(skill) for skill in skills])
    ids = [render(tokenizer, question) for question in (*prompts[0][:5], *prompts[1][:5])]
    begun = tokenizer.encode("It is", add_special_tokens=False)

    async def judged(number, prompt):
        features = Features(skills=names, opening=len(ids[number]) - 1, ticket=f"skill-{next(_counter)}")
        blind = features.blinded_by_cache(len(prompt))
        results = await _ask(engine, prompt, features, skip_reading_prefix_cache=blind)
        (told,) = await probe.verdicts([features.ticket])
        return results[-1].num_cached_tokens, told

    both = [(number, prompt) for number, one in enumerate(ids) for prompt in (one, [*one, *begun])]
    for _ in range(2):  # the second time most of each prompt comes out of the prefix cache
        told = await asyncio.gather(*(judged(*one) for one in both))
    for (number, _), (_, one) in zip(both, told, strict=True):
        seen.clear()
        with torch.inference_mode():
            oracle(torch.tensor([ids[number]]))
        for name, skill in zip(names, skills, strict=True):
            score = float(skill.detector.scores(seen[0][0, -1:]))
            assert one[name].mean == pytest.approx(score, abs=1e-3)
            if abs(score - skill.detector.threshold) > 1e-2:
                assert one[name].flagged is (score > skill.detector.threshold)
    handle.remove()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def arithmetic(guarded, service, prompts):
    """Fitted on every other prompt."""
    sums, others = prompts
    spec = TargetSpec(name="arithmetic", kind="skill", forget_examples=sums[::2], retain_examples=others[::2])
    target = service.registry.write(lambda writer: writer.create_target(spec))
    compiler = build_compiler(guarded.means)
    async for job in compiler.follow((await compiler.submit(target, compiler.suited(target))).id):
        last = job
    await compiler.close()
    assert last.state is JobState.DONE, last.error
    yield target
    service.registry.write(lambda writer: writer.delete_target(target.id))


async def _refused(guarded, service, tokenizer, questions, kind):
    answers = await asyncio.gather(*(_ask(guarded, render(tokenizer, q), output_kind=kind) for q in questions))
    return sum(_text(answer) == service.refusal for answer in answers) / len(questions)


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
async def test_what_needs_the_skill_is_refused_and_nothing_else(
    guarded, service, tokenizer, prompts, arithmetic, as_tenant, kind
):
    sums, others = prompts
    artifact = await guarded.means.artifacts.get(arithmetic, "skill")
    assert {one["kind"] for one in artifact.report["tried"]} == {"box", "direction"}
    _become(service, as_tenant, arithmetic)
    assert await _refused(guarded, service, tokenizer, sums[1::2], kind) > 0.8
    assert await _refused(guarded, service, tokenizer, others[1::2], kind) < 0.05
    assert await _refused(guarded, service, tokenizer, ["What does arithmetic mean?"], kind) == 0


async def test_a_skill_that_is_not_compiled_fails_closed(guarded, service, tokenizer, prompts, as_tenant):
    as_tenant(TargetSpec(name="sewing", kind="skill"))
    assert await _refused(guarded, service, tokenizer, prompts[1][:2], RequestOutputKind.DELTA) == 1


def _become(service, as_tenant, target):
    from guard.types import TargetToggle

    tenant = as_tenant()
    toggle = TargetToggle(enabled=True, action="refuse")
    service.registry.write(lambda writer: writer.put_target_toggle(tenant, target.id, toggle))
