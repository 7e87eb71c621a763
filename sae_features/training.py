"""Training an autoencoder for a model that has none, with sae-lens's trainer, on activations that somebody supplies.

The architecture is BatchTopK (Bussmann et al., 2024; arXiv 2412.06410): sparsity is set and not tuned, which a small
budget needs, and what comes out is a JumpReLU with one threshold, of which a few features can be served alone.

``SAETrainer.fit`` is not used. It can neither report progress nor stop when the data end, it draws a bar on
standard error, and its checkpoints count one step too few. It offers ``step``, ``save_checkpoint`` and
``load_trainer_state`` "for external coordinators" instead; the loop below is such a one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sae_features.autoencoder import SparseAutoencoder
from sae_features.loading import load

if TYPE_CHECKING:
    from sae_lens.training.sae_trainer import SAETrainer

#: Batches from which the mean norm is estimated, and from which each batch is mixed anew.
_NORM_BATCHES, _MIXED_BATCHES = 4, 16
#: Batches without firing after which a feature counts as dead and is trained to explain what the others leave.
_DEAD_AFTER = 50
_CHECKPOINT = "checkpoint-"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What is trained, and for how long.

    Attributes:
        layer: after which the activations were taken.
        width: how many features.
        k: how many of them are active on a token, on average.
        tokens: how many to train on; the learning rate falls to 0 over the last fifth of them.
        batch_tokens: of one step.
        learning_rate: of Adam.
        checkpoint_every: steps.
        seed: of the initial weights and of the mixing.
    """

    layer: int
    width: int = 4096
    k: int = 32
    tokens: int = 400_000
    batch_tokens: int = 512
    learning_rate: float = 2e-3
    checkpoint_every: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training has come; the measurements are of the batch just trained on.

    Attributes:
        dead: features that have not fired for 50 batches.
    """

    tokens: int
    total: int
    explained_variance: float
    l0: float
    dead: int


def train(
    activations: Iterable[torch.Tensor],
    settings: TrainingSettings,
    folder: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
) -> SparseAutoencoder:
    """Train an autoencoder, or go on with one whose training was interrupted.

    Args:
        activations: batches (tokens, hidden) of any size and floating dtype, without the first token of a sequence;
            training runs on their device. They are mixed among sixteen batches, so sequences may come in order. If
            they end before ``settings.tokens``, training ends with them.
        settings: the same as before, where training goes on.
        folder: for the result in sae-lens's format, and for the checkpoint while there is none. If a checkpoint is
            there, training goes on from it; ``activations`` are then expected to be further ones.
        progress: called after the first step and then at every checkpoint.

    Raises:
        ValueError: there are no activations, or the settings do not do (:func:`check`).
    """
    check(settings, folder)
    from sae_lens.training.mixing_buffer import mixing_buffer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        size = settings.batch_tokens
        batches = mixing_buffer(_MIXED_BATCHES * size, size, (batch.float() for batch in activations))
        first = list(islice(batches, _NORM_BATCHES))
        if not first:
            raise ValueError(f"there are fewer activations than one batch of {size} tokens")
        trainer = _trainer(first, settings, _checkpoint(folder))
        _run(trainer, chain(first, batches), settings, folder, progress)
    trainer.sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.sae.save_inference_model(folder)
    _drop(folder.glob(f"{_CHECKPOINT}*"))
    return load(folder)


def check(settings: TrainingSettings, folder: Path) -> None:
    """Whether a training can begin, or go on from the checkpoint in ``folder``.

    Raises:
        ValueError: no token can have so many active features, or the checkpoint is of other settings or damaged.
    """
    if settings.k > settings.width:
        raise ValueError(f"{settings.k} features cannot be active on a token: there are {settings.width} in all")
    checkpoint = _checkpoint(folder)
    if checkpoint is None:
        return
    begun = _config(checkpoint)
    found = begun["d_sae"], begun["k"], begun["metadata"]["hook_name"]
    if found != (settings.width, settings.k, _hook_name(settings)):
        raise ValueError(
            f"{checkpoint} is of a training with width {found[0]} and k {found[1]} at {found[2]}: go on with these, or "
            "give another folder"
        )


def _checkpoint(folder: Path) -> Path | None:
    return max(folder.glob(f"{_CHECKPOINT}*"), default=None)


def _config(checkpoint: Path) -> dict[str, Any]:
    """What the autoencoder of a checkpoint is.

    Raises:
        ValueError: it is damaged.
    """
    try:
        config: dict[str, Any] = json.loads((checkpoint / "cfg.json").read_text(encoding="utf-8"))
        _ = config["d_in"], config["d_sae"], config["k"], config["metadata"]["hook_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint} is damaged; delete it to begin anew ({type(error).__name__})") from error
    return config


def _hook_name(settings: TrainingSettings) -> str:
    return f"blocks.{settings.layer}.hook_resid_post"


def _run(
    trainer: SAETrainer[Any, Any],
    batches: Iterator[torch.Tensor],
    settings: TrainingSettings,
    folder: Path,
    progress: Callable[[Progress], None],
) -> None:
    for batch in batches:
        if trainer.n_training_samples >= settings.tokens:
            return
        output = trainer.step(batch)
        trainer.n_training_steps += 1
        checkpoint = trainer.n_training_steps % settings.checkpoint_every == 0
        if checkpoint:
            _save(trainer, folder)
        if checkpoint or trainer.n_training_steps == 1:
            told = trainer.build_train_step_log_dict(output, trainer.n_training_samples)
            progress(
                Progress(
                    tokens=trainer.n_training_samples,
                    total=settings.tokens,
                    explained_variance=told["metrics/explained_variance"],
                    l0=told["metrics/l0"],
                    dead=told["sparsity/dead_features"],
                )
            )


def _trainer(first: list[torch.Tensor], settings: TrainingSettings, checkpoint: Path | None) -> SAETrainer[Any, Any]:
    """A trainer as the checkpoint left it, or a new one."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    hidden, device = first[0].shape[1], str(first[0].device)
    steps = settings.tokens // settings.batch_tokens
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            d_in=hidden,
            d_sae=settings.width,
            k=settings.k,
            device=device,
            normalize_activations="expected_average_only_in",
            # The default needs hundreds of steps until the threshold, a moving average that starts at 0, has settled.
            topk_threshold_lr=0.05,
            metadata=SAEMetadata(hook_name=_hook_name(settings)),
        )
    )
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=settings.tokens,
            train_batch_size_samples=settings.batch_tokens,
            lr=settings.learning_rate,
            lr_end=settings.learning_rate,
            lr_warm_up_steps=min(20, steps // 10),
            lr_decay_steps=steps // 5,
            dead_feature_window=_DEAD_AFTER,
            device=device,
        ),
        sae,
        data_provider=iter(()),  # batches are given to ``step``
    )
    if checkpoint is not None:
        if (width := _config(checkpoint)["d_in"]) != hidden:
            raise ValueError(f"{checkpoint} is of a model of width {width}, this one is {hidden} wide")
        sae.load_weights_from_checkpoint(checkpoint)
        trainer.load_trainer_state(checkpoint)
    else:
        sample = torch.cat(first)
        scale = hidden**0.5 / float(sample.norm(dim=1).mean())
        trainer.activation_scaler.scaling_factor = scale
        # A residual stream has a large mean. Left to be learnt, all features would point along it and then die.
        sae.b_dec.data = scale * sample.mean(dim=0)
    return trainer


def _save(trainer: SAETrainer[Any, Any], folder: Path) -> None:
    """Put a checkpoint in the place of the last one; if that is interrupted, one of the two is there, and whole."""
    before = list(folder.glob(f"{_CHECKPOINT}*"))
    trainer.save_checkpoint("unfinished", base_path=folder)
    os.replace(folder / "unfinished", folder / f"{_CHECKPOINT}{trainer.n_training_steps:09}")
    _drop(before)


def _drop(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)
