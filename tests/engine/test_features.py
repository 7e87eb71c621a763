"""Features in the engine's forward pass against a transformers model with hooks: the same verdicts, the same logits."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.probe import EngineProbe
from guard.worker.controls import RESERVED, Controls, Features
from sae_features.encoding import encode
from sae_features.loading import load
from sae_features.rule import Thresholds
from sae_features.target import TargetFeatures
from server.demo.world import Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LAYER, _FEATURES = 2, 256
_NEVER, _AT_ONCE = Thresholds((), (1e9,), 0.01), Thresholds((), (-1e9,), 0.01)
_counter = iter(range(10**9))


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
def autoencoder(oracle, tmp_path_factory):
    """A checkpoint with random weights in Gemma Scope's format, loaded from disk."""
    hidden, generator = oracle.config.hidden_size, torch.Generator().manual_seed(0)
    folder = tmp_path_factory.mktemp("gemma-scope-res") / f"layer_{_LAYER}" / "width_256" / "average_l0_20"
    folder.mkdir(parents=True)
    encoder = torch.randn(hidden, _FEATURES, generator=generator) / hidden**0.5
    decoder = torch.randn(_FEATURES, hidden, generator=generator) / hidden**0.5
    np.savez(
        folder / "params.npz",
        W_enc=encoder.numpy(),
        W_dec=decoder.numpy(),
        b_enc=torch.randn(_FEATURES, generator=generator).numpy(),
        b_dec=torch.randn(hidden, generator=generator).numpy(),
        threshold=torch.rand(_FEATURES, generator=generator).numpy(),
    )
    return load(folder)


@pytest.fixture(scope="session")
def sets(autoencoder):
    """Feature sets that share features, with either rule."""

    def of(ids, thresholds, weighed):
        features = autoencoder.only(torch.tensor(ids))
        weights = torch.linspace(-1, 1, len(ids)) if weighed else None
        return TargetFeatures(features, torch.arange(len(ids)) < 5, weights, thresholds, 2.0)

    return {
        "eager": of([3, 9, 27, 81, 200], _AT_ONCE, weighed=False),
        "never": of([9, 10, 11, 12, 13, 14, 15], _NEVER, weighed=True),
        "always": of([81, 10, 33, 44, 55], _NEVER, weighed=False),
    }


@pytest.fixture(scope="session")
def probe(engine):
    return EngineProbe(engine)


@contextmanager
def _clamping(oracle, *sets, start=1):
    """The oracle with all members of ``sets`` clamped at the tokens from ``start`` on where one of a set is active."""

    def hook(_, __, out):
        hidden = (out[0] if isinstance(out, tuple) else out)[0, start:]
        before = hidden.clone()
        clamped = torch.zeros(len(before), _FEATURES, dtype=torch.bool)
        for one in sets:
            members = one.features.only(one.member.nonzero()[:, 0])
            fired = (encode(members, before) > 0).any(1)
            clamped[:, members.ids] |= fired[:, None]
        for token, row in enumerate(clamped):
            for one in sets:
                for at, feature in enumerate(one.features.ids.tolist()):
                    if row[feature]:
                        alone = one.features.only(torch.tensor([at]))
                        a = encode(alone, before[token : token + 1])[0, 0]
                        hidden[token] += (-one.strength - a) * alone.decoder[0]
                        row[feature] = False
        return out

    handle = oracle.model.layers[_LAYER].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _residual(oracle, ids):
    seen = []
    handle = oracle.model.layers[_LAYER].register_forward_hook(
        lambda _, __, out: seen.append((out[0] if isinstance(out, tuple) else out)[0])
    )
    with torch.inference_mode():
        oracle(torch.tensor([ids]))
    handle.remove()
    return seen[0]


def _mean(oracle, ids, one):
    """What the counted tokens say on average."""
    activations = encode(one.features, _residual(oracle, ids)[1:])
    says = (activations[:, one.member] > 0).any(1).float() if one.weights is None else activations @ one.weights
    return float(says.mean())


def _greedy(oracle, ids, count=12):
    output = oracle.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, use_cache=False)
    return output[0, len(ids) :].tolist()


def _logprobs(oracle, ids):
    with torch.inference_mode():
        scores = torch.log_softmax(oracle(torch.tensor([ids])).logits[0], -1)
    return [scores[at - 1, ids[at]].item() for at in range(1, len(ids))]


