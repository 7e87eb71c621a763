"""Training with sae-lens on activations that somebody supplies: it learns, reports, stops and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from autoencoders import plain, residual

from sae_features.autoencoder import SparseAutoencoder
from sae_features.encoding import decode, encode
from sae_features.loading import load
from sae_features.quality import measure
from sae_features.training import Progress, TrainingSettings, check, train

SETTINGS = TrainingSettings(
    layer=5, width=96, k=4, tokens=51_200, batch_tokens=256, learning_rate=5e-3, checkpoint_every=20
)
Finished = tuple[SparseAutoencoder, list[Progress], Path]


def _activations(seed: int = 0, scale: float = 7.0) -> Iterator[torch.Tensor]:
    """Sums of about three of 48 directions of 32 dimensions, far from the origin, in batches of odd size."""
    directions = torch.nn.functional.normalize(torch.randn(48, 32, generator=torch.Generator().manual_seed(9)), dim=1)
    generator = torch.Generator().manual_seed(seed)
    while True:
        active = (torch.rand(333, 48, generator=generator) < 0.06) * (1 + torch.rand(333, 48, generator=generator))
        yield (scale * (active @ directions + 2)).bfloat16()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished training: its result, what it told, and its folder."""
    told: list[Progress] = []
    folder = tmp_path_factory.mktemp("autoencoder")
    return train(_activations(), SETTINGS, folder, progress=told.append), told, folder


def test_it_learns_what_the_activations_are_made_of(finished: Finished) -> None:
    trained, told, _ = finished
    found = measure(trained, islice(_activations(seed=1), 6))
    assert found.explained_variance > 0.85
    assert found.l0 == pytest.approx(SETTINGS.k, rel=0.3)
    assert found.dead < SETTINGS.width / 2
    assert (trained.layer, trained.features, trained.hidden_size) == (5, 96, 32)

    assert [one.tokens for one in told] == [256, *range(5_120, 51_201, 5_120)]
    assert told[-1].explained_variance > 0.85 > told[0].explained_variance
    assert told[-1].total == SETTINGS.tokens


def test_the_result_is_a_folder_that_loads(finished: Finished) -> None:
    trained, _, folder = finished
    x = next(_activations(seed=2)).float()
    torch.testing.assert_close(encode(load(folder), x), encode(trained, x))
    assert trained.k is None
    assert sorted(file.name for file in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    def interrupted() -> Iterator[torch.Tensor]:
        yield from islice(_activations(), 52)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        train(interrupted(), SETTINGS, tmp_path)
    told: list[Progress] = []
    trained = train(_activations(seed=3), SETTINGS, tmp_path, progress=told.append)
    assert told[0].tokens == 60 * 256  # the next after the checkpoint of step 40
    assert told[0].explained_variance > 0.5
    assert told[-1].tokens == SETTINGS.tokens
    assert measure(trained, islice(_activations(seed=1), 6)).explained_variance > 0.85


@pytest.mark.parametrize("other", [{"width": 48}, {"k": 8}, {"layer": 4}, {"k": 97}])
def test_a_training_goes_on_with_its_own_settings_alone(tmp_path: Path, other: dict[str, int]) -> None:
    checkpoint = tmp_path / "checkpoint-000000020"
    checkpoint.mkdir()
    begun = {"d_in": 32, "d_sae": 96, "k": 4, "metadata": {"hook_name": "blocks.5.hook_resid_post"}}
    (checkpoint / "cfg.json").write_text(json.dumps(begun))
    check(SETTINGS, tmp_path)
    with pytest.raises(ValueError, match=r"\d"):
        check(replace(SETTINGS, **other), tmp_path)


def test_a_damaged_checkpoint_or_one_of_another_model_is_said(tmp_path: Path) -> None:
    def interrupted() -> Iterator[torch.Tensor]:
        yield from islice(_activations(), 40)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        train(interrupted(), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="31"):
        train((batch[:, :31] for batch in _activations()), SETTINGS, tmp_path)
    (config,) = tmp_path.glob("checkpoint-*/cfg.json")
    config.write_text("{")
    with pytest.raises(ValueError, match="checkpoint-"):
        check(SETTINGS, tmp_path)


def test_it_ends_with_the_activations(tmp_path: Path) -> None:
    told: list[Progress] = []
    trained = train(islice(_activations(), 40), SETTINGS, tmp_path, progress=told.append)
    assert told[-1].tokens < SETTINGS.tokens
    assert trained.features == SETTINGS.width


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="256"):
        train(iter([torch.zeros(10, 32)]), SETTINGS, tmp_path)


def test_the_seed_decides_and_the_callers_randomness_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    first = train(islice(_activations(), 30), SETTINGS, tmp_path / "a")
    assert torch.equal(torch.rand(1), expected)
    second = train(islice(_activations(), 30), SETTINGS, tmp_path / "b")
    assert torch.equal(first.encoder, second.encoder)


def test_quality_is_measured_over_all_batches_together() -> None:
    autoencoder, x = plain(), residual(500)
    x_hat = decode(autoencoder, encode(autoencoder, x))
    found = measure(autoencoder, x.split(77))
    variance = (x - x.mean(dim=0)).square().sum()
    assert found.explained_variance == pytest.approx(float(1 - (x - x_hat).square().sum() / variance), rel=1e-4)
    assert found.l0 == pytest.approx(float((encode(autoencoder, x) > 0).sum(dim=1).float().mean()))
    assert found.tokens == 500
