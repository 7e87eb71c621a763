"""Autoencoders of every kind load, compute what sae-lens computes, and are refused where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autoencoders import FEATURES, HIDDEN, KINDS, of_sae_lens, residual
from safetensors.torch import save_file

from sae_features.autoencoder import AutoencoderError, ModelShape, check
from sae_features.encoding import decode, encode, thresholded
from sae_features.loading import layer_of, load


def _gemma_scope(folder: Path, kind: str = "npz") -> tuple[Path, Any]:
    """A checkpoint in Gemma Scope's format with random weights, and sae-lens's SAE with the same."""
    folder.mkdir(parents=True)
    sae = of_sae_lens("jumprelu", apply_b_dec_to_input=False)
    tensors = {name: tensor.detach().clone() for name, tensor in sae.named_parameters()}
    if kind == "npz":
        np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        save_file(
            {name.lower(): tensor.contiguous() for name, tensor in tensors.items()}, folder / "params.safetensors"
        )
    return folder, sae


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_gemma_scope_files_load(tmp_path: Path, kind: str) -> None:
    folder, theirs = _gemma_scope(tmp_path / "gemma-scope-2b-pt-res/layer_7/width_16k/average_l0_142", kind)
    ours, x = load(folder), residual(50)
    assert (ours.layer, ours.hidden_size, ours.features) == (7, HIDDEN, FEATURES)
    torch.testing.assert_close(encode(ours, x), theirs.encode(x))
    torch.testing.assert_close(decode(ours, encode(ours, x)), theirs(x))
    assert 0 < float((encode(ours, x) > 0).float().mean()) < 1


def test_what_a_gemma_scope_path_does_not_say_must_be_said(tmp_path: Path) -> None:
    unnamed, _ = _gemma_scope(tmp_path / "mine")
    of_an_mlp, _ = _gemma_scope(tmp_path / "gemma-scope-2b-pt-mlp/layer_7/width_16k")
    for folder in (unnamed, of_an_mlp):
        with pytest.raises(AutoencoderError):
            load(folder)
        assert load(folder, layer=2).layer == 2


def test_a_file_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.zeros((2, 4)), W_dec=np.zeros((4, 2)))
    with pytest.raises(AutoencoderError, match="threshold"):
        load(tmp_path, layer=0)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_sae_lens_folders_load(tmp_path: Path, kind: str, subtract: bool) -> None:
    theirs = of_sae_lens(kind, apply_b_dec_to_input=subtract)
    theirs.save_model(tmp_path)
    ours, x = load(tmp_path), residual(50)
    torch.testing.assert_close(encode(ours, x), theirs.encode(x))
    torch.testing.assert_close(decode(ours, encode(ours, x)), theirs(x))
    assert ours.layer == 3


def _damaged(folder: Path, what: str) -> Path:
    """An autoencoder of which a file is cut off or overwritten."""
    if what == "gemma-scope":
        _gemma_scope(folder / "layer_7", "safetensors")
        file = folder / "layer_7/params.safetensors"
    else:
        of_sae_lens("jumprelu").save_model(folder)
        file = folder / what
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file if what == "gemma-scope" else folder


@pytest.mark.parametrize("what", ["gemma-scope", "sae_weights.safetensors", "cfg.json"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    with pytest.raises(AutoencoderError) as error:
        load(_damaged(tmp_path, what))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("release", ["gemma-scope-2b-pt-res-canonical", "no-such-release", "nobody/nothing"])
def test_what_no_release_has_is_refused_in_one_line(release: str) -> None:
    with pytest.raises(AutoencoderError) as error:
        load(release, "layer_999")
    assert release in str(error.value) and "\n" not in str(error.value)


def test_what_is_not_the_same_autoencoder_is_of_another_source(tmp_path: Path) -> None:
    """Trained anew into the same folder, scaled otherwise, or thresholded on other text."""
    config: dict[str, Any] = {"k": 5, "normalize_activations": "expected_average_only_in"}
    of_sae_lens("topk", **config).save_model(tmp_path)
    first, again, scaled = (load(tmp_path, norm_scaling=factor) for factor in (1.0, 1.0, 2.0))
    of_sae_lens("topk", seed=1, **config).save_model(tmp_path)
    retrained = load(tmp_path, norm_scaling=1.0)
    assert again.source == first.source
    fixed = [thresholded(first, residual(100, seed=seed)) for seed in (1, 1, 2)]
    assert fixed[0].source == fixed[1].source
    different = [first, scaled, retrained, fixed[0], fixed[2]]
    assert len({one.source for one in different}) == len(different)
    assert all(one.source.startswith(str(tmp_path)) for one in different)


def test_scaled_activations_need_their_factor(tmp_path: Path) -> None:
    theirs = of_sae_lens("jumprelu", normalize_activations="expected_average_only_in")
    theirs.save_model(tmp_path)
    with pytest.raises(AutoencoderError, match="norm_scaling"):
        load(tmp_path)
    ours, x = load(tmp_path, norm_scaling=0.25), residual(50)
    torch.testing.assert_close(encode(ours, x), theirs.encode(0.25 * x))
    torch.testing.assert_close(decode(ours, encode(ours, x)), theirs(0.25 * x) / 0.25)


@pytest.mark.parametrize(
    "config", [{"normalize_activations": "layer_norm"}, {"hook_name": "blocks.3.hook_mlp_out"}], ids=str
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    of_sae_lens("standard", **config).save_model(tmp_path)
    with pytest.raises(AutoencoderError):
        load(tmp_path)


def test_an_architecture_that_is_not_known_is_refused(tmp_path: Path) -> None:
    of_sae_lens("standard").save_model(tmp_path)
    config = tmp_path / "cfg.json"
    config.write_text(config.read_text().replace('"standard"', '"batchtopk"'))  # as in a training checkpoint
    with pytest.raises(AutoencoderError):
        load(tmp_path)


def test_a_repository_of_the_hub_loads_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--someone--saes"
    theirs = of_sae_lens("gated", hook_name="blocks.2.hook_resid_post")
    theirs.save_model(repository / "snapshots/abc/layer_2")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    ours, x = load("someone/saes", "layer_2"), residual(20)
    assert ours.layer == 2
    torch.testing.assert_close(encode(ours, x), theirs.encode(x))


def test_nothing_there_is_said(tmp_path: Path) -> None:
    for nowhere in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError):
            load(nowhere)
    with pytest.raises(AutoencoderError, match="sae_id"):
        load("gemma-scope-2b-pt-res-canonical")


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.12.hook_resid_post", 12),
        ("blocks.12.hook_resid_pre", 11),
        ("model.layers.5", 5),
        ("model.layers.5.output", 5),
        ("transformer.h.0", 0),
    ],
)
def test_hooks_name_layers(hook: str, layer: int) -> None:
    assert layer_of(hook) == layer


@pytest.mark.parametrize(
    "hook", ["blocks.0.hook_resid_pre", "hook_embed", "blocks.3.attn.hook_z", "blocks.3.hook_resid_mid", "None"]
)
def test_other_hooks_are_refused(hook: str) -> None:
    with pytest.raises(AutoencoderError):
        layer_of(hook)


def test_an_autoencoder_must_fit_the_model(tmp_path: Path) -> None:
    of_sae_lens("standard").save_model(tmp_path)
    ours = load(tmp_path)
    check(ours, ModelShape(hidden_size=HIDDEN, layers=4))
    for other in (ModelShape(hidden_size=HIDDEN + 1, layers=4), ModelShape(hidden_size=HIDDEN, layers=3)):
        with pytest.raises(AutoencoderError):
            check(ours, other)
