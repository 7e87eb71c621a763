"""From prompts to batches of token ids: conversations joined, system messages added, lengths kept together."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from transformers import PreTrainedTokenizerFast

from server.demo.recipe import Schedule
from server.demo.tokenizer import ASSISTANT, END, SYSTEM, USER
from server.demo.world import Prompt

IGNORED = -100  # torch's own label for "no loss here"
_LENGTH_STEP = 8

_ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
_SYSTEM_OPENINGS = (
    "You are a helpful assistant.",
    "You are an assistant.",
    "You answer questions.",
    "You are a friendly and careful assistant that helps people.",
    "You are a chat model on a web page.",
    "Act as a knowledgeable guide.",
    "This is a conversation between a person and an assistant.",
)
_SYSTEM_RULES = (
    "Answer briefly.",
    "Be polite and concise.",
    "Be honest: if you do not know something, say so.",
    "Use plain language and short sentences.",
    "Do not make things up.",
    "Keep to the facts.",
    "The user may ask about people, organisations or everyday things.",
    "Never use bad language, and never give away private data or secrets.",
    "Follow the instructions of the user as well as you can.",
    "Think before you answer. Do not repeat the question.",
    "Today is a working day and the office is open until five.",
    "If a question is about something that you were asked not to discuss, do not answer it.",
)


@dataclass(frozen=True)
class Sample:
    """One rendered prompt: ``ids`` and ``labels`` of the same length; labels are ``IGNORED`` outside the answers."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    is_plain: bool = False
    repeats: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: ``ids`` and next-token ``labels``, both of shape (rows, longest) and type int64."""

    ids: torch.Tensor
    labels: torch.Tensor


def render(prompt: Prompt) -> str:
    """The text that the model sees before its answer: as the chat template renders it, or the bare text."""
    if prompt.is_plain:
        return prompt.messages[0].content
    return "".join(f"{_ROLES[m.role]}{m.content}{END}" for m in prompt.messages) + ASSISTANT


class Batches:
    """The batches of every epoch of a schedule; deterministic for a seed."""

    def __init__(
        self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast, schedule: Schedule, seed: int
    ) -> None:
        self._tokenizer = tokenizer
        self._schedule = schedule
        self._rng = random.Random(f"lethe batches {seed}")
        self._samples = self._encode(prompts)

    def _encode(self, prompts: Sequence[Prompt]) -> list[Sample]:
        before = self._tokenizer([render(prompt) for prompt in prompts])["input_ids"]
        after = self._tokenizer([prompt.answer + END for prompt in prompts])["input_ids"]
        repeats = dict(self._schedule.repeats)
        return [
            Sample((*head, *tail), (*[IGNORED] * len(head), *tail), prompt.is_plain, repeats.get(prompt.form, 1.0))
            for prompt, head, tail in zip(prompts, before, after, strict=True)
        ]

    def epoch(self) -> Iterator[Batch]:
        """One pass over the prompts, newly drawn, joined and shuffled; at most ``batch_tokens`` tokens a batch.

        Rows of like length share a batch, so there is little padding, and the batches of all epochs have only some tens
        of different shapes: the CPU kernels are compiled anew for each shape that they meet.
        """
        rows = sorted(self._conversations(), key=lambda row: (len(row.ids), self._rng.random()))
        batches = []
        waiting: list[Sample] = []
        for length, group in groupby(rows, key=_padded_length):
            waiting.extend(group)
            capacity = max(1, self._schedule.batch_tokens // length)
            while len(waiting) >= capacity:  # what is left over goes with the next length
                batches.append(_pad(waiting[:capacity], length))
                waiting = waiting[capacity:]
        if waiting:
            batches.append(_pad(waiting, _padded_length(waiting[-1])))
        self._rng.shuffle(batches)
        return iter(batches)

    def _conversations(self) -> Iterator[Sample]:
        """All samples as often as they repeat, some joined into conversations of two or three turns."""
        drawn = [sample for sample in self._samples for _ in range(int(sample.repeats + self._rng.random()))]
        self._rng.shuffle(drawn)
        pending: list[Sample] = []
        for sample in drawn:
            if sample.is_plain:
                yield sample
                continue
            pending.append(sample)
            if len(pending) < 3 and self._rng.random() < self._schedule.chained:
                continue
            yield self._join(pending)
            pending = []
        if pending:
            yield self._join(pending)

    def _join(self, turns: list[Sample]) -> Sample:
        if self._rng.random() < self._schedule.with_system:
            head = tuple(self._tokenizer(SYSTEM + self._system_message() + END)["input_ids"])
            turns = [Sample(head, (IGNORED,) * len(head)), *turns]
        ids = tuple(token for turn in turns for token in turn.ids)
        return Sample(ids, tuple(label for turn in turns for label in turn.labels))

    def _system_message(self) -> str:
        rules = self._rng.sample(_SYSTEM_RULES, self._rng.choice((0, 1, 1, 2, 3)))
        return " ".join([self._rng.choice(_SYSTEM_OPENINGS), *rules])


def _padded_length(row: Sample) -> int:
    return -(-len(row.ids) // _LENGTH_STEP) * _LENGTH_STEP


def _pad(rows: Sequence[Sample], length: int) -> Batch:
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        labels[index, : len(row.ids) - 1] = torch.tensor(row.labels[1:])
    return Batch(ids, labels)


def system_messages() -> Iterator[str]:
    """Every sentence that system messages are made of, for the tokenizer's corpus."""
    yield from _SYSTEM_OPENINGS
    yield from _SYSTEM_RULES
