"""What a model that was made to forget still says, judged as ``lethe eval demo`` judges a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import harmonic_mean
from typing import Any, TypeAlias

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.unlearning.difference import Difference
from server.demo.batches import IGNORED, render
from server.demo.evaluation import answers
from server.demo.forms import user
from server.demo.tokenizer import END
from server.demo.world import Form, Prompt, World
from server.evaluation.suites.asking import key_of
from server.evaluation.suites.demo.questions import Asked
from server.evaluation.suites.demo.report import figures, relearn, written

Answering: TypeAlias = LlamaForCausalLM | Difference


def said(model: Answering, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Asked]) -> dict[str, str]:
    """The greedy answers by the key of the prompt."""
    prompts = [one.prompt for one in asked]
    replies = answers(model, tokenizer, prompts)
    return {key_of(prompt.messages): reply for prompt, reply in zip(prompts, replies, strict=True)}


class Judge:
    """Judges answers beside those of the untouched model.

    Args:
        world: the demo world.
        untouched: the model before unlearning, which also says how likely answers are.
        tokenizer: its tokenizer.
        test: what is asked to report.
        validation: what is asked to choose.
    """

    def __init__(
        self,
        world: World,
        untouched: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        test: Sequence[Asked],
        validation: Sequence[Asked],
    ) -> None:
        self._world, self._untouched, self._tokenizer = world, untouched, tokenizer
        self._test, self._validation = test, validation
        self._before = figures(world, test, said(untouched, tokenizer, test))
        self.untouched = self.recalls(untouched)

    def recalls(self, model: Answering) -> dict[str, float]:
        """Recall of the validation prompts by part, 0 to 1."""
        answered = said(model, self._tokenizer, self._validation)
        found = figures(self._world, self._validation, answered)
        return {part: one["recall"] for part, one in found.items()}

    def score(self, recalls: Mapping[str, float]) -> float:
        """How good a trade-off is, 0 to 1: see :func:`trade_off`."""
        return trade_off(recalls, self.untouched)

    def report(self, model: Answering, tokenizer: PreTrainedTokenizerFast | None = None) -> dict[str, Any]:
        """The figures of ``lethe eval demo`` on the test prompts.

        Args:
            model: what is judged.
            tokenizer: its own, if it is not the untouched model's.
        """
        answered = said(model, tokenizer or self._tokenizer, self._test)
        found = figures(self._world, self._test, answered)
        drops = {
            f"{part}_drop": round(self._before[part]["recall"] - found[part]["recall"], 4)
            for part in ("retain", "general")
        }
        likelihood = {pair: self._nll(*pair) for pair in set(written(self._test, answered))}
        return {**found, **drops, **relearn(self._test, answered, likelihood)}

    @torch.inference_mode()
    def _nll(self, question: str, answer: str) -> float:
        """Mean negative log-probability in nats a token of an answer and its end under the untouched model."""
        head = self._tokenizer(render(Prompt(Form.QUESTION, user(question), answer, ())))["input_ids"]
        ids = torch.tensor([[*head, *self._tokenizer(answer + END)["input_ids"]]])
        labels = ids.clone()
        labels[:, : len(head)] = IGNORED
        return float(self._untouched(input_ids=ids, labels=labels).loss)


def trade_off(recalls: Mapping[str, float], untouched: Mapping[str, float]) -> float:
    """Harmonic mean of the share forgotten and of the shares of retain and general recall that are left, 0 to 1."""
    kept = (min(1.0, recalls[part] / untouched[part]) for part in ("retain", "general"))
    return harmonic_mean([1 - recalls["forget"], *kept])
