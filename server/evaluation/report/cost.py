"""What things cost: one function for each kind of results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.evaluation.bars import within_bars
from server.evaluation.report.results import Figures, Kind, Table, number, table

_WITHIN = {True: "yes", False: "no", None: "cannot be told"}


def overhead(figures: Figures) -> list[Table]:
    """Clean traffic beside plain vLLM, memory, and the functions that take most CPU time."""
    bars = (
        (
            name,
            *(case["bars"][figure] for figure in ("throughput_ratio", "ttft_added_ms", "ttft_ratio")),
            _WITHIN[within_bars(case["clients"])],
        )
        for name, case in figures["cases"].items()
    )
    heading = (
        "Throughput at most clients, first token at one client; within the bars: at least 0.97, at most 3 % or 3 ms; "
        "it cannot be told where the interval of a figure has its bar inside"
    )
    headings = ("case", "throughput of plain", "first token, added ms", "of plain", "within the bars")
    tables = [table(headings, bars, heading)]
    columns = (
        "case",
        "requests",
        "tokens/s",
        "of plain (interval)",
        "first token p50, ms",
        "added (interval)",
        "next token p50, ms",
        "whole answer p50, ms",
        "CPU of the HTTP process, ms a request",
    )
    clients = next(iter(figures["cases"].values()))["clients"]
    for count in clients:
        rows = (_case(name, of["clients"][count]) for name, of in figures["cases"].items())
        tables.append(table(columns, rows, f"{count} client{'s' if count != '1' else ''}"))
    memory = ((name, of["api_mb"], of["all_mb"]) for name, of in figures["memory"].items())
    tables.append(table(("resident memory", "HTTP process, MB", "all processes, MB"), memory, "Memory"))
    setting = {**figures["options"], **figures["machine"], "guards acted": figures["guards_acted"]}
    setting["load before and after"] = [round(of[0], 1) for of in figures["loadavg"]]
    tables.append(table(("setting", "value"), setting.items(), "How it was measured"))
    for case, of in figures.get("profile", {}).items():
        shares = [(f"{name}, with all that it calls", share) for name, share in of["lethe_with_callees"][:10]]
        spent = f"{number(of['main_thread_ms_per_request'])} ms a request, profiled"
        tables.append(table(("function", "share"), [*of["functions"][:10], *shares], f"Main thread, {case}: {spent}"))
    return tables


def _case(name: str, of: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        name,
        of["requests"],
        of["tokens_per_s"],
        f"{of['throughput_ratio']:.3f}{_within(of['throughput_ratio_interval'], '.3f')}",
        of["ttft_p50_ms"],
        f"{of['ttft_added_ms']:+.1f}{_within(of['ttft_added_ms_interval'], '+.1f')}",
        of["tpot_p50_ms"],
        of["answer_p50_ms"],
        of["api_cpu_ms_per_request"],
    )


def _within(interval: Sequence[float] | None, form: str) -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"


def prompt_alternatives(figures: Figures) -> list[Table]:
    """Milliseconds of requests that ask for alternatives to the tokens of their prompts."""
    rows = (
        (
            f"{of['kind']}, {of['tokens']} tokens, {of['alternatives']} alternatives",
            of["without_ms"],
            of["guarded_ms"],
            "{:+.1f} ({:+.1f} to {:+.1f})".format(*of["added_ms"]),
        )
        for of in figures["requests"]
    )
    return [table(("prompt", "without, ms", "guarded, ms", "added, median (range)"), rows)]


def detector(figures: Figures) -> list[Table]:
    """Milliseconds of a verdict, by targets, requests at once and length."""
    targets = list(figures["p50_ms"])
    headings = [f"{int(count):,} targets" for count in targets]

    def cells(by_targets: Mapping[str, Any]) -> list[str]:
        return [f"{by_targets[count]['p50']:.1f} / {by_targets[count]['p99']:.1f}" for count in targets]

    at_once = [(f"{clients} at once, 32 tokens", *cells(of)) for clients, of in figures["by_concurrency"].items()]
    longer = [(f"{tokens} tokens, alone", *cells(of)) for tokens, of in figures["by_length"].items()]
    register = ((int(count), seconds) for count, seconds in figures["register_s"].items())
    return [
        table(("requests", *headings), [*at_once, *longer], "Milliseconds, p50 / p99"),
        table(("targets already there", "seconds to register one"), register, "Registering"),
    ]


def decoding(figures: Figures) -> list[Table]:
    """Microseconds of a decoding step, ours and others', and what is built before."""
    vocabulary = max(figures["lethe_us"], key=int)
    phrases = list(figures["step_us"]["batch1"])
    headings = [f"{int(count):,} phrases" for count in phrases]
    ways = {"Lethe": figures["lethe_us"]} | {
        name.removesuffix("_us").replace("_", " "): of
        for name, of in figures["baselines"].items()
        if "batch64" in of.get(vocabulary, {})
    }
    step = [
        (f"{name}, {batch.replace('batch', 'batch of ')}", *(of[vocabulary][batch][count]["p50"] for count in phrases))
        for name, of in ways.items()
        for batch in of[vocabulary]
    ]
    built = (
        (name.replace("_", " "), *(of[name] for of in figures["build"].values()))
        for name in figures["build"][vocabulary]
    )
    sizes = [f"{int(size):,} tokens" for size in figures["build"]]
    return [
        table(("step", *headings), step, f"Microseconds of a step, p50, vocabulary of {int(vocabulary):,} tokens"),
        table(("with 100,000 phrases", *sizes), built, "Building; s: seconds, mb: megabytes"),
    ]