def _told(results, ids):
    return [entry[token].logprob for entry, token in zip(results[-1].prompt_logprobs[1:], ids[1:], strict=True)]


async def _ask(engine, ids, features=None, **params):
    params = {"temperature": 0, "max_tokens": 12, "output_kind": RequestOutputKind.FINAL_ONLY, **params}
    prompt = dict(tokens_input(ids))
    if features is not None:
        controls = Controls(features=features)
        params["extra_args"] = {RESERVED: controls.to_wire()}
        if features.ticket:
            params["skip_reading_prefix_cache"] = True
        if controls.salt:
            prompt["cache_salt"] = controls.salt
    stream = engine.generate(prompt, SamplingParams(**params), f"features-{next(_counter)}")
    return [result async for result in stream]


def _tokens(results):
    return list(results[-1].outputs[0].token_ids)


async def test_the_verdict_is_what_the_residual_of_transformers_says(engine, oracle, probe, prompts, sets):
    names = {key: await probe.load_features(one) for key, one in sets.items()}
    watched = [tuple(names)[: 1 + number % 3] for number in range(len(prompts))]

    async def ask(number):
        features = Features(watch=tuple(names[key] for key in watched[number]), ticket=f"verdict-{next(_counter)}")
        # Every prompt is asked twice: the second meets what the first left in the prefix cache.
        told = []
        for _ in range(2):
            results = await _ask(engine, prompts[number], features)
            told += await probe.verdicts([features.ticket])
        return _tokens(results), told

    for number, (tokens, told) in enumerate(await asyncio.gather(*map(ask, range(len(prompts))))):
        assert tokens == _greedy(oracle, prompts[number])  # watching changes nothing
        read = [*prompts[number], *tokens[:-1]]
        for one in told:
            assert set(one) == {names[key] for key in watched[number]}
            for key in watched[number]:
                assert one[names[key]].mean == pytest.approx(_mean(oracle, read, sets[key]), abs=1e-4)
                assert one[names[key]].flagged is (key == "eager")
    assert await probe.verdicts(["nobody's"]) == [None]


async def test_clamping_is_that_of_transformers_in_mixed_batches(engine, oracle, probe, prompts, sets):
    names = {key: await probe.load_features(one) for key, one in sets.items()}
    chosen = [
        (None, ()),
        (Features(clamp=(names["eager"],), ticket="c1"), ("eager",)),
        (Features(clamp=(names["never"], names["eager"]), ticket="c2"), ("eager",)),
        (Features(always=(names["always"],)), ("always",)),
        (Features(watch=(names["eager"],), always=(names["always"], names["never"]), ticket="c4"), ("always", "never")),
        (Features(clamp=(names["eager"],), always=(names["always"],), ticket="c5"), ("eager", "always")),
    ]
    for turn in range(2):  # the second meets what the first left in the prefix cache
        results = await asyncio.gather(
            *(
                _ask(engine, ids, features, prompt_logprobs=0)
                for ids, (features, _) in zip(prompts, chosen, strict=True)
            )
        )
        changed = 0
        for ids, (_, acting), result in zip(prompts, chosen, results, strict=True):
            plain = _logprobs(oracle, ids)
            with _clamping(oracle, *(sets[key] for key in acting)):
                expected, answer = _logprobs(oracle, ids), _greedy(oracle, ids)
            assert _told(result, ids) == pytest.approx(expected, abs=1e-4), (turn, acting)
            assert _tokens(result) == answer
            changed += max(abs(a - b) for a, b in zip(plain, expected, strict=True)) > 0.01
        assert changed == 5


async def test_a_request_that_is_clamped_leaves_nothing_to_others(engine, oracle, probe, prompts, sets):
    name = await probe.load_features(sets["eager"])
    ids = prompts[0]
    plain = _greedy(oracle, ids)
    with _clamping(oracle, sets["eager"]):
        clamped = _greedy(oracle, ids)
    for turn in range(6):
        features = Features(clamp=(name,), ticket=f"alternate-{turn}") if turn % 2 else None
        assert _tokens(await _ask(engine, ids, features)) == (clamped if turn % 2 else plain)


