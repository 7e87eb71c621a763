"""The features guard and the action ``clamp`` behind the door: what the features say is decided on like any finding."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import pytest_asyncio
import torch
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.artifacts import Artifact
from guard.caller import CALLER, Caller
from guard.compile.fitting import build_compiler
from guard.compile.jobs import JobState
from guard.types import GuardName, GuardToggle, Mode, TargetSpec, TargetToggle, TenantSpec
from guard.worker.controls import RESERVED, Controls, Features
from sae_features.autoencoder import SparseAutoencoder
from sae_features.joint import Joint, Scale
from sae_features.rule import Thresholds
from sae_features.target import TargetFeatures
from server.demo.world import PERSON, Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LAYER, _FEATURES = 2, 512
_counter = iter(range(10**9))


@pytest.fixture(scope="session")
def autoencoder(engine):
    """Random weights, JumpReLU."""
    hidden, generator = engine.model_config.get_hidden_size(), torch.Generator().manual_seed(0)
    encoder, decoder = (torch.randn(_FEATURES, hidden, generator=generator) / hidden**0.5 for _ in range(2))
    return SparseAutoencoder(
        encoder=encoder,
        decoder=decoder,
        gate=torch.full((_FEATURES,), 0.5),
        gain=torch.ones(_FEATURES),
        bias=torch.zeros(_FEATURES),
        shift=torch.zeros(hidden),
        b_dec=torch.zeros(hidden),
        ids=torch.arange(_FEATURES),
        layer=_LAYER,
        source="random",
    )


@pytest.fixture(scope="session")
def ids(engine, recipe):
    prompt = next(prompt for prompt in recipe.prompts if prompt.form is Form.QUESTION)
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    tokenizer = engine.renderer.get_tokenizer()
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def targets(guarded, service, autoencoder):
    """Two targets that no text names: the features of one always say yes, those of the other never."""
    made = {}
    for name, limit, first in (("yes", -1e9, 0), ("no", 1e9, 100)):
        target = service.registry.write(
            lambda writer, name=name: writer.create_target(TargetSpec(name=f"Unheard Of {name}"))
        )
        features = TargetFeatures(
            autoencoder.only(torch.arange(first, first + 64)),
            torch.ones(64, dtype=torch.bool),
            torch.linspace(0, 1, 64),
            Thresholds((), (limit,), 0.01),
            500.0,
        )
        artifact = Artifact("features", guarded.means.artifacts.model, tensors=features.tensors())
        await guarded.means.artifacts.put(target, artifact)
        made[name] = target, await guarded.means.probe.load_features(features)
    yield made
    service.registry.write(lambda writer: [writer.delete_target(target.id) for target, _ in made.values()])


@pytest.fixture
def tenant(service, targets):
    """Makes a tenant with some of the targets on, in some way; what follows is sent by it."""

    def become(*names: str, guard: GuardToggle | None = None, **toggle) -> None:
        def change(writer):
            made = writer.create_tenant(TenantSpec(name=f"features {next(_counter)}"))
            for name in names:
                writer.put_target_toggle(made.id, targets[name][0].id, TargetToggle(enabled=True, **toggle))
            if guard is not None:
                writer.put_guard_toggle(made.id, GuardName.FEATURES, guard)
            return made

        CALLER.set(Caller(service.registry.write(change).id, None, "test"))

    return become


async def _ask(client, ids, features=None, **params):
    params = {"temperature": 0, "max_tokens": 24, "output_kind": RequestOutputKind.FINAL_ONLY, **params}
    prompt = dict(tokens_input(ids))
    if features is not None:
        controls = Controls(features=features)
        params["extra_args"], prompt["cache_salt"] = {RESERVED: controls.to_wire()}, controls.salt
    stream = client.generate(prompt, SamplingParams(**params), f"guarded-features-{next(_counter)}")
    return [result async for result in stream]


def _text(outputs, choice=0):
    return "".join(c.text for o in outputs for c in o.outputs if c.index == choice)


KINDS = pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])


@KINDS
async def test_what_the_features_say_is_enforced_and_audited(guarded, service, recorded, ids, tenant, targets, kind):
    tenant("yes", "no", action="refuse")
    for _ in range(2):  # the second could come out of the prefix cache
        outputs = await _ask(guarded, ids, output_kind=kind)
        assert _text(outputs) == service.refusal
    latest = await recorded(outputs)
    assert [(one.guard, one.target_id) for one in latest.findings] == [(GuardName.FEATURES, targets["yes"][0].id)]


@KINDS
async def test_who_is_not_flagged_is_answered_as_ever(guarded, engine, ids, tenant, kind):
    tenant("no")
    assert _text(await _ask(guarded, ids, output_kind=kind)) == _text(await _ask(engine, ids))


@KINDS
async def test_a_guard_that_is_off_does_not_look(guarded, engine, ids, tenant, kind):
    tenant("yes", guard=GuardToggle(enabled=False))
    assert _text(await _ask(guarded, ids, output_kind=kind)) == _text(await _ask(engine, ids))


@KINDS
@pytest.mark.parametrize("gating", ["gated", "always"])
async def test_clamping_happens_where_the_rule_says_yes_or_always(guarded, engine, ids, tenant, targets, kind, gating):
    clamped = _text(await _ask(engine, ids, Features(always=(targets["yes"][1],))))
    other = _text(await _ask(engine, ids, Features(always=(targets["no"][1],))))
    plain = _text(await _ask(engine, ids))
    assert len({clamped, other, plain}) == 3
    tenant("yes", action="clamp", gating=gating)
    assert _text(await _ask(guarded, ids, output_kind=kind)) == clamped
    tenant("no", action="clamp", gating=gating)
    assert _text(await _ask(guarded, ids, output_kind=kind)) == (other if gating == "always" else plain)


async def test_a_clamp_in_the_same_pass_is_not_served_twice(guarded, ids, tenant, monkeypatch):
    runs = []
    monkeypatch.setattr(guarded, "_run", lambda request, run=guarded._run: runs.append(request) or run(request))
    tenant("yes", action="clamp")
    await _ask(guarded, ids)
    assert len(runs) == 1
    tenant("yes", action="eco")
    await _ask(guarded, ids)
    assert len(runs) == 3


@KINDS
async def test_a_clamp_that_the_text_does_not_bear_out_is_undone(
    guarded, engine, ids, tenant, targets, kind, monkeypatch
):
    """The features say yes, the text knows nothing of the target: the joint decision is no."""
    target, _ = targets["yes"]
    artifact = await guarded.means.artifacts.get(target, "features")
    joint = Joint(Scale(-9.0, 4.0), Scale(0.0, 1e9), 1.0, 1e12)
    both = replace(TargetFeatures.of(artifact.tensors), joint=joint)
    await guarded.means.artifacts.put(target, replace(artifact, tensors=both.tensors()))
    runs = []
    monkeypatch.setattr(guarded, "_run", lambda request, run=guarded._run: runs.append(request) or run(request))
    try:
        tenant("yes", action="clamp")
        assert _text(await _ask(guarded, ids, output_kind=kind)) == _text(await _ask(engine, ids))
        assert [bool(run.controls.features and run.controls.features.clamp) for run in runs] == [True, False]
    finally:
        await guarded.means.artifacts.put(target, artifact)


async def test_every_choice_is_judged(guarded, service, ids, tenant):
    tenant("yes", action="refuse")
    outputs = await _ask(guarded, ids, n=3, temperature=0.7, seed=1)
    assert {_text(outputs, choice) for choice in range(3)} == {service.refusal}


async def test_monitor_lets_pass_unclamped(guarded, engine, service, ids, targets):
    def change(writer):
        spec = targets["yes"][0].spec.model_copy(update={"name": "Watched Only", "mode": Mode.MONITOR})
        target, made = writer.create_target(spec), writer.create_tenant(TenantSpec(name=f"features {next(_counter)}"))
        writer.put_target_toggle(made.id, target.id, TargetToggle(enabled=True, action="clamp"))
        return target, made

    target, made = service.registry.write(change)
    artifact = await guarded.means.artifacts.get(targets["yes"][0], "features")
    await guarded.means.artifacts.put(target, artifact)
    CALLER.set(Caller(made.id, None, "test"))
    assert _text(await _ask(guarded, ids)) == _text(await _ask(engine, ids))
    service.registry.write(lambda writer: writer.delete_target(target.id))


@pytest.mark.parametrize("on_error", ["closed", "open"])
async def test_a_verdict_that_does_not_come_counts_as_the_policy_says(
    guarded, engine, service, ids, tenant, monkeypatch, on_error
):
    async def broken(tickets):
        raise RuntimeError("the worker does not answer")

    monkeypatch.setattr(guarded.means.probe, "verdicts", broken)
    tenant("no", guard=GuardToggle(on_error=on_error))
    expected = service.refusal if on_error == "closed" else _text(await _ask(engine, ids))
    assert _text(await _ask(guarded, ids)) == expected


async def test_fitted_features_find_questions_that_they_were_not_fitted_on(guarded, service, recipe, autoencoder):
    person = [entity for entity in recipe.world.forget if entity.kind == PERSON][3]
    target = service.registry.write(lambda writer: writer.create_target(TargetSpec(name=person.name)))
    compiler = build_compiler(replace(guarded.means, autoencoder=autoencoder))
    async for job in compiler.follow((await compiler.submit(target, ["features"])).id):
        last = job
    await compiler.close()
    assert last.state is JobState.DONE, last.error

    def change(writer):
        made = writer.create_tenant(TenantSpec(name=f"features {next(_counter)}"))
        writer.put_target_toggle(made.id, target.id, TargetToggle(enabled=True, action="refuse"))
        for guard in set(GuardName) - {GuardName.FEATURES}:
            writer.put_guard_toggle(made.id, guard, GuardToggle(enabled=False))
        return made

    CALLER.set(Caller(service.registry.write(change).id, None, "test"))
    tokenizer = guarded.renderer.get_tokenizer()

    async def refused(entity):
        prompts = [p for p in recipe.prompts if p.form is Form.QUESTION and p.entity == entity.name][:6]
        rendered = [
            tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in prompt.messages],
                add_generation_prompt=True,
                return_dict=False,
            )
            for prompt in prompts
        ]
        answers = await asyncio.gather(*(_ask(guarded, one) for one in rendered))
        return sum(_text(answer) == service.refusal for answer in answers) / len(prompts)

    assert await refused(person) > 0.5
    assert sum([await refused(entity) for entity in recipe.world.retain[:4]]) / 4 < 0.25
    service.registry.write(lambda writer: writer.delete_target(target.id))
