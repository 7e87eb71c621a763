"""What one step of constrained decoding costs, by number of phrases, batch size and vocabulary, beside three others.

``python benchmarks/decoding.py --json FILE``. A step is: read the 64 (or so) tokens that were chosen, work out what may
not come next, put it on the logits. Vocabularies are made of the words of real text, outputs are real text, and phrases
are pairs of its capitalised words, so that partial matches are as frequent as they would be. All are measured in turn,
in a new order each round: a slow moment of the machine, or the first reading of a token, hits all alike. One thread.

The others: a trie over the token ids of the phrases as written, with and without a leading space (fast, but blind to
every other spelling and tokenisation); vLLM's ``bad_words`` with the same; and asking the leak guard's matcher about
every token of the vocabulary, which is as exact as Lethe's automaton (measured on a part and scaled up).

``semantic_ms`` is what the other stage on the way out takes for a clause (:mod:`clause_latency`).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clause_latency import semantic_ms
from vllm.v1.sample.ops.bad_words import apply_bad_words

from classifiers.phrase_index import PhraseIndex
from guard.decoding import DecodingState, PhraseSets, Vocabulary, apply_masks

VOCABULARIES = (32_000, 150_000)
PHRASES = (0, 10, 1_000, 100_000)
BATCHES = (1, 16, 64)
#: Phrases of one target.
SET_SIZE = 10
STEPS_PER_ROUND = 8
#: Tokens of an output; with more rounds than they last for it is read again.
STEPS = 256
#: Tokens that the scan of the vocabulary is measured on.
SCANNED = 500

Step = Callable[[int], None]


def corpus(folder: Path) -> str:
    """All text files of a folder, one after the other."""
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in sorted(folder.glob("*.txt")))


def token_texts(text: str, size: int) -> list[bytes]:
    """A made-up byte-level vocabulary: bytes, then words as they stand, capitalised, with a space, and in pieces.

    As in real vocabularies some tokens end a word within themselves, and some break off inside a character.
    """
    words = [word for word, _ in Counter(re.findall(r"[^\W\d_]+", text)).most_common()]
    rng = random.Random(size)

    def forms() -> Iterator[str]:
        for number, word in enumerate(words):
            yield from (f" {word}", word, f" {word.title()}", word.title())
            if number % 50 == 0:
                yield from (f"{word},", f"{word}'s", f" {word}.", f"{word}\n")
        yield from (f"{mark}{other}" for mark in "\n.,;:!?-()[]{}\"'@$|/" for other in "\n.,;:!?-()[]{}\"'@$|/ ")
        yield from map(chr, range(0x4E00, 0x4E00 + size // 40))
        while True:
            word = rng.choice(words)
            at = rng.randrange(len(word))
            yield from (word[:at], word[at:], f" {word[:at]}", word.upper()[:at], f" {rng.randrange(10**5)}")

    fragments = (chr(code).encode()[1:] for code in range(0x4E00, 0x4E00 + 500))
    texts = dict.fromkeys(itertools.chain((bytes([byte]) for byte in range(256)), fragments))
    for form in filter(None, forms()):
        texts[form.encode()] = None
        if len(texts) == size:
            break
    return list(texts)


class Greedy:
    """Longest-match tokenisation, good enough to make token streams of text."""

    def __init__(self, texts: list[bytes]) -> None:
        self._ids = {text: token for token, text in enumerate(texts)}
        self._longest = max(map(len, texts))

    def encode(self, text: str) -> list[int]:
        """Token ids; every byte is a token, so there always are some."""
        data, ids, at = text.encode(), [], 0
        while at < len(data):
            stop = next(s for s in range(min(len(data), at + self._longest), at, -1) if data[at:s] in self._ids)
            ids.append(self._ids[data[at:stop]])
            at = stop
        return ids


def names(text: str, count: int) -> list[str]:
    """Pairs of capitalised words."""
    words = sorted({word for word in re.findall(r"[A-Z][a-z]{2,}", text)})
    rng = random.Random(count)
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"{rng.choice(words)} {rng.choice(words)}"] = None
    return list(found)


def lethe(sets: PhraseSets, keys: list[str], streams: list[list[int]], logits: torch.Tensor) -> Step:
    """A step of Lethe's automaton."""
    automaton = sets.automaton(keys)
    states = [DecodingState(automaton) for _ in streams]
    order = torch.from_numpy(sets.vocabulary.table.order)

    def step(at: int) -> None:
        for state, stream in zip(states, streams, strict=True):
            state.advance(stream[at])
        apply_masks(logits, [state.forbidden() for state in states], order)

    return step