def semantic_stage(figures: Figures) -> list[Table]:
    """Milliseconds of a clause, and throughput with and without the guard."""
    kinds = next(iter(figures["clause_ms"].values()))
    clause = [
        (f"targets: {int(count):,}", *(f"{of[kind]['p50']:.2f} / {of[kind]['p99']:.2f}" for kind in kinds))
        for count, of in figures["clause_ms"].items()
    ]
    traffic = (
        (
            kind,
            of["tokens_s"]["off"],
            of["tokens_s"]["on"],
            of["share"],
            f"{min(of['rounds']):.2f} to {max(of['rounds']):.2f}",
            of["cpu_us"]["off"],
            of["cpu_us"]["on"],
        )
        for kind, of in figures["throughput"].items()
    )
    columns = ("traffic", "tokens/s without", "with", "share taken", "rounds", "CPU us a token without", "with")
    return [
        table(("a clause", *kinds), clause, "Milliseconds, p50 / p99"),
        table(columns, traffic, "Output throughput"),
    ]


def tenants(figures: Figures) -> list[Table]:
    """Throughput with so many edited tenants in one batch."""
    share = figures["share_of_no_tenant"]
    names = {"edit_table": "Lethe's edit table", "lora": "LoRA adapters in vLLM"}
    counts = list(next(iter(share.values())))
    rows = [(names.get(name, name), *(of[count] for count in counts)) for name, of in share.items()]
    enabled = [("LoRA enabled, no adapter used, beside the edit table", figures["lora_enabled_share"])]
    return [
        table(("tenants in the batch", *counts), rows, "Share of the throughput of the same engine without tenants"),
        table(("", "share"), enabled, "What having LoRA costs"),
    ]


def compiling(figures: Figures) -> list[Table]:
    """Seconds to compile a target, and what that costs traffic."""
    seconds = [(method, of["first"], of["median_of_later"], of["n"]) for method, of in figures["seconds"].items()]
    traffic = figures["traffic"]
    rows = [(traffic[name] for name in ("idle_tokens_s", "compiling_tokens_s", "ratio", "seconds_of_all_methods"))]
    return [
        table(("method", "first target", "later ones, median", "n"), seconds, "Seconds"),
        table(
            ("tokens/s idle", "while compiling", "ratio", "seconds that a target then takes, all methods"),
            rows,
            "Traffic meanwhile",
        ),
    ]


def tap(figures: Figures) -> list[Table]:
    """What reading features takes of a first token and of a step, beside plain vLLM."""
    columns = ("features", "median, ms", "of plain", "a quarter below", "a quarter above")
    return [
        table(
            columns,
            [
                (kind, value, figures["ratio"][what][kind], *figures["quartiles"][what][kind])
                for kind, value in figures[what].items()
            ],
            f"{title}, {figures['n'][what]} pairs",
        )
        for what, title in (
            ("first_token_ms", "The first token"),
            ("step_ms", "A step of decoding, 8 requests at once"),
        )
    ]


KINDS = (
    Kind(
        "overhead",
        "Overhead beside plain vLLM",
        "python benchmarks/overhead.py --profile --json benchmarks/results/overhead.json",
        overhead,
        "Medians over the rounds, and the intervals in which they lie with 95 % confidence; every run was compared "
        'with one of plain vLLM just before or after it. The case "plain" is plain vLLM beside itself.',
    ),
    Kind(
        "prompt_alternatives",
        "Alternatives to the tokens of a prompt, judged",
        "python benchmarks/prompt_alternatives.py --json benchmarks/results/prompt_alternatives.json",
        prompt_alternatives,
        "The demo model, whose own work is little; without and with the statements guard, 1,000 targets.",
    ),
    Kind("detector", "A verdict", "python benchmarks/detector.py --json benchmarks/results/detector.json", detector),
    Kind(
        "decoding",
        "A step of decoding",
        "python benchmarks/decoding.py --json benchmarks/results/decoding.json",
        decoding,
    ),
    Kind(
        "semantic_stage",
        "The statements guard",
        "python benchmarks/semantic_stage.py --json benchmarks/results/semantic_stage.json",
        semantic_stage,
        "Engine and encoder shared two cores with other work.",
    ),
    Kind(
        "tap",
        "Features in the forward pass",
        "python benchmarks/tap.py --json benchmarks/results/tap.json",
        tap,
        "none: Lethe's engine, nothing watched; joint: watched beside the text detector, as clean traffic is; watched, "
        "clamped: at every token; plain: how far equal runs of plain vLLM lie apart on this machine.",
    ),
    Kind(
        "tenants",
        "Many tenants in one batch",
        "python benchmarks/tenants.py --rounds 2 --json benchmarks/results/tenants.json",
        tenants,
    ),
    Kind(
        "compile",
        "Compiling",
        "python benchmarks/compile.py --model ../shared/models/tofu-full --targets 8 --rounds 2 "
        "--json benchmarks/results/compile.json",
        compiling,
    ),
)
