"""What must hold of any autoencoder, any text and any way in which its tokens arrive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from autoencoders import plain, target
from hypothesis import given
from hypothesis import strategies as st

from sae_features import conformal
from sae_features.clamping import clamp
from sae_features.encoding import decode, encode
from sae_features.rule import BenignRun, Tally, calibrate
from sae_features.selection import Importance, select
from sae_features.table import union
from tests.examples import examples

FLAGS = st.lists(st.booleans(), min_size=1, max_size=60)
SEEDS = st.integers(0, 2**31)
RELAXED = examples(60)


def _vectors(tokens: int, hidden: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(tokens, hidden, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def _choices(draw: st.DrawFn) -> tuple[int, int, torch.Tensor]:
    features, hidden = draw(st.integers(1, 40)), draw(st.integers(1, 24))
    ids = draw(st.lists(st.integers(0, features - 1), min_size=1, max_size=features, unique=True))
    return features, hidden, torch.tensor(ids)


@RELAXED
@given(choice=_choices(), tokens=st.integers(0, 12), seed=SEEDS)
def test_a_few_features_alone_are_those_of_the_whole(
    choice: tuple[int, int, torch.Tensor], tokens: int, seed: int
) -> None:
    features, hidden, ids = choice
    whole, x = plain(features, hidden, seed=seed, dtype=torch.float64), _vectors(tokens, hidden, seed)
    torch.testing.assert_close(encode(whole.only(ids), x), encode(whole, x)[:, ids])


@RELAXED
@given(choice=_choices(), tokens=st.integers(1, 12), seed=SEEDS, strength=st.floats(0, 1_000))
def test_the_thin_clamp_is_the_full_one(
    choice: tuple[int, int, torch.Tensor], tokens: int, seed: int, strength: float
) -> None:
    features, hidden, ids = choice
    whole, x = plain(features, hidden, seed=seed, dtype=torch.float64), _vectors(tokens, hidden, seed)
    activations = encode(whole, x)
    fires = (activations[:, ids] > 0).any(dim=1)
    changed = activations.clone()
    changed[fires.nonzero(), ids] = -strength
    expected = decode(whole, changed) + (x - decode(whole, activations))
    found = clamp(whole.only(ids), x, activations[:, ids], strength=strength)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-7)
    assert torch.equal(found[~fires], x[~fires])


@given(says=FLAGS, cuts=st.lists(st.integers(0, 60), max_size=6), replay=st.integers(0, 60))
def test_how_a_request_is_cut_into_chunks_does_not_matter(says: list[bool], cuts: list[int], replay: int) -> None:
    whole, tally, start = Tally().add(says, 0), Tally(), 0
    for cut in sorted(min(cut, len(says)) for cut in [*cuts, len(says)]):
        tally = tally.add(says[start:cut], start)
        start = cut
        tally = tally.add(says[: min(replay, cut)], 0)  # preempted, and computed anew as far as that
    assert tally == whole
    assert whole.total == sum(says[1:]) and whole.unseen == 0
    assert 0 <= whole.mean <= 1


@given(says=FLAGS, cached=st.integers(0, 60))
def test_what_was_not_offered_is_unseen(says: list[bool], cached: int) -> None:
    tally = Tally().add(says[cached:], cached) if cached < len(says) else Tally()
    assert tally.tokens + tally.unseen == max(0, tally.position - 1)


@given(
    scores=st.lists(st.floats(-10, 10), min_size=1, max_size=80),
    rate=st.floats(0.01, 0.9),
)
def test_a_conformal_threshold_is_exceeded_as_often_as_it_says(scores: list[float], rate: float) -> None:
    """Leave each of some scores out in turn: at most ``rate`` of them exceed the threshold of the others."""
    if not conformal.enough(len(scores) - 1, rate):
        with pytest.raises(ValueError):
            conformal.quantile(scores[1:], rate)
        return
    above = [score > conformal.quantile(scores[:i] + scores[i + 1 :], rate) for i, score in enumerate(scores)]
    assert sum(above) <= rate * len(scores) + 1e-9


@RELAXED
@given(
    runs=st.lists(st.tuples(FLAGS, st.integers(1, 60)), min_size=4, max_size=40),
    rate=st.sampled_from([0.2, 0.5]),
    edges=st.lists(st.integers(2, 50), max_size=4, unique=True).map(sorted),
)
def test_thresholds_are_kept_by_the_text_they_came_from(
    runs: list[tuple[list[bool], int]], rate: float, edges: list[int]
) -> None:
    benign = [BenignRun(np.array(says), min(prompt, len(says))) for says, prompt in runs]
    asked = [run for run in benign if len(run.says) > 1]
    if not conformal.enough(len(asked), rate):
        with pytest.raises(ValueError):
            calibrate(benign, rate, edges)
        return
    thresholds = calibrate(benign, rate, edges)
    assert set(thresholds.edges) <= set(edges) and len(thresholds.means) == len(thresholds.edges) + 1
    assert all(0 <= mean <= 1 for mean in thresholds.means)
    for bucket in range(len(thresholds.means)):
        tallies = [Tally().add(run.says[: run.prompt], 0) for run in asked]
        here = [t for t in tallies if t.tokens and int(np.searchsorted(thresholds.edges, t.tokens, "right")) == bucket]
        passing = [run for run in asked if _passes(run, bucket, thresholds.edges)]
        assert sum(thresholds.exceeded(tally) for tally in here) <= rate * (len(passing) + 1)


def _passes(run: BenignRun, bucket: int, edges: tuple[int, ...]) -> bool:
    first, last = max(1, run.prompt - 1), len(run.says) - 1
    low, high = (int(np.searchsorted(edges, tokens, "right")) for tokens in (first, last))
    return low <= bucket <= high


@RELAXED
@given(seed=SEEDS, features=st.integers(1, 50), n=st.integers(1, 20), percentile=st.floats(0, 100))
def test_selected_features_fire_on_the_targets_text(seed: int, features: int, n: int, percentile: float) -> None:
    forget, retain = Importance(features), Importance(features)
    forget.add(_vectors(5, features, seed).relu() * (_vectors(1, features, seed + 1) > 0))
    retain.add(_vectors(5, features, seed + 2).relu())
    ids = select(forget, retain, n=n, ratio_percentile=percentile)
    assert len(ids) == len(set(ids.tolist())) <= n
    assert (forget.mean_square[ids] > 0).all()
    assert (forget.mean_square[ids].diff() <= 0).all()


@RELAXED
@given(
    targets=st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=8, unique=True), min_size=1, max_size=5),
    seed=SEEDS,
)
def test_a_table_holds_every_feature_once_and_every_membership(targets: list[list[int]], seed: int) -> None:
    whole = plain(20, 6, seed=seed, dtype=torch.float64)
    table = union([target(whole.only(torch.tensor(ids))) for ids in targets])
    assert table.features.ids.tolist() == sorted({one for ids in targets for one in ids})
    for ids, member in zip(targets, table.member, strict=True):
        assert table.features.ids[member].tolist() == sorted(ids)
    x = _vectors(4, 6, seed)
    torch.testing.assert_close(encode(table.features, x), encode(whole, x, table.features.ids))
