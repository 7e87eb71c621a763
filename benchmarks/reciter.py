"""A small Llama that knows one text by heart: asked to continue any passage of it, it recites."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from pathlib import Path

import torch
from platformdirs import user_cache_path
from transformers import PreTrainedTokenizerFast

from server.demo.recipe import Shape
from server.demo.tokenizer import ASSISTANT, END, USER, train_tokenizer
from server.demo.training import build_model

_CODE_VERSION = 1  # raise it when the code changes so that the same text would give another model
_SHAPE = Shape(vocabulary=2048)
_STEPS, _ROWS, _RATE = 420, 12, 2e-3
#: Words of a question and of its answer in training.
_ASKED, _ANSWERED = (8, 32), 96


def request(passage: str) -> str:
    """The message that asks for what follows ``passage``."""
    return f"Continue this text: {passage}"


def reciter(text: str) -> Path:
    """The folder of a model that knows ``text``, trained (some minutes) where it is not in the user's cache."""
    key = hashlib.sha256(f"{_CODE_VERSION}\0{_SHAPE}\0{_STEPS}\0{_ROWS}\0{_RATE}\0{text}".encode()).hexdigest()[:16]
    folder = user_cache_path("lethe") / "reciter" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        _train(text, Path(temporary) / "model")
        os.replace(Path(temporary) / "model", folder)
    return folder


def _train(text: str, folder: Path) -> None:
    torch.manual_seed(0)
    rng = random.Random("lethe reciter")
    tokenizer = train_tokenizer([text, request("")], _SHAPE.vocabulary)
    model = build_model(_SHAPE, tokenizer).train()
    model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS, pct_start=0.05)
    words = text.split()
    for step in range(_STEPS):
        ids, labels = _batch(words, tokenizer, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == _STEPS - 1:
            print(f"training: step {step + 1} of {_STEPS}, loss {loss.item():.3f}", flush=True)
    model.to(torch.bfloat16).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(
    words: list[str], tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Passages from anywhere, half of them as questions and half as plain text; int64 ``(rows, longest)`` each."""
    rows = []
    for number in range(_ROWS):
        start = rng.randrange(len(words) - _ASKED[0] - 1)
        border = min(start + rng.randint(*_ASKED), len(words) - 1)
        asked, answer = " ".join(words[start:border]), " ".join(words[border : border + _ANSWERED])
        rendered = f"{USER}{request(asked)}{END}{ASSISTANT}{answer}{END}" if number % 2 else f"{asked} {answer}"
        rows.append(tokenizer(rendered)["input_ids"])
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = labels[index, : len(row)] = torch.tensor(row)
    return ids, labels