async def test_chunked_prefill_counts_all_and_clamps_from_the_last_chunk_on(engine, oracle, probe, prompts, sets):
    """The engine takes 512 tokens a step: beside others, a prompt of 500 is read in pieces."""
    ids = [token for prompt in prompts * 20 for token in prompt][:480]
    name, always = await probe.load_features(sets["eager"]), await probe.load_features(sets["always"])
    others = [[token for prompt in prompts[k:] * 9 for token in prompt][: 150 + k] for k in range(4)]
    results = await asyncio.gather(
        *(_ask(engine, other, max_tokens=20) for other in others),
        *(_ask(engine, ids, Features(always=(always,)), max_tokens=1, prompt_logprobs=0) for _ in range(2)),
        *(
            _ask(engine, ids, Features(clamp=(name,), ticket=f"chunk-{k}"), max_tokens=1, prompt_logprobs=0)
            for k in range(3)
        ),
    )
    with _clamping(oracle, sets["always"]):
        expected = _logprobs(oracle, ids)
    for result in results[4:6]:
        assert _told(result, ids) == pytest.approx(expected, abs=1e-4)
    told = [one[name] for one in await probe.verdicts([f"chunk-{k}" for k in range(3)])]
    for one, result in zip(told, results[6:], strict=True):
        assert one.mean == pytest.approx(_mean(oracle, ids, sets["eager"]), abs=1e-4)
        assert one.flagged
        with _clamping(oracle, sets["eager"], start=max(one.since, 1)):
            assert _told(result, ids) == pytest.approx(_logprobs(oracle, ids), abs=1e-4)
    assert max(one.since for one in told) > 0, "no prompt was read in pieces, so this shows nothing"


async def test_a_stream_is_clamped_alike_and_its_verdict_comes_with_the_first_token(
    engine, oracle, probe, prompts, sets
):
    name = await probe.load_features(sets["eager"])
    features = Features(clamp=(name,), ticket="stream")
    stream = _stream(engine, prompts[1], features)
    first = await anext(stream)
    (told,) = await probe.verdicts(["stream"])
    assert told[name].flagged and told[name].since == 0
    tokens = [*first, *[token async for some in stream for token in some]]
    with _clamping(oracle, sets["eager"]):
        assert tokens == _greedy(oracle, prompts[1])


async def _stream(engine, ids, features):
    controls = Controls(features=features)
    params = SamplingParams(
        temperature=0,
        max_tokens=12,
        output_kind=RequestOutputKind.DELTA,
        extra_args={RESERVED: controls.to_wire()},
        skip_reading_prefix_cache=True,
    )
    prompt = {**tokens_input(ids), "cache_salt": controls.salt}
    async for result in engine.generate(prompt, params, f"features-{next(_counter)}"):
        yield list(result.outputs[0].token_ids)


@pytest.mark.parametrize("clamp", [(), ("no-such-set",)])
async def test_a_request_for_unknown_features_is_not_answered_and_leaves_nothing_to_others(
    engine, oracle, probe, prompts, clamp
):
    features = Features(watch=("no-such-set",), clamp=clamp, ticket="unknown")
    # Whole blocks of the prefix cache, which no other test has computed.
    prompts = [[len(clamp) + 5, number + 5, *(ids * 20)[:300]] for number, ids in enumerate(prompts[:2])]
    left = [_tokens(await _ask(engine, ids, features)) for ids in prompts]
    assert left[0] == left[1] != _greedy(oracle, prompts[0])
    assert await probe.verdicts(["unknown"]) == [None]
    for ids in prompts:
        after = [await _ask(engine, ids, logprobs=0, skip_reading_prefix_cache=skip) for skip in (False, True)]
        cached, anew = [one[-1].outputs[0].logprobs[0][_tokens(one)[0]].logprob for one in after]
        assert cached == pytest.approx(anew, abs=1e-4)
        assert _tokens(after[0]) == _greedy(oracle, ids)


async def test_a_request_that_is_not_answered_ends_whatever_its_client_wants(engine, prompts):
    features = Features(watch=("no-such-set",), ticket="unknown")
    [*_, last] = await _ask(engine, prompts[0], features, min_tokens=4, logprobs=2, temperature=1.0)
    assert last.outputs[0].text == ""