def token_trie(phrases: list[list[int]], streams: list[list[int]], logits: torch.Tensor) -> Step:
    """A step of a trie over token ids."""
    root: dict[int, Any] = {}
    for ids in phrases:
        node = root
        for token in ids[:-1]:
            node = node.setdefault(token, {})
        node.setdefault(-1, []).append(ids[-1])
    live: list[list[dict[int, Any]]] = [[] for _ in streams]

    def step(at: int) -> None:
        for row, stream in enumerate(streams):
            live[row] = [node[stream[at]] for node in (*live[row], root) if stream[at] in node]
            last = [token for node in (*live[row], root) for token in node.get(-1, ())]
            if last:
                logits[row, last] = -torch.inf

    return step


def bad_words(phrases: list[list[int]], streams: list[list[int]], logits: torch.Tensor) -> Step:
    """A step of vLLM's ``bad_words``."""
    lists = dict.fromkeys(range(len(streams)), phrases)

    def step(at: int) -> None:
        apply_bad_words(logits, lists, [stream[: at + 1] for stream in streams])

    return step


def scan(index: PhraseIndex, keys: list[str], texts: list[bytes], stream: list[int]) -> Step:
    """A step, for one output, of asking the leak guard's matcher about ``SCANNED`` tokens."""
    matcher = index.matcher(keys)
    asked = [text.decode("utf-8", "replace") for text in random.Random(0).sample(texts, SCANNED)]

    def step(at: int) -> None:
        matcher.feed(texts[stream[at]].decode("utf-8", "replace"))
        for text in asked:
            matcher.would_match(text)

    return step


def summary(samples: list[float], scale: float = 1.0) -> dict[str, float]:
    """Median and spread in microseconds."""
    p10, p50, p90, p99 = (np.percentile(samples, [10, 50, 90, 99]) * 1e6 * scale).round(1).tolist()
    return {"p50": p50, "p10": p10, "p90": p90, "p99": p99, "n": len(samples)}


