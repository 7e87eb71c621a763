"""The worker's skills: one key of a request is judged, whatever the chunks, beside and without features."""

from __future__ import annotations

import pytest
import torch
from autoencoders import plain, residual, target
from safetensors.torch import load, save

from guard.worker.batch import Stretch
from guard.worker.controls import Controls, Features
from guard.worker.features import FeatureTaps
from sae_features.skills import KeyBox, KeyDirection, SkillKeys

LAYER, D = 1, 12
DIRECTION = SkillKeys(LAYER, KeyDirection(torch.arange(D).float(), -2.0, 30.0))
BOX = SkillKeys(LAYER, KeyBox(torch.ones(D), torch.full((D,), 0.5), -2.0))
NEVER = SkillKeys(LAYER + 1, KeyDirection(torch.ones(D), 0.0, 1e9))


def _taps(**skills: SkillKeys) -> FeatureTaps:
    taps = FeatureTaps()
    for name, one in skills.items():
        taps.skills.add(name, save(one.tensors()))
    return taps


def _step(taps: FeatureTaps, keys: torch.Tensor, *stretches: Stretch, prompt: int = 6) -> None:
    taps.begin(stretches, lambda _: prompt)
    for layer in (LAYER, LAYER + 1):
        taps.skills.see(keys, layer, taps.ledger)
    taps.end()
    taps.skills.see(torch.full_like(keys, torch.nan), LAYER, taps.ledger)


@pytest.mark.parametrize("one", [DIRECTION, BOX])
def test_a_skill_survives_the_way_to_the_worker(one: SkillKeys) -> None:
    again = SkillKeys.of(load(save(one.tensors())))
    keys = torch.randn(9, D)
    assert (again.layer, again.kind, again.detector.threshold) == (one.layer, one.kind, one.detector.threshold)
    assert torch.equal(again.detector.scores(keys), one.detector.scores(keys))


@pytest.mark.parametrize("opening", [5, 3])
@pytest.mark.parametrize("chunks", [[6], [4, 2], [1, 1, 1, 1, 1, 1], [6, 1, 1], [3, 3]])
def test_the_key_of_the_opening_is_judged_whatever_the_chunks(chunks: list[int], opening: int) -> None:
    taps = _taps(direction=DIRECTION, box=BOX, never=NEVER)
    names = ("direction", "box", "never")
    controls = Controls(features=Features(skills=names, opening=opening, ticket="t"))
    keys = 1 + torch.randn(8, D, generator=torch.Generator().manual_seed(3)) / 4
    position, since = 0, -1
    for count in chunks:
        before = torch.full((2, D), 100.0)  # of another request in the batch
        stretch = Stretch("r", controls, 2, position, count)
        _step(taps, torch.cat([before, keys[position : position + count]]), stretch)
        since = position if position <= opening < position + count else since
        position += count
    (told,) = taps.ledger.take(["t"])
    assert told is not None
    for name, one in zip(names, (DIRECTION, BOX, NEVER), strict=True):
        score = float(one.detector.scores(keys[opening : opening + 1]))
        flagged = score > one.detector.threshold
        assert told[name].mean == pytest.approx(score)
        assert (told[name].flagged, told[name].since) == (flagged, since if flagged else -1)
    assert told["direction"].flagged and told["box"].flagged and not told["never"].flagged


def test_there_is_no_verdict_before_the_prompt_is_read_nor_on_what_was_not_seen() -> None:
    taps = _taps(box=BOX)
    keys = torch.ones(6, D)
    late = Controls(features=Features(skills=("box",), opening=5, ticket="late"))
    _step(taps, keys, Stretch("late", late, 0, 0, 4))
    assert taps.ledger.take(["late"]) == [None]
    # The prefix cache holds all but the last token: enough for a skill, if that is the one that is judged.
    cached = [Controls(features=Features(skills=("box",), opening=at, ticket=f"cached-{at}")) for at in (5, 3)]
    _step(taps, keys, *(Stretch(one.features.ticket, one, row, 5, 1) for row, one in enumerate(cached)))
    seen, unseen = taps.ledger.take(["cached-5", "cached-3"])
    assert seen is not None and seen["box"].flagged
    assert unseen is None


def test_features_beside_a_skill_still_want_all_tokens() -> None:
    taps = _taps(box=BOX)
    taps.add("set", save(target(plain().only(torch.arange(3))).tensors()))
    for name, start in (("whole", 0), ("cached", 4)):
        controls = Controls(features=Features(watch=("set",), skills=("box",), opening=5, ticket=name))
        stretch = Stretch(name, controls, 0, start, 6 - start)
        taps.begin([stretch], lambda _: 6)
        taps.see(residual(6 - start), torch.zeros_like(residual(6 - start)), plain().layer)
        taps.skills.see(torch.ones(6 - start, D), LAYER, taps.ledger)
        taps.end()
    whole, cached = taps.ledger.take(["whole", "cached"])
    assert whole is not None and whole.keys() == {"set", "box"} and whole["box"].flagged
    assert cached is None


def test_unknown_skills_are_named_and_forgotten_ones_unknown() -> None:
    taps = _taps(box=BOX)
    taps.check(Features(skills=("box",)))
    taps.skills.discard("box")
    with pytest.raises(KeyError, match="box"):
        taps.check(Features(skills=("box",)))
    taps.skills.discard("box")


def test_the_slices_of_the_ranks_are_joined() -> None:
    half = torch.full((4, D // 2), 1.0)
    taps = FeatureTaps(gather=lambda keys: torch.cat([keys, torch.full_like(keys, 3.0)], dim=1))
    taps.skills.add("direction", save(DIRECTION.tensors()))
    controls = Controls(features=Features(skills=("direction",), opening=3, ticket="t"))
    _step(taps, half, Stretch("r", controls, 0, 0, 4), prompt=4)
    (told,) = taps.ledger.take(["t"])
    whole = torch.cat([half[:1], torch.full((1, D // 2), 3.0)], dim=1)
    assert told is not None and told["direction"].mean == pytest.approx(float(DIRECTION.detector.scores(whole)))


@pytest.mark.parametrize(
    ("features", "blinded"),
    [
        (Features(skills=("s",), opening=9, ticket="t"), False),
        (Features(skills=("s",), opening=7, ticket="t"), True),
        (Features(skills=("s",), watch=("w",), opening=9, ticket="t"), True),
        (Features(clamp=("w",), ticket="t"), True),
        (Features(always=("w",)), False),
    ],
)
def test_who_may_read_the_prefix_cache(features: Features, blinded: bool) -> None:
    assert features.blinded_by_cache(10) is blinded
