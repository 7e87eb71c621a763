"""The plots of the page, of whatever results there are."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from server.evaluation.report.results import Figures, Results


@dataclass(frozen=True)
class Plot:
    """A picture. ``name`` is fit for a file name; ``png`` is None where the files did not have what it shows."""

    name: str
    caption: str
    png: bytes | None


def plots(results: Results) -> Iterator[Plot]:
    """One of each kind, and a heat map for each file of attacks."""
    found = results.figures
    tofu = [found[name] for name in ("tofu", "tofu_constrain") if name in found]
    caption = "Forget against utility on TOFU forget10. The star is the model that never learnt it."
    yield _plot("forget-utility", caption, forget_against_utility, *tofu)
    for name in [name for name in found if name.startswith("attacks_")] or ["attacks"]:
        caption = f"Share of attempts that leak, by attack and configuration of the guards ({name})."
        yield _plot(name.replace("_", "-"), caption, attack_matrix, *([found[name]] if name in found else []))
    caption = "What clean traffic costs beside plain vLLM, by number of clients; bars: 95 % intervals of medians."
    yield _plot("overhead", caption, overhead, *([found["overhead"]] if "overhead" in found else []))


def _plot(name: str, caption: str, draw: Callable[..., Figure], *figures: Figures) -> Plot:
    if not figures:
        return Plot(name, caption, None)
    try:
        drawn = draw(*figures)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Plot(name, caption, None)
    into = io.BytesIO()
    drawn.savefig(into, format="png", dpi=110, metadata={"Software": None})
    return Plot(name, caption, into.getvalue())


def forget_against_utility(*figures: Figures) -> Figure:
    """ROUGE-L of forgotten answers and forget quality, each over model utility; a later file's methods prevail."""
    methods = {name: of for one in figures for name, of in one["methods"].items()}
    methods |= {"retrained": figures[0]["reference"]}
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, key in ((left, "forget_rouge"), (right, "forget_quality")):
        at: dict[tuple[float, str], list[str]] = {}
        for name, of in methods.items():
            at.setdefault((round(of["model_utility"], 2), f"{max(of[key], 1e-30):.1e}"), []).append(name)
        for (utility, value), names in at.items():
            star = "retrained" in names
            axes.plot(utility, float(value), "*" if star else "o", markersize=12 if star else 7)
            axes.annotate(
                ", ".join(names), (utility, float(value)), (-7, 4), textcoords="offset points", ha="right", fontsize=8
            )
        axes.margins(x=0.25)
    _labels(left, "model utility", "ROUGE-L of answers to be forgotten")
    _labels(right, "model utility", "forget quality (p, higher is better)")
    right.set_yscale("log")
    return figure


def attack_matrix(figures: Figures) -> Figure:
    """A heat map of leak rates, with the numbers in it."""
    rows, columns = figures["rows"], figures["columns"]
    rates = np.array([[figures["leak_rate"][row].get(column, np.nan) for column in columns] for row in rows], float)
    figure = Figure(figsize=(2.5 + 0.9 * len(columns), 1.5 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for (row, column), rate in np.ndenumerate(rates):
        if not np.isnan(rate):
            colour = "white" if rate > 0.6 else "black"
            axes.text(column, row, f"{rate:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="leak rate")
    return figure


def overhead(figures: Figures) -> Figure:
    """Throughput beside plain vLLM and milliseconds added to the first token, over the number of clients."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    cases = {name: of["clients"] for name, of in figures["cases"].items()}
    for number, (name, by_clients) in enumerate(cases.items()):
        places = np.arange(len(by_clients)) + 0.04 * (number - len(cases) / 2)
        for axes, key in ((left, "throughput_ratio"), (right, "ttft_ratio")):
            middle = np.array([of[key] for of in by_clients.values()])
            ends = np.array([of[f"{key}_interval"] or (of[key], of[key]) for of in by_clients.values()]).T
            around = np.maximum(np.abs(ends - middle), 0)
            style = "--" if name.startswith("plain") else "-"
            axes.errorbar(places, middle, around, label=name, marker="o", linestyle=style, linewidth=1, elinewidth=0.5)
        for axes in (left, right):
            axes.set_xticks(range(len(by_clients)), list(by_clients))
    _labels(left, "clients", "throughput, of plain vLLM's")
    _labels(right, "clients", "time to first token, of plain vLLM's")
    left.axhline(0.97, color="grey", linewidth=0.7)
    right.axhline(1.03, color="grey", linewidth=0.7)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def _labels(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
