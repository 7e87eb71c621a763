"""The worker's features: counted by position, decided on the device, clamped for whom it is asked, told once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from autoencoders import plain, residual
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from guard.worker.batch import Stretch
from guard.worker.controls import Controls, Features
from guard.worker.features import FeatureTaps
from sae_features.clamping import clamp
from sae_features.encoding import encode
from sae_features.rule import Tally, Thresholds
from sae_features.target import TargetFeatures

NEVER, AT_ONCE = Thresholds((), (1e9,), 0.01), Thresholds((), (-1e9,), 0.01)
LAYER = plain().layer


def _set(*ids: int, thresholds: Thresholds = AT_ONCE, weighed: bool = True) -> TargetFeatures:
    features = plain().only(torch.tensor(ids))
    weights = torch.linspace(-1, 2, len(ids)) if weighed else None
    return TargetFeatures(features, torch.arange(len(ids)) < 2, weights, thresholds, 3.0)


def _taps(**sets: TargetFeatures) -> FeatureTaps:
    taps = FeatureTaps()
    for name, one in sets.items():
        taps.add(name, save(one.tensors()))
    return taps


def _says(one: TargetFeatures, x: torch.Tensor) -> torch.Tensor:
    activations = encode(one.features, x)
    if one.weights is None:
        return (activations[:, one.member] > 0).any(1).float()
    return activations @ one.weights


def _clamped(one: TargetFeatures, x: torch.Tensor) -> torch.Tensor:
    member = one.features.only(one.member.nonzero()[:, 0])
    return clamp(member, x, encode(member, x), strength=one.strength)


def _step(taps: FeatureTaps, x: torch.Tensor, *stretches: Stretch, prompt: int = 10) -> torch.Tensor:
    """Run a step over the residual ``x``, of which half is still to be added; the residual after it."""
    hidden, rest = x / 4, 3 * x / 4
    taps.begin(stretches, lambda _: prompt)
    taps.see(hidden, rest, LAYER)
    taps.see(hidden, rest, LAYER + 1)
    taps.end()
    taps.see(hidden, rest, LAYER)
    return hidden + rest


def test_a_set_survives_the_way_to_the_worker() -> None:
    one = _set(3, 1, 80, thresholds=Thresholds((8, 16), (0.5, 0.25, 1 / 3), 0.01))
    one = replace(one, features=replace(one.features, shift=one.features.b_dec))  # as sae-lens may have it
    again = TargetFeatures.of(load(save(one.tensors())))
    assert (again.thresholds, again.strength) == (one.thresholds, one.strength)
    assert (again.features.layer, again.features.source) == (LAYER, "random")
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in one.tensors().items())


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 30), st.booleans())
def test_the_mean_does_not_depend_on_chunks_nor_on_starting_again(
    chunks: list[int], restart: int, weighed: bool
) -> None:
    one = _set(5, 6, 7, thresholds=NEVER, weighed=weighed)
    taps = _taps(one=one)
    controls = Controls(features=Features(watch=("one",), ticket="t"))
    x, total = residual(42), sum(chunks)
    position = 0
    for count in chunks:
        if position >= restart:  # preempted: all of it is computed anew
            _step(taps, x[:position], Stretch("r", controls, 0, 0, position), prompt=total)
            restart = 1000
        _step(taps, x[position : position + count], Stretch("r", controls, 0, position, count), prompt=total)
        position += count
    (told,) = taps.ledger.take(["t"])
    assert told is not None
    tally = Tally().add(_says(one, x[:total]).numpy(), 0)
    assert told["one"].mean == pytest.approx(tally.mean, abs=1e-4)
    assert (told["one"].flagged, told["one"].since) == (False, -1)


@pytest.mark.parametrize("once", [(), ("one",)])
def test_a_rule_that_is_asked_once_is_asked_at_the_end_of_the_prompt(once: tuple[str, ...]) -> None:
    limits = Thresholds((5,), (1e9, -1e9), 0.01)  # says no at the end of the prompt and yes at the answer's first token
    taps = _taps(one=_set(5, 6, 7, thresholds=limits))
    controls = Controls(features=Features(clamp=("one",), once=once, ticket="r"))
    x = residual(6)
    _step(taps, x[:5], Stretch("r", controls, 0, 0, 5), prompt=5)
    _step(taps, x[5:], Stretch("r", controls, 0, 5, 1), prompt=5)
    (told,) = taps.ledger.take(["r"])
    assert told is not None and told["one"].flagged is not bool(once)
    taps = _taps(one=_set(5, 6, 7))
    _step(taps, x[:5], Stretch("r", controls, 0, 0, 5), prompt=5)
    (told,) = taps.ledger.take(["r"])
    assert told is not None and told["one"].flagged


@pytest.mark.parametrize("clamp", [(), ("one",)])
def test_what_is_asked_once_counts_no_token_of_the_answer(clamp: tuple[str, ...]) -> None:
    """Whenever the verdict is fetched, it is the same."""
    one, other = _set(5, 6, 7, thresholds=NEVER), _set(6, 9, 11, thresholds=NEVER)
    taps = _taps(one=one, other=other)
    controls = Controls(features=Features(watch=("one", "other"), clamp=clamp, once=("one",), ticket="r"))
    x = residual(12)
    _step(taps, x[:5], Stretch("r", controls, 0, 0, 5), prompt=5)
    for at in range(5, 12):
        _step(taps, x[at : at + 1], Stretch("r", controls, 0, at, 1), prompt=5)
    (told,) = taps.ledger.take(["r"])
    assert told is not None
    assert told["one"].mean == pytest.approx(Tally().add(_says(one, x[:5]).numpy(), 0).mean, abs=1e-4)
    assert told["other"].mean == pytest.approx(Tally().add(_says(other, x).numpy(), 0).mean, abs=1e-4)


def test_only_flagged_requests_that_are_to_be_clamped_are_and_only_from_that_pass_on() -> None:
    one, other = _set(5, 6, 7), _set(6, 9, 11, thresholds=NEVER)
    taps = _taps(one=one, other=other)
    x = residual(24)
    watch = Controls(features=Features(watch=("one", "other"), ticket="w"))
    gated = Controls(features=Features(watch=("one", "other"), clamp=("one", "other"), ticket="g"))
    always = Controls(features=Features(always=("other",)))
    batch = [Stretch("w", watch, 0, 0, 6), Stretch("g", gated, 6, 0, 6), Stretch("a", always, 16, 0, 6)]
    out = _step(taps, x, *batch, prompt=12)
    expected = x.clone()
    expected[17:22] = _clamped(other, x[17:22])  # not its first token
    torch.testing.assert_close(out, expected)
    assert torch.equal(out[:16], (x / 4 + 3 * x / 4)[:16])  # the prompts are not read to their ends yet
    assert taps.ledger.take(["w", "g"]) == [None, None]

    batch = [Stretch("g", gated, 2, 6, 6), Stretch("w", watch, 8, 6, 6)]
    out = _step(taps, x, *batch, prompt=12)
    expected = x.clone()
    expected[2:8] = _clamped(one, x[2:8])
    torch.testing.assert_close(out, expected)
    told = taps.ledger.take(["w", "g"])
    assert [{name: (t.flagged, t.since) for name, t in one_told.items()} for one_told in told if one_told] == [
        {"one": (True, 6), "other": (False, -1)}
    ] * 2

    out = _step(taps, x, Stretch("g", gated, 0, 12, 1), Stretch("w", watch, 1, 12, 1), prompt=12)
    expected = x.clone()
    expected[:1] = _clamped(one, x[:1])
    torch.testing.assert_close(out, expected)


def test_sets_of_several_autoencoders_are_served_side_by_side() -> None:
    elsewhere = _set(5, 7)
    features = replace(elsewhere.features, source="another")
    sets = {
        "share": _set(5, 6, weighed=False),
        "weighed": _set(6, 7),
        "elsewhere": replace(elsewhere, features=features),
    }
    taps = _taps(**sets)
    x = residual(9)
    every = Controls(features=Features(watch=tuple(sets), ticket="t"))
    assert torch.equal(_step(taps, x, Stretch("r", every, 0, 0, 9), prompt=9), x / 4 + 3 * x / 4)
    (told,) = taps.ledger.take(["t"])
    assert told is not None
    for name, one in sets.items():
        assert told[name].mean == pytest.approx(float(_says(one, x)[1:].mean()), abs=1e-4)


def test_verdicts_outlive_the_request_and_are_told_once() -> None:
    taps = _taps(one=_set(5, 6))
    controls = Controls(features=Features(watch=("one",), ticket="t"))
    _step(taps, residual(4), Stretch("r", controls, 0, 0, 4), prompt=4)
    taps.ledger.finish("r")
    taps.ledger.finish("never seen")
    assert taps.ledger.take(["t", "unknown"])[0] is not None
    assert taps.ledger.take(["t"]) == [None]
    # What the next one finds in the cells of the last is nothing.
    again = Controls(features=Features(watch=("one",), ticket="u"))
    _step(taps, residual(1), Stretch("s", again, 0, 0, 1), prompt=1)
    (told,) = taps.ledger.take(["u"])
    assert told is not None and told["one"].mean == 0 and not told["one"].flagged


def test_one_ticket_for_several_choices_says_what_any_of_them_says() -> None:
    taps = _taps(one=_set(5, 6))
    controls = Controls(features=Features(watch=("one",), ticket="t"))
    _step(taps, residual(4), Stretch("0_r", controls, 0, 0, 4), Stretch("1_r", controls, 3, 0, 1), prompt=4)
    (told,) = taps.ledger.take(["t"])
    assert told is not None and told["one"].flagged


def test_tokens_that_were_not_seen_leave_no_verdict() -> None:
    taps = _taps(one=_set(5, 6))
    controls = Controls(features=Features(watch=("one",), ticket="t"))
    _step(taps, residual(4), Stretch("r", controls, 0, 16, 4), prompt=20)  # a hit of the prefix cache
    assert taps.ledger.take(["t"]) == [None]


def test_what_is_not_loaded_is_an_error() -> None:
    taps = _taps(one=_set(5, 6))
    taps.check(Features(watch=("one",)))
    with pytest.raises(KeyError, match="two"):
        taps.check(Features(watch=("one",), always=("two",)))
    taps.discard("one")
    with pytest.raises(KeyError, match="one"):
        taps.check(Features(clamp=("one",)))


def test_only_what_changes_the_forward_pass_is_in_the_salt() -> None:
    watching = Controls(features=Features(watch=("a",), ticket="t"))
    assert watching.salt == ""
    clamping = [Controls(features=Features(clamp=("a",), ticket=ticket)) for ticket in "tu"]
    assert len({one.salt for one in clamping}) == 1
    others = [Controls(features=Features(always=("a",))), Controls(features=Features(clamp=("b",))), watching]
    assert len({one.salt for one in (*clamping, *others)}) == 4
    both = watching | Controls(features=Features(always=("b",)))
    assert both.features == Features(watch=("a",), always=("b",), ticket="t")
