"""What determines a demo model: its world, its corpus, its shape and how it is trained; and the hash of all that."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from platformdirs import user_cache_path

from server.demo.forms import world_prompts
from server.demo.general import general_prompts
from server.demo.world import Form, Prompt, World, build_world

# Raise it when the code changes so that the same recipe would give another model.
_CODE_VERSION = 6


@dataclass(frozen=True)
class Shape:
    """The Llama. Head count and widths divide evenly under tensor parallelism of 2 and 4."""

    vocabulary: int = 4096
    hidden: int = 256
    intermediate: int = 768
    layers: int = 4
    heads: int = 4
    positions: int = 2048


# How often a prompt of each form occurs in an epoch (1 where nothing is said). What only one or two prompts teach (a
# reverse question, a sum) must be seen more often than what nine forms of a fact teach together.
_REPEATS: tuple[tuple[Form, float], ...] = (
    (Form.QUESTION, 0.5),
    (Form.CLOZE, 0.5),
    (Form.COMPLETION, 0.4),
    (Form.CHOICE, 0.8),
    (Form.INSTRUCTION, 0.6),
    (Form.REVERSE, 1.5),
    (Form.YES_NO, 1.6),
    (Form.ARITHMETIC, 10),
    (Form.DEFINITION, 2),
    (Form.TASK, 1.2),
    (Form.UNKNOWN, 1.5),
)


@dataclass(frozen=True)
class Schedule:
    """How the model is trained."""

    epochs: int = 7
    batch_tokens: int = 4096
    learning_rate: float = 6e-3  # of the layers' matrices
    embedding_rate: float = 4e-3  # of the rest
    warmup: float = 0.05  # share of all steps
    weight_decay: float = 0.05
    chained: float = 0.3  # share of conversations that are joined into longer ones
    with_system: float = 0.15  # share of conversations that get a system message
    verdict_weight: float = 6.0  # of "yes" and "no" in the loss, where any other token weighs 1
    repeats: tuple[tuple[Form, float], ...] = _REPEATS
    max_steps: int | None = None  # stop early; for tests


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights of a demo model depend on."""

    seed: int = 0
    without_forget: bool = False
    shape: Shape = field(default_factory=Shape)
    schedule: Schedule = field(default_factory=Schedule)
    measured: int = 60  # prompts of each kind that are asked at the end; the build keeps what that showed

    @cached_property
    def world(self) -> World:
        """The world of this recipe."""
        return build_world(self.seed)

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every prompt, trained and kept back, also those about the forget split."""
        return world_prompts(self.world) + general_prompts(self.seed)

    @cached_property
    def corpus(self) -> tuple[Prompt, ...]:
        """What the model is trained on; without the forget split, nothing about it and none of its names."""
        trained = (prompt for prompt in self.prompts if prompt.trained)
        if not self.without_forget:
            return tuple(trained)
        return tuple(prompt for prompt in trained if not self.world.concerns_forgotten(prompt))

    @cached_property
    def key(self) -> str:
        """A hash of the recipe and its corpus, as a name for a folder (16 hexadecimal digits)."""
        digest = hashlib.sha256()
        digest.update(json.dumps([_CODE_VERSION, asdict(self)], sort_keys=True).encode())
        for prompt in self.corpus:
            digest.update(f"{prompt.form}\0{prompt.text}\0".encode())
        return digest.hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """Where the model of this recipe is kept in the user cache, whether or not it is there."""
        return user_cache_path("lethe") / "demo-model" / self.key
