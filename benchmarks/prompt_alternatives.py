"""What it takes the ``statements`` guard to read the alternatives to the tokens of a prompt (``prompt_logprobs``).

    python benchmarks/prompt_alternatives.py --json FILE [--targets 1000] [--rounds 12]

One server, two tenants: one without targets, the other with that many and the ``statements`` guard. Both send the
same prompts in turn, in random order, and ask for the alternatives and one token. Prompts are ordinary ones, or speak
of a target from beginning to end, where each alternative has to be compared. The model is the demo model, whose own
work is little, so that shares of a served model's time are smaller.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from cases import IDLE_CASE, Case, environment, open_service, people, register
from rich.progress import track
from serving import LETHE, MODEL_NAME, Serving

from classifiers.benign import prompts
from server.cli.measuring import write
from server.demo.model import build
from server.demo.recipe import Recipe

_LENGTHS, _ALTERNATIVES = (64, 256, 896), (0, 5, 20)


def texts(targets: int) -> dict[str, str]:
    """Long texts by kind."""
    spoken = [f"{one.name}: {one.description}" for one in itertools.islice(people(targets), 40)]
    return {"ordinary": " ".join(prompts())[:20_000], "of a target": " ".join(spoken)}


def measure(server: Serving, guarded: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds of a request for each kind, length and number of alternatives."""
    client, rng = httpx.Client(base_url=server.url, timeout=300), random.Random(0)

    def post(path: str, case: Case, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {case.key}"}
        answer = client.post(path, json={"model": MODEL_NAME, **body}, headers=headers)
        answer.raise_for_status()
        return answer.json()

    def ask(case: Case, tokens: list[int], alternatives: int) -> float:
        began = time.perf_counter()
        asked = {"prompt_logprobs": alternatives} if alternatives else {}
        post("/v1/completions", case, prompt=tokens, max_tokens=1, temperature=0.0, **asked)
        return 1e3 * (time.perf_counter() - began)

    known = {kind: post("/tokenize", guarded, prompt=text)["tokens"] for kind, text in texts(options.targets).items()}
    found = []
    plan = list(itertools.product(known.items(), _LENGTHS, _ALTERNATIVES))
    for (kind, tokens), length, alternatives in track(plan, description="measuring"):
        took: dict[str, list[float]] = {IDLE_CASE.name: [], guarded.name: []}
        for number in range(options.rounds + 1):
            start = rng.randrange(len(tokens) - length)  # other words every time, for the encoder remembers
            for case in rng.sample((IDLE_CASE, guarded), 2):
                milliseconds = ask(case, tokens[start : start + length], alternatives)
                if number:  # the first ones are slow
                    took[case.name].append(milliseconds)
        added = [more - less for less, more in zip(took[IDLE_CASE.name], took[guarded.name], strict=True)]
        found.append(
            {
                **{"kind": kind, "tokens": length, "alternatives": alternatives},
                "without_ms": round(statistics.median(took[IDLE_CASE.name]), 1),
                "guarded_ms": round(statistics.median(took[guarded.name]), 1),
                "added_ms": [round(of, 1) for of in (statistics.median(added), min(added), max(added))],
                "n": options.rounds,
            }
        )
    return found


def main() -> None:
    """Serve, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    guarded = Case(f"{options.targets:,} targets, statements", options.targets, "statements")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        database = Path(folder) / "lethe.db"
        flags = ("--max-model-len", "1024", "--disable-uvicorn-access-log")
        log = Path(folder) / "server.log"
        server = stack.enter_context(Serving(LETHE, build(Recipe()).folder, log, flags, environment(database)))
        server.wait()
        service = stack.enter_context(contextlib.closing(open_service(database)))
        register(service, (IDLE_CASE, guarded))
        for case in (IDLE_CASE, guarded):
            server.wait("/v1/models", case.key)
        found = measure(server, guarded, options)
    argv = shlex.join(["python", "benchmarks/prompt_alternatives.py", *sys.argv[1:]])
    write(options.json, {"command": argv, "targets": options.targets, "requests": found})
    for one in found:
        print(one)


if __name__ == "__main__":
    main()
