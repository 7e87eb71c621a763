"""The worker part against transformers: same activations, same corruption, same edits, in mixed batches too."""

from __future__ import annotations

import asyncio

import pytest
import torch
from safetensors.torch import load
from transformers import AutoModelForCausalLM
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.kernels.corruption import corrupt
from guard.methods.edit import Edit, RankOne
from guard.probe import EngineProbe
from guard.worker.controls import RESERVED, Controls, Corruption, Starts, mlp_input, residual
from server.demo.world import Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LAYER = 2


@pytest.fixture(scope="session")
def oracle(engine):
    """The same weights in transformers, float32."""
    return AutoModelForCausalLM.from_pretrained(engine.model_config.model, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def prompts(engine, recipe):
    """Six rendered questions."""
    tokenizer = engine.renderer.get_tokenizer()
    questions = [prompt for prompt in recipe.prompts if prompt.form is Form.QUESTION][::97][:6]
    return [
        tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in prompt.messages],
            add_generation_prompt=True,
            return_dict=False,
        )
        for prompt in questions
    ]


@pytest.fixture(scope="session")
def probe(engine):
    return EngineProbe(engine)


_counter = iter(range(10**9))


async def _ask(engine, ids, controls=None, **params):
    params = {"temperature": 0, "max_tokens": 12, "output_kind": RequestOutputKind.FINAL_ONLY, **params}
    prompt = dict(tokens_input(ids))
    if controls is not None:
        params["extra_args"] = {RESERVED: controls.to_wire()}
        prompt["cache_salt"] = controls.salt
    stream = engine.generate(prompt, SamplingParams(**params), f"worker-{next(_counter)}")
    return [result async for result in stream][-1]


def _greedy(oracle, ids, count=12):
    output = oracle.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    return output[0, len(ids) :].tolist()


def _tokens(result):
    return list(result.outputs[0].token_ids)


