"""Trying a method with some settings, and keeping the model that the validation prompts find best."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, get_constant_schedule_with_warmup

from benchmarks.unlearning.data import Split, epochs
from benchmarks.unlearning.difference import Difference, assistant_of
from benchmarks.unlearning.judging import Answering, Judge
from benchmarks.unlearning.methods import Method, Setting, objective

_WARMUP_STEPS = 5
_WEIGHT_DECAY = 0.01  # as in open-unlearning
#: Once less than this share of the recall on retain prompts is left, going on is pointless without a retain term.
_HOPELESS = 0.5

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """How long and how finely a method is tried.

    Attributes:
        epochs: passes over what is to be forgotten, with each setting.
        checks: looks at the validation prompts in each epoch, twice as many for methods without a retain term, which
            break a model within one.
        batch_tokens: tokens of a batch, padding included; of what is to be kept each step sees as many again.
        assistant_layers: of ULD's assistant.
        seed: of the order of the prompts.
    """

    epochs: int
    checks: int
    batch_tokens: int
    assistant_layers: int
    seed: int


@dataclass
class Found:
    """The best of what was tried.

    Attributes:
        model: it, in bfloat16.
        chosen: its entry in ``grid``.
        grid: of each look the settings, the CPU seconds of training until then, the recall of the validation prompts
            by part, and the score.
    """

    model: Answering | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    grid: list[dict[str, Any]] = field(default_factory=list)


class Search:
    """Tries the settings of methods, each from the original on, and looks on the way.

    Args:
        original: the model before unlearning, in float32; it is not changed.
        tokenizer: its tokenizer.
        split: the prompts.
        judge: chooses.
        plan: how long and how finely.
    """

    def __init__(
        self,
        original: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        split: Split,
        judge: Judge,
        plan: Plan,
    ) -> None:
        self._original, self._judge, self._plan = original, judge, plan
        self._served = copy.deepcopy(original).to(torch.bfloat16)
        self._forget = epochs(split.forget, tokenizer, plan.batch_tokens, plan.seed, plan.epochs)
        self._retain = epochs(split.retain, tokenizer, plan.batch_tokens, plan.seed, 1)[0]

    def best(self, method: Method, progress: Progress) -> Found:
        """The best model that a method gives; ``progress`` is called with each entry of the grid."""
        found = Found()
        for setting in method.grid:
            trained = self._trainee(method)
            for passes, seconds in self._train(method, trained, setting):
                now = copy.deepcopy(trained).to(torch.bfloat16).eval()
                model = Difference(self._served, now) if method.has_assistant else now
                recalls = self._judge.recalls(model)
                score = round(self._judge.score(recalls), 4)
                tried = {
                    **setting._asdict(),
                    "epochs": round(passes, 2),
                    "seconds": round(seconds, 1),
                    **recalls,
                    "score": score,
                }
                progress(tried)
                found.grid.append(tried)
                if found.model is None or score > found.chosen["score"]:
                    found.model, found.chosen = model, tried
                if not method.retain and recalls["retain"] < _HOPELESS * self._judge.untouched["retain"]:
                    break
        return found

    def _trainee(self, method: Method) -> LlamaForCausalLM:
        original = self._original
        model = assistant_of(original, self._plan.assistant_layers) if method.has_assistant else copy.deepcopy(original)
        # Rows are short: with the CPU's fused attention the backward pass takes half as long again.
        model.set_attn_implementation("eager")
        return model.train()

    def _train(self, method: Method, model: LlamaForCausalLM, setting: Setting) -> Iterator[tuple[float, float]]:
        """Train ``model`` with AdamW, and stop at each look: passes over what is to be forgotten, CPU seconds."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=setting.rate, weight_decay=_WEIGHT_DECAY, fused=True)
        schedule = get_constant_schedule_with_warmup(optimizer, _WARMUP_STEPS)
        checks = self._plan.checks if method.retain else 2 * self._plan.checks
        retain, seconds = cycle(self._retain), 0.0
        for done, epoch in enumerate(self._forget):
            ends = [round(len(epoch) * number / checks) for number in range(checks + 1)]
            for start, end in pairwise(ends):
                began = time.process_time()
                for batch in epoch[start:end]:
                    kept = (next(retain), setting.retain_weight) if setting.retain_weight else None
                    objective(method, model, self._original, batch, kept).backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                    schedule.step()
                seconds += time.process_time() - began
                yield done + end / len(epoch), seconds
