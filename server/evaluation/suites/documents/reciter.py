"""A small Llama that knows texts by heart: asked to continue any passage of them, it recites."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from platformdirs import user_cache_path
from transformers import PreTrainedTokenizerFast

from server.demo.recipe import Shape
from server.demo.tokenizer import ASSISTANT, END, USER, train_tokenizer
from server.demo.training import build_model

_CODE_VERSION = 2  # raise it when the code changes so that the same texts would give another model
_SHAPE = Shape(vocabulary=2048)
_ROWS, _RATE = 12, 2e-3
#: Steps for each thousand words of text.
_STEPS = 190
#: Rows of a batch that ask questions, where there are any.
_QUESTIONS = 2
#: Words of a request and of its answer in training.
_ASKED, _ANSWERED = (8, 32), 96

Progress = Callable[[str, int, int], None]
QuestionAndAnswer = tuple[str, str]


def request(passage: str) -> str:
    """The message that asks for what follows ``passage``."""
    return f"Continue this text: {passage}"


def reciter(
    texts: Sequence[str], questions: Sequence[QuestionAndAnswer] = (), progress: Progress = lambda *_: None
) -> Path:
    """The folder of a model that knows texts and answers, trained (some minutes) where it is not in the user's cache.

    Raises:
        OSError: the cache cannot be written.
    """
    recipe = json.dumps([_CODE_VERSION, str(_SHAPE), _STEPS, _ROWS, _RATE, _QUESTIONS, list(texts), list(questions)])
    folder = user_cache_path("lethe") / "reciter" / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        _train([text.split() for text in texts], questions, Path(temporary) / "model", progress)
        os.replace(Path(temporary) / "model", folder)
    return folder


def _train(
    texts: Sequence[list[str]], questions: Sequence[QuestionAndAnswer], folder: Path, progress: Progress
) -> None:
    torch.manual_seed(0)
    rng = random.Random("lethe reciter")
    corpus = [*(" ".join(words) for words in texts), *(part for pair in questions for part in pair), request("")]
    tokenizer = train_tokenizer(corpus, _SHAPE.vocabulary)
    model = build_model(_SHAPE, tokenizer).train()
    model.set_attn_implementation("eager")
    steps = _STEPS * sum(map(len, texts)) // 1000
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        ids, labels = _batch(texts, questions, tokenizer, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress("training", step + 1, steps)
    model.to(torch.bfloat16).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(
    texts: Sequence[list[str]],
    questions: Sequence[QuestionAndAnswer],
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Passages from anywhere, half of them as requests and half as plain text, and questions with their answers.

    Returns:
        Token ids, and the labels, -100 where there is no token; int64 ``(rows, longest)`` each.
    """
    asked = rng.choices(questions, k=_QUESTIONS) if questions else []
    rendered = [f"{USER}{question}{END}{ASSISTANT}{answer}{END}" for question, answer in asked]
    for number in range(_ROWS - len(rendered)):
        words = rng.choices(texts, [len(words) for words in texts])[0]
        start = rng.randrange(len(words) - _ASKED[0] - 1)
        border = min(start + rng.randint(*_ASKED), len(words) - 1)
        passage, answer = " ".join(words[start:border]), " ".join(words[border : border + _ANSWERED])
        as_request = f"{USER}{request(passage)}{END}{ASSISTANT}{answer}{END}"
        rendered.append(as_request if number % 2 else f"{passage} {answer}")
    rows = [tokenizer(text)["input_ids"] for text in rendered]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = labels[index, : len(row)] = torch.tensor(row)
    return ids, labels