async def test_activations_are_those_of_transformers(oracle, probe, prompts):
    sites = [mlp_input(_LAYER), residual(_LAYER)]
    captured = await probe.activations(prompts, sites)
    layer = oracle.model.layers[_LAYER]
    for ids, mine in zip(prompts, captured, strict=True):
        seen = {}
        hooks = [
            layer.mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.update({sites[0]: args[0][0]})),  # noqa: B023
            layer.register_forward_hook(
                lambda _, __, out: seen.update({sites[1]: (out[0] if isinstance(out, tuple) else out)[0]})  # noqa: B023
            ),
        ]
        with torch.inference_mode():
            oracle(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        for site in sites:
            assert mine[site].shape == seen[site].shape
            torch.testing.assert_close(mine[site], seen[site], atol=1e-4, rtol=1e-4)


async def test_edits_hold_for_their_requests_only_and_equal_edited_weights(engine, oracle, probe, prompts):
    captured = await probe.activations(prompts, [mlp_input(_LAYER)])
    edits = []
    for index, mine in enumerate(captured[:3]):
        key = mine[mlp_input(_LAYER)].mean(0)
        value = torch.randn(oracle.config.hidden_size, generator=torch.Generator().manual_seed(index))
        edits.append(Edit({_LAYER: (RankOne(key / key.dot(key), 1000 * value),), 0: (RankOne(key * 0.01, value),)}))
    names = [await probe.load(edit) for edit in edits]
    chosen = [(), (names[0],), (names[1],), (names[0], names[2]), (names[2],), ()]

    async def ask(ids, mine):
        return await _ask(engine, ids, Controls(edits=mine) if mine else None)

    together = await asyncio.gather(*(ask(ids, mine) for ids, mine in zip(prompts, chosen, strict=True)))
    changed = 0
    for ids, mine, result in zip(prompts, chosen, together, strict=True):
        plain = _greedy(oracle, ids)
        applied = [edit for name, edit in zip(names, edits, strict=True) if name in mine]
        _apply(oracle, applied, 1)
        assert _tokens(result) == _greedy(oracle, ids)
        _apply(oracle, applied, -1)
        changed += _tokens(result) != plain
        alone = await ask(ids, mine)
        assert _tokens(alone) == _tokens(result)
        if not mine:
            assert _tokens(result) == plain
    assert changed == 4


async def test_value_vectors_are_columns_of_the_weight(oracle, probe):
    dims = [3, 0, oracle.config.intermediate_size - 1]
    weight = oracle.model.layers[_LAYER].mlp.down_proj.weight
    torch.testing.assert_close(await probe.value_vectors(_LAYER, dims), weight.data.T[dims], atol=1e-6, rtol=1e-5)


async def test_an_edit_with_a_floor_is_the_same_switch_in_transformers(engine, oracle, probe, prompts):
    ids = prompts[0]
    (captured,) = await probe.activations([ids], [mlp_input(_LAYER)])
    inputs = captured[mlp_input(_LAYER)]
    key = inputs.mean(0) / inputs.mean(0).square().sum()
    value = 1000 * torch.randn(oracle.config.hidden_size, generator=torch.Generator().manual_seed(0))
    # In the middle of the widest gap beneath the last token's score, so that rounding decides nothing.
    scores = inputs @ key
    beneath = scores[scores <= scores[-1]].sort().values
    widest = int((beneath[1:] - beneath[:-1]).argmax())
    floor = float(beneath[widest] + beneath[widest + 1]) / 2

    def switch(_, args, out):
        return out + (args[0] @ key >= floor).float()[..., None] * value

    name = await probe.load(Edit({_LAYER: (RankOne(key, value, floor),)}))
    plain = _greedy(oracle, ids)
    hook = oracle.model.layers[_LAYER].mlp.down_proj.register_forward_hook(switch)
    expected = _greedy(oracle, ids)
    hook.remove()
    assert _tokens(await _ask(engine, ids, Controls(edits=(name,)))) == expected != plain


async def test_a_switch_that_is_always_on_acts_only_where_answers_begin(engine, oracle, probe, prompts):
    ids, starts = prompts[0], Starts((3, len(prompts[0]) - 1))
    value = 1000 * torch.randn(oracle.config.hidden_size, generator=torch.Generator().manual_seed(0))

    def switch(_, args, out):
        if out.shape[1] == len(ids):  # the prompt, and no token of the answer
            out = out.clone()
            out[:, [3, len(ids) - 1]] += value
        return out

    nothing = torch.zeros(oracle.config.intermediate_size)
    name = await probe.load(Edit({_LAYER: (RankOne(nothing, value, -1.0),)}))
    plain = _greedy(oracle, ids)
    hook = oracle.model.layers[_LAYER].mlp.down_proj.register_forward_hook(switch)
    expected = _greedy(oracle, ids)
    hook.remove()
    everywhere = _tokens(await _ask(engine, ids, Controls(edits=(name,))))
    assert _tokens(await _ask(engine, ids, Controls(edits=(name,), starts=starts))) == expected
    assert len({tuple(one) for one in (plain, expected, everywhere)}) == 3


async def test_a_probe_that_fails_stops_the_others_and_leaves_nothing_in_the_worker(
    engine, probe, prompts, monkeypatch
):
    given = []

    def token_hex(_):
        given.append(f"name-{len(given)}")
        return given[-1]

    monkeypatch.setattr("guard.probe.secrets.token_hex", token_hex)
    with pytest.raises(Exception, match="length"):
        await probe.activations([*prompts, [5] * 100_000], [mlp_input(_LAYER)])
    assert engine.get_num_unfinished_requests() == 0
    (left,) = await engine.collective_rpc("lethe_take_captures", args=(given,))
    assert load(left) == {}


def _apply(oracle, edits, sign):
    for edit in edits:
        for layer in edit.layers:
            oracle.model.layers[layer].mlp.down_proj.weight.data += sign * edit.delta(layer)


@pytest.mark.parametrize(("kind", "dims", "strength"), [("noise", 64, 3.0), ("zero", 100, 0.0), ("flip", 256, 0.0)])
async def test_corruption_is_that_of_transformers_and_stays_out_of_the_cache(
    engine, oracle, prompts, kind, dims, strength
):
    embed = oracle.get_input_embeddings()
    spread = float(embed(torch.arange(1024)).detach().std())
    ids = prompts[0]
    span = (2, len(ids) - 1)
    controls = Controls(corruption=Corruption(kind, dims, strength, 11, (span,)))
    with torch.inference_mode():
        embedded = embed(torch.tensor(ids))
        positions = list(range(*span))
        embedded[positions] = corrupt(embedded[positions], positions, kind, dims, strength * spread, 11)
        expected = torch.log_softmax(oracle(inputs_embeds=embedded[None]).logits[0], -1)
        clean = torch.log_softmax(oracle(torch.tensor([ids])).logits[0], -1)
    assert (expected - clean).abs().max() > 1  # else the rest would show nothing

    # Alternately, so that either would meet what the other left in the prefix cache.
    for turn in range(4):
        corrupting = turn % 2 == 1
        result = await _ask(engine, ids, controls if corrupting else None, prompt_logprobs=0, max_tokens=1)
        wanted = expected if corrupting else clean
        for position in range(1, len(ids)):
            told = result.prompt_logprobs[position][ids[position]].logprob
            assert told == pytest.approx(wanted[position - 1, ids[position]].item(), abs=1e-4)
    long = [await _ask(engine, ids, mine) for mine in (None, controls, None, controls)]
    assert _tokens(long[0]) == _tokens(long[2]) == _greedy(oracle, ids)
    assert _tokens(long[1]) == _tokens(long[3])


async def test_chunked_prefill_corrupts_alike(engine, prompts):
    ids = [token for prompt in prompts * 8 for token in prompt][:500]  # the engine takes 512 tokens a step
    controls = Controls(corruption=Corruption("noise", 64, 3.0, 5, ((1, 499),)))
    alone = await _ask(engine, ids, controls, prompt_logprobs=0, max_tokens=1)
    busy = await asyncio.gather(
        *(_ask(engine, p, max_tokens=20) for p in prompts), _ask(engine, ids, controls, prompt_logprobs=0, max_tokens=1)
    )
    for one, other in zip(alone.prompt_logprobs[1:], busy[-1].prompt_logprobs[1:], strict=True):
        token = next(iter(one))
        assert other[token].logprob == pytest.approx(one[token].logprob, abs=1e-4)


async def test_a_request_for_an_unknown_edit_is_blinded(engine, oracle, prompts):
    blinded = [await _ask(engine, ids, Controls(edits=("no-such-edit",))) for ids in prompts[:2]]
    assert _tokens(blinded[0]) == _tokens(blinded[1])  # nothing of the question is left
    assert _tokens(blinded[0]) != _greedy(oracle, prompts[0])


async def test_seeded_sampling_does_not_depend_on_how_the_prompt_is_cut(engine, prompts):
    """vLLM 0.32 on a CPU dies of a seeded request whose prompt is computed in several steps."""
    long = [(prompts[0] * 40)[-500 + number :] for number in range(3)]  # together more than one step computes
    sampled = {"temperature": 1.0, "seed": 5, "skip_reading_prefix_cache": True}
    alone = [(await _ask(engine, ids, **sampled)).outputs[0].token_ids for ids in long]
    together = await asyncio.gather(*(_ask(engine, ids, **sampled) for ids in long))
    assert [result.outputs[0].token_ids for result in together] == alone
