"""What others report, beside what is measured here. Their models, data and machines are not ours: no ranking."""

from __future__ import annotations

import json
from importlib.resources import files

from server.evaluation.report.results import Results, Table, number, table

NOTE = (
    "Figures marked as theirs were read where the last column says, not measured here; other models, other data, other "
    "machines. They show orders of magnitude and rank nothing."
)


def published(results: Results) -> Table:
    """Each published figure, with its source, and the nearest of ours where there is one."""
    given = json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))
    rows = (
        (
            one["figure"],
            f"{one['theirs']} (theirs)",
            one["system"],
            one["setting"],
            _ours(results, one["ours"]),
            one["what"],
            f"{one['source']}; {one['seen']}",
        )
        for one in given
    )
    return table(("figure", "published", "of", "setting", "here", "what of ours", "source"), rows)


def _ours(results: Results, path: list[str]) -> str | None:
    value: object = results.figures
    for key in path:
        value = value.get(key) if hasattr(value, "get") else None
    return number(value) if isinstance(value, int | float) else None
