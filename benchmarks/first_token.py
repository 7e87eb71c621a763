"""How much later the first token comes with guards on: one server, its tenants in turn, request by request.

    python benchmarks/first_token.py --json FILE [--talks 100] [--targets 1000]

``overhead.py`` compares two servers, each of which has the machine to itself in turn; what it tells of the first token
is lost in how the machine differs from minute to minute. Here the tenant without targets, whose requests are passed
through, is compared with others on the same server: each asks a conversation, in random order, round after round. The
tenant without targets takes part twice, which says how far equal things lie apart.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from cases import COMBINATIONS, IDLE_CASE, Case, cases, open_service, register
from overhead import interval
from rich.progress import track
from serving import LETHE, MODEL_NAME, Serving
from traffic import conversations
from widened import widened

from server.cli.measuring import write
from server.demo.model import build
from server.demo.recipe import Recipe

_ADMIN_KEY = "lethe-admin-for-benchmarks"
_FLAGS = ("--max-model-len", "1024", "--disable-uvicorn-access-log")
_TURNS, _WARM, _PARAMETERS = 3, 10, 135_000_000


def first_token(client: httpx.Client, case: Case, messages: list[dict[str, str]]) -> float:
    """Milliseconds until a client sees the first text of an answer."""
    began, seen = time.perf_counter(), None
    body = {"model": MODEL_NAME, "messages": messages, "max_tokens": 3, "temperature": 0.0, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {case.key}"}
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}, headers=headers) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if seen is None and '"content":"' in line and '"content":""' not in line:
                seen = time.perf_counter()
    if seen is None:
        raise RuntimeError("an answer had no text")
    return 1e3 * (seen - began)


def measure(server: Serving, order: list[tuple[str, Case]], talks: int) -> dict[str, dict[str, Any]]:
    """Medians by case, and what they are beside the first of ``order``."""
    asked, rng = conversations(_TURNS, 1, seed=5), random.Random(1)
    took: dict[str, list[float]] = {name: [] for name, _ in order}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for number in track(range(_WARM + talks), description="measuring"):
            for name, case in rng.sample(order, len(order)):
                talk = [first_token(client, case, next(asked)) for _ in range(_TURNS)]
                if number >= _WARM:
                    took[name] += talk
    base = took[order[0][0]]
    found = {}
    for name, of in took.items():
        added = [more - less for less, more in zip(base, of, strict=True)]
        middle = {"ttft_p50_ms": statistics.median(of), "added_ms": statistics.median(added)}
        found[name] = {key: round(value, 2) for key, value in middle.items()}
        found[name] |= {"added_ms_interval": interval(added), "requests": len(of)}
    return found


def main() -> None:
    """Serve, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--talks", type=int, default=100, help="of each tenant")
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--combinations", nargs="+", default=list(COMBINATIONS), choices=list(COMBINATIONS))
    parser.add_argument("--work", type=Path, help="keep the widened model in this folder")
    options = parser.parse_args()
    some = cases([options.targets], options.combinations)[1:]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work, database = Path(options.work or folder), Path(folder) / "lethe.db"
        model = widened(build(Recipe()).folder, work / f"demo-{_PARAMETERS}", _PARAMETERS)
        env = {"LETHE_DATABASE_URL": f"sqlite:///{database}", "LETHE_ADMIN_KEY": _ADMIN_KEY}
        server = stack.enter_context(Serving(LETHE, model, Path(folder) / "server.log", _FLAGS, env))
        server.wait()
        service = stack.enter_context(contextlib.closing(open_service(database, _ADMIN_KEY)))
        register(service, some)
        for case in some:
            server.wait("/v1/models", case.key)
        order = [(case.name, case) for case in some]
        order.insert(1, (f"{IDLE_CASE.name}, again", some[0]))
        found = measure(server, order, options.talks)
    argv = f"python benchmarks/first_token.py --talks {options.talks} --targets {options.targets} --json {options.json}"
    if set(options.combinations) != set(COMBINATIONS):
        argv += " --combinations " + " ".join(f"'{name}'" for name in options.combinations)
    write(options.json, {"command": argv, "cases": found})
    for name, of in found.items():
        print(f"{name:36} {of}")


if __name__ == "__main__":
    main()
