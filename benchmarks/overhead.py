"""What Lethe costs clean traffic, beside plain vLLM: first token, further tokens, throughput, CPU time and memory.

    python benchmarks/overhead.py --json FILE [--quick] [--profile] [--rounds 6] [--targets 10 1000]

Plain ``vllm serve`` and ``lethe serve`` run side by side on the same model, and vLLM's own load generator asks them in
turn: in every round, at every concurrency, every case in random order, and each together with plain vLLM just before or
just after it, by chance. A server that was not asked anything for a while seems to be slower for some time, so both
must have had the same rest; ratios are of a case to the plain run beside it, their medians with the interval in which
these lie with 95 % confidence (of six rounds all that was measured; of fewer none). Where it has a bar inside,
``within_bars`` is null, since it cannot be told. The case "plain" is plain vLLM beside itself.

The model is the demo model, widened to 135M parameters. The traffic is
conversations that grow by a question at a time and name no target; its answers are of equal length. A server that
rested is slow at first, and vLLM's processes spin for a second after an answer, which keeps another server on the same
cores from its work; so that some requests that are not counted go before each measurement.

``clean`` compares the case with most targets and all guards on: throughput at the highest concurrency, time to first
token at the lowest. ``passed_through`` does so for a tenant without targets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import platform
import random
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hot_path
import httpx
import torch
from cases import COMBINATIONS, IDLE_CASE, PLAIN_CASE, Case, cases, environment, open_service, register
from load import Load, drive
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import quantile_test
from serving import LETHE, PLAIN, Serving
from traffic import conversations
from widened import widened

from server.child import ending_on_sigterm
from server.cli.measuring import write
from server.demo.model import build
from server.demo.recipe import Recipe
from server.evaluation.bars import within_bars

_FLAGS = ("--max-model-len", "1024", "--disable-uvicorn-access-log")
#: Requests that each server is given first at each concurrency; the first of any length are slow.
_WARM = 32
#: Requests of each measurement; of fewer a median says nothing.
_LEAST = 6
#: clients -> case -> for each round, plain vLLM and the case beside it
Runs = dict[int, dict[str, list[tuple[Load, Load]]]]


async def measure(
    servers: dict[bool, Serving],
    some: list[Case],
    options: argparse.Namespace,
    bar: Progress,
    after: Callable[[Runs], None],
) -> Runs:
    """Ask every case in turn, ``options.rounds`` times; ``after`` every round it is told what was measured so far."""
    talks = {clients: conversations(options.turns, clients, seed=clients) for clients in options.clients}
    rng = random.Random(0)
    runs: Runs = defaultdict(lambda: defaultdict(list))
    counts: dict[int, int] = {}

    async def ask(case: Case, count: int, clients: int) -> Load:
        """At least ``count`` requests, and only whole conversations, so that none goes on with another server."""
        size = clients * options.turns
        asked = list(itertools.islice(talks[clients], math.ceil(count / size) * size))
        return await drive(servers[case.guards is not None], case.key, asked, options.tokens, clients)

    task = bar.add_task("warming up", total=len(options.clients) * (len(some) + 2))
    for clients in options.clients:
        for case in (PLAIN_CASE, IDLE_CASE):
            load = await ask(case, max(_WARM, 2 * clients), clients)
            speed = load.speeds[0] / options.tokens  # requests a second
            counts[clients] = max(_LEAST, math.ceil(speed * options.seconds))
            bar.advance(task)
        for case in some:
            await ask(case, clients, clients)
            bar.advance(task)
    task = bar.add_task("measuring", total=options.rounds * len(options.clients) * len(some))
    for _ in range(options.rounds):
        for clients, case in ((clients, case) for clients in options.clients for case in rng.sample(some, len(some))):
            found: list[Load] = [Load(), Load()]
            for place in rng.sample((0, 1), 2):
                asked = (PLAIN_CASE, case)[place]
                await ask(asked, 1, clients)
                found[place] = await ask(asked, counts[clients], clients)
            runs[clients][case.name].append((found[0], found[1]))
            bar.advance(task)
        after(runs)
    return runs


def summary(runs: Runs, some: list[Case]) -> dict[str, Any]:
    """For each case and concurrency: medians, and what they are beside plain vLLM, with their intervals."""
    found: dict[str, Any] = {}
    for case in some:
        by_clients = {}
        for clients, of in runs.items():
            whole = Load()
            for _, one in of[case.name]:
                whole += one
            by_clients[str(clients)] = {**whole.summary(), **beside(of[case.name])}
        found[case.name] = {"targets": case.targets, "guards": case.guards, "clients": by_clients}
    for name, of in found.items():
        of["bars"] = headline(name, of["clients"])
    return found


def beside(pairs: list[tuple[Load, Load]]) -> dict[str, Any]:
    """Ratios and differences to plain vLLM: of each the median over the rounds and its interval."""
    figures = [(plain.summary(), other.summary()) for plain, other in pairs]
    compared = {
        "throughput_ratio": [two["tokens_per_s"] / one["tokens_per_s"] for one, two in figures],
        "ttft_added_ms": [two["ttft_p50_ms"] - one["ttft_p50_ms"] for one, two in figures],
        "ttft_ratio": [two["ttft_p50_ms"] / one["ttft_p50_ms"] for one, two in figures],
        "answer_ratio": [two["answer_p50_ms"] / one["answer_p50_ms"] for one, two in figures],
    }
    middle = {name: round(statistics.median(values), 4) for name, values in compared.items()}
    return middle | {f"{name}_interval": interval(values) for name, values in compared.items()}


def interval(values: list[float]) -> list[float] | None:
    """In which the median of what ``values`` are drawn from lies with 95 % confidence, whatever their distribution (by
    their order: the sign test's interval); None of fewer than six.
    """
    found = quantile_test(values, p=0.5).confidence_interval(confidence_level=0.95)
    return None if math.isnan(found.low) else [round(float(found.low), 4), round(float(found.high), 4)]


def headline(case: str, by_clients: dict[str, Any]) -> dict[str, Any]:
    """One case in three figures, and whether they are within the bars; None where it cannot be told."""
    most, least = (by_clients[of(by_clients, key=int)] for of in (max, min))
    return {
        "case": case,
        "throughput_ratio": most["throughput_ratio"],
        "ttft_added_ms": least["ttft_added_ms"],
        "ttft_ratio": least["ttft_ratio"],
        "within_bars": within_bars(by_clients),
    }


def acted(server: Serving) -> float:
    """How often a guard did anything, which in clean traffic should be never."""
    metrics = httpx.get(f"{server.url}/metrics", timeout=30).text
    counts = re.findall(r"^lethe:(?:verdicts|guard_unavailable)_total\{.*\} (\S+)$", metrics, re.M)
    return sum(map(float, counts))


def served(options: argparse.Namespace, folder: Path, bar: Progress) -> dict[str, Any]:
    """The whole report."""
    model = build(Recipe()).folder
    if options.parameters:
        model = widened(model, Path(options.work or folder) / f"demo-{options.parameters}", options.parameters)
    some, database = cases(options.targets, options.combinations), folder / "lethe.db"
    env = environment(database) | {"LETHE_OPEN_METRICS": "1"}
    argv = shlex.join(["python", "benchmarks/overhead.py", *sys.argv[1:]])
    found: dict[str, Any] = {"command": argv, "options": _options(options), "machine": _machine()}
    found["loadavg"] = [os.getloadavg()]
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(Serving(PLAIN, model, folder / "plain.log", _FLAGS))
        lethe = stack.enter_context(Serving(LETHE, model, folder / "lethe.log", _FLAGS, env))
        task = bar.add_task("starting both servers", total=None)
        for server in (plain, lethe):  # both are starting since they were entered
            server.wait()
        bar.remove_task(task)
        memory = {"plain": plain.memory(), "lethe": lethe.memory()}
        service = stack.enter_context(contextlib.closing(open_service(database)))
        task = bar.add_task("registering targets", total=len(some) - 1)
        for count, group in itertools.groupby(some[1:], key=lambda case: case.targets):
            tenants = list(group)
            register(service, tenants)
            for case in tenants:
                lethe.wait("/v1/models", case.key)
                bar.advance(task)
            memory[f"lethe, {count:,} targets"] = lethe.memory()
        idle = {name: _idle(server) for name, server in (("plain", plain), ("lethe", lethe))}

        def keep(runs: Runs) -> None:
            """Write what there is, in case that this is broken off."""
            rounds = len(runs[options.clients[0]][PLAIN_CASE.name])
            write(options.json, {"unfinished_after_rounds": rounds, "cases": summary(runs, some), **found})

        runs = asyncio.run(measure({False: plain, True: lethe}, some, options, bar, keep))
        memory |= {"plain, after the traffic": plain.memory(), "lethe, after the traffic": lethe.memory()}
        found |= {"guards_acted": acted(lethe), "idle_cpu_share": idle, "memory": memory}
    results = summary(runs, some)
    if options.profile:
        command, more = hot_path.command(folder / "profile")
        with Serving(command, model, folder / "profiled.log", _FLAGS, env | more) as server:
            server.wait()
            of = hot_path.profiled(server, (IDLE_CASE, some[-1]), folder / "profile", 48, options.tokens)
            found["profile"] = asyncio.run(of)
    found["loadavg"].append(os.getloadavg())
    clean, through = (results[case.name]["bars"] for case in (some[-1], IDLE_CASE))
    return {"clean": clean, "passed_through": through, "cases": results, **found}


def _idle(server: Serving, seconds: float = 2.0) -> float:
    """How much of one core the server takes while nobody asks anything."""
    before = sum(server.usage())
    time.sleep(seconds)
    return round((sum(server.usage()) - before) / seconds, 4)


def _options(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name not in ("json", "work")}


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def table(report: dict[str, Any]) -> Table:
    """One row for each case and concurrency."""
    columns = ("clients", "tokens/s", "of plain", "TTFT p50 ms", "added ms", "TPOT p50 ms", "answer ms", "API CPU ms")
    shown = Table("case", *columns, title="Clean traffic beside plain vLLM (CPU time is for each request)")
    for name, case in report["cases"].items():
        for clients, of in case["clients"].items():
            shown.add_row(
                name,
                clients,
                f"{of['tokens_per_s']:.1f}",
                f"{of['throughput_ratio']:.3f}",
                f"{of['ttft_p50_ms']:.1f}",
                f"{of['ttft_added_ms']:+.1f}",
                f"{of['tpot_p50_ms']:.2f}",
                f"{of['answer_p50_ms']:.0f}",
                f"{of['api_cpu_ms_per_request']:.1f}",
            )
    return shown


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a look of about three minutes, on the small demo model")
    parser.add_argument("--profile", action="store_true", help="say where the HTTP process spends its CPU time")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--targets", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--combinations", nargs="+", default=list(COMBINATIONS), choices=list(COMBINATIONS))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3, help="questions in a conversation")
    parser.add_argument("--tokens", type=int, default=24, help="of each answer")
    parser.add_argument("--parameters", type=int, default=135_000_000, help="of the model; 0: the demo model as it is")
    parser.add_argument("--work", type=Path, help="keep the widened model in this folder")
    options = parser.parse_args()
    options.targets.sort()
    if options.quick:
        options.rounds, options.seconds, options.parameters = 1, 1.0, 0
        options.clients, options.combinations = [1, 8], ["everything"]
    return options


def main() -> None:
    """See the module."""
    options, console = _arguments(), Console()
    with ending_on_sigterm(), tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        report = served(options, Path(folder), bar)
    write(options.json, report)
    console.print(table(report))
    for name in ("clean", "passed_through"):
        console.print(name, report[name], highlight=False)
    if report["guards_acted"]:
        console.print(f"Guards acted {report['guards_acted']:.0f} times: the traffic was not clean.", style="bold red")


if __name__ == "__main__":
    main()