def resident_mb() -> float:
    """Resident memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    """Run, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the report")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--text", type=Path, default=Path("../shared/data/text"), help="folder of text files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = corpus(arguments.text)
    phrases = names(text, max(PHRASES))
    steps: dict[tuple[str, int, int, int], Step] = {}  # by (method, vocabulary, phrases, batch)
    build: dict[str, dict[str, float]] = {}
    for size in VOCABULARIES:
        build[str(size)] = prepare(size, text, phrases, steps)
        print(f"vocabulary of {size}: {build[str(size)]}", flush=True)
    samples = measure(steps, arguments.rounds)
    report = render(samples, build) | {"semantic_ms": semantic_ms()}
    print(rendered := json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(rendered + "\n", encoding="utf-8")


def prepare(size: int, text: str, phrases: list[str], steps: dict[tuple[str, int, int, int], Step]) -> dict[str, float]:
    """Build everything for one vocabulary, add its steps, and say what building took."""
    texts = [*token_texts(text, size - 1), b""]
    greedy = Greedy(texts)
    share = len(text) // sum(BATCHES)
    streams = [greedy.encode(text[row * share :][: 10 * STEPS])[:STEPS] for row in range(sum(BATCHES))]
    by_key = {str(first): phrases[first : first + SET_SIZE] for first in range(0, len(phrases), SET_SIZE)}
    everything, index = list(by_key), PhraseIndex()
    for key, some in by_key.items():
        index.add(key, some)

    memory, clock = [resident_mb()], [time.perf_counter()]
    vocabulary = Vocabulary(texts, end=[size - 1])
    clock.append(time.perf_counter())
    memory.append(resident_mb())
    clock.append(time.perf_counter())
    sets = PhraseSets(vocabulary)
    for key, some in by_key.items():
        sets.add(key, some)
    clock.append(time.perf_counter())
    kept = sets.automaton(everything)
    clock.append(time.perf_counter())
    sets.add("one more", ["Selbredia Blontellowin"])
    clock.append(time.perf_counter())
    sets.automaton([*everything, "one more"])
    clock.append(time.perf_counter())
    memory.append(resident_mb())
    room = torch.zeros(max(BATCHES), size)
    for count in PHRASES:
        keys = everything[: count // SET_SIZE]
        encoded = [greedy.encode(lead + phrase) for phrase in phrases[:count] for lead in ("", " ")]
        for number, batch in enumerate(BATCHES):
            logits = room[:batch]
            own = streams[sum(BATCHES[:number]) :][:batch]  # no batch profits from what another has read
            steps["lethe", size, count, batch] = lethe(sets, keys, own, logits)
            steps["token_trie", size, count, batch] = token_trie(encoded, own, logits)
            steps["bad_words", size, count, batch] = bad_words(encoded, own, logits)
        steps["scan", size, count, 1] = scan(index, keys, texts, streams[0])
    assert kept is sets.automaton(everything)
    parts = ("vocabulary_s", "looking_at_memory_s", "phrases_s", "union_s", "add_one_s", "union_after_adding_one_s")
    vocabulary_mb, phrases_mb = np.diff(memory).round(1).tolist()
    seconds = dict(zip(parts, np.diff(clock).round(6).tolist(), strict=True))
    return seconds | {"vocabulary_mb": vocabulary_mb, "phrases_mb": phrases_mb}


def measure(steps: dict[tuple[str, int, int, int], Step], rounds: int) -> dict[tuple[str, int, int, int], list[float]]:
    """Seconds of each step. What takes long is measured in few rounds only."""
    samples: dict[tuple[str, int, int, int], list[float]] = defaultdict(list)
    for turn in range(rounds + 1):  # the first turn warms up and is dropped
        for key, step in random.Random(turn).sample(list(steps.items()), len(steps)):
            slow = key[0] == "scan" or (key[0] == "bad_words" and key[2] * key[3] > 10_000)
            if slow and turn > 2:
                continue
            for number in range(1 if slow else STEPS_PER_ROUND):
                began = time.perf_counter()
                step((turn * STEPS_PER_ROUND + number) % STEPS)
                if turn:
                    samples[key].append(time.perf_counter() - began)
        print(f"round {turn} of {rounds}", flush=True)
    return samples


def render(samples: dict[tuple[str, int, int, int], list[float]], build: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The report."""
    large = str(max(VOCABULARIES))

    def grid(method: str, size: int) -> dict[str, dict[str, dict[str, float]]]:
        return {
            f"batch{batch}": {str(count): summary(samples[method, size, count, batch]) for count in PHRASES}
            for batch in BATCHES
        }

    detail = {
        method: {str(size): grid(method, size) for size in VOCABULARIES}
        for method in ("lethe", "token_trie", "bad_words")
    }
    scans = {
        str(size): {str(count): summary(samples["scan", size, count, 1], scale=size / SCANNED) for count in PHRASES}
        for size in VOCABULARIES
    }
    medians = {
        batch: {count: cell["p50"] for count, cell in row.items()} for batch, row in detail["lethe"][large].items()
    }
    return {
        "step_us": medians,
        "build_s": round(sum(build[large][part] for part in ("vocabulary_s", "phrases_s", "union_s")), 2),
        "memory_mb": round(sum(build[large][part] for part in ("vocabulary_mb", "phrases_mb")), 1),
        "baselines": {
            "token_trie_us": detail["token_trie"],
            "bad_words_us": detail["bad_words"],
            "scan_us_batch1_scaled": scans,
        },
        "lethe_us": detail["lethe"],
        "build": build,
        "machine": {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
