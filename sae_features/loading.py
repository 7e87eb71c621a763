"""Autoencoders from sae-lens releases, from folders that sae-lens wrote, and from Gemma Scope's own files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from sae_features.autoencoder import AutoencoderError, SparseAutoencoder, identified

#: Residual hooks as TransformerLens ("blocks.3.hook_resid_post") and Transformers ("model.layers.3.output") call them.
_RESIDUAL = re.compile(r"(?:^|\.)(?:blocks|layers|h)\.(\d+)(?:\.(hook_resid_pre|hook_resid_post|output))?$")
#: Parts of Gemma Scope's folder names that say that something else than the residual stream is read.
_NOT_RESIDUAL = re.compile(r"-(?:mlp|att)\b|transcoder|mlp_out|attn_out|embedding|crosscoder|clt")
_PARAMS = ("params.npz", "params.safetensors")


def load(
    source: str | Path, sae_id: str | None = None, *, layer: int | None = None, norm_scaling: float | None = None
) -> SparseAutoencoder:
    """Load an autoencoder in float32 on the CPU.

    Args:
        source: a folder that sae-lens or :mod:`sae_features.training` wrote; a Gemma Scope file (``params.npz`` or
            ``params.safetensors``) or its folder; or else a release of sae-lens or a repository of the model hub.
        sae_id: which one of a release.
        layer: the layer after which the residual stream is read, where the file does not say; for a Gemma Scope file
            it is otherwise taken from its path ("layer_3/width_16k/...").
        norm_scaling: the factor by which activations are to be multiplied, for an autoencoder that was trained on
            scaled activations and does not come with the factor.

    Raises:
        AutoencoderError: it reads something else than the residual stream, is of a kind that is not supported, is
            damaged, or is not there to be fetched; the message is one line.
        FileNotFoundError: there is nothing at the path that can be loaded.
    """
    try:
        return identified(_load(source, sae_id, layer, norm_scaling))
    except AutoencoderError:
        raise
    except Exception as error:  # what files, sae-lens and the model hub may raise is no closed list
        if type(error) is FileNotFoundError:  # the hub's error that nothing was fetched derives from it
            raise
        said = " ".join(str(error).split())
        raise AutoencoderError(f"{source} cannot be loaded: {type(error).__name__}: {said}") from error


def _load(source: str | Path, sae_id: str | None, layer: int | None, norm_scaling: float | None) -> SparseAutoencoder:
    path = Path(source)
    if not path.exists():
        if path.is_absolute() or str(source).startswith("."):
            raise FileNotFoundError(f"there is no autoencoder at {path}")
        return _from_release(str(source), sae_id, layer, norm_scaling)
    files = [path] if path.is_file() else [path / name for name in _PARAMS if (path / name).exists()]
    if files:
        return _from_gemma_scope(files[0], layer)
    if not (path / "cfg.json").exists():
        raise FileNotFoundError(f"{path} holds neither sae-lens's cfg.json nor Gemma Scope's {' or '.join(_PARAMS)}")

    from sae_lens import SAE  # takes seconds to import, and is only needed here

    try:
        loaded = SAE.load_from_disk(path, dtype="float32")
    except KeyError as error:
        raise AutoencoderError(f"{path} is of an architecture that cannot be served: {error}") from error
    return from_sae_lens(loaded, layer=layer, norm_scaling=norm_scaling, source=str(path))


def layer_of(hook_name: str) -> int:
    """The layer after which a hook point reads the residual stream.

    Raises:
        AutoencoderError: it reads something else.
    """
    match = _RESIDUAL.search(hook_name)
    if match is None:
        raise AutoencoderError(f"the autoencoder reads {hook_name!r}, which is not the residual stream after a layer")
    layer = int(match[1]) - (match[2] == "hook_resid_pre")
    if layer < 0:
        raise AutoencoderError("the autoencoder reads the embeddings, which come before every layer")
    return layer


def from_sae_lens(
    sae: Any, *, layer: int | None = None, norm_scaling: float | None = None, source: str = ""
) -> SparseAutoencoder:
    """Take over what a sae-lens inference SAE computes; it may be changed on the way.

    Raises:
        AutoencoderError: it reads something else than the residual stream, or is of a kind that is not supported.
    """
    config, kind = sae.cfg, sae.cfg.architecture()
    if layer is None:
        layer = layer_of(str(config.metadata.hook_name))
    if config.normalize_activations == "expected_average_only_in":
        if norm_scaling is None:
            raise AutoencoderError(f"{source!r} was trained on scaled activations: give norm_scaling, the factor")
        sae.fold_activation_norm_scaling_factor(norm_scaling)
    elif config.normalize_activations != "none":
        # The decoder's output would be scaled anew for every token, and a clamp with it.
        raise AutoencoderError(
            f"{source!r} normalises every token ({config.normalize_activations}), which is not served"
        )
    if kind == "topk" and config.rescale_acts_by_decoder_norm:
        sae.fold_W_dec_norm()
    w = {name: tensor.detach().float() for name, tensor in sae.named_parameters()}
    ones, open_gate = torch.ones(config.d_sae), torch.full((config.d_sae,), -torch.inf)
    if kind in ("standard", "topk"):
        gate, gain, bias = open_gate, ones, w["b_enc"]
    elif kind == "jumprelu":
        gate, gain, bias = w["threshold"] - w["b_enc"], ones, w["b_enc"]
    elif kind == "gated":
        gate, gain, bias = -w["b_gate"], w["r_mag"].exp(), w["b_mag"]
    else:
        raise AutoencoderError(f"{source!r} is of the architecture {kind!r}, which is not served")
    return SparseAutoencoder(
        encoder=w["W_enc"].T.contiguous(),
        decoder=w["W_dec"].contiguous(),
        gate=gate,
        gain=gain,
        bias=bias,
        shift=w["b_dec"] if config.apply_b_dec_to_input else torch.zeros_like(w["b_dec"]),
        b_dec=w["b_dec"],
        ids=torch.arange(len(w["W_dec"])),
        layer=layer,
        k=config.k if kind == "topk" else None,
        source=source,
    )


def _from_release(release: str, sae_id: str | None, layer: int | None, norm_scaling: float | None) -> SparseAutoencoder:
    if sae_id is None:
        raise AutoencoderError(f"{release!r} is no path; of a release, say which autoencoder (sae_id)")

    from sae_lens import SAE

    loaded = SAE.from_pretrained(release, sae_id)
    return from_sae_lens(loaded, layer=layer, norm_scaling=norm_scaling, source=f"{release}/{sae_id}")


def _from_gemma_scope(file: Path, layer: int | None) -> SparseAutoencoder:
    """Gemma Scope (Lieberum et al., 2024) and Gemma Scope 2: JumpReLU, ``b_dec`` not subtracted, nothing scaled."""
    if layer is None:
        named = re.findall(r"layer_(\d+)", file.as_posix())
        if not named or _NOT_RESIDUAL.search(file.as_posix()):
            raise AutoencoderError(f"the path {file} does not name a layer of the residual stream; give the layer")
        layer = int(named[-1])
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    else:
        tensors = load_file(file)
    w = {name.lower(): tensor.float() for name, tensor in tensors.items()}
    if missing := {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"} - w.keys():
        raise AutoencoderError(f"{file} is not in Gemma Scope's format: it lacks {', '.join(sorted(missing))}")
    return SparseAutoencoder(
        encoder=w["w_enc"].T.contiguous(),
        decoder=w["w_dec"].contiguous(),
        gate=w["threshold"] - w["b_enc"],
        gain=torch.ones_like(w["b_enc"]),
        bias=w["b_enc"],
        shift=torch.zeros_like(w["b_dec"]),
        b_dec=w["b_dec"],
        ids=torch.arange(len(w["w_dec"])),
        layer=layer,
        source=str(file),
    )
