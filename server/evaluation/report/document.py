"""``docs/results.md``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from server.evaluation.report import cost, quality, suites
from server.evaluation.report.published import NOTE, published
from server.evaluation.report.results import Kind, Results, Section, Table

#: Every kind of file that is known, in the order in which it is shown.
KINDS: tuple[Kind, ...] = (*quality.KINDS, *suites.KINDS, *cost.KINDS)
_ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", "\n": " "})


def document(results: Results, folder: Path) -> str:
    """Markdown with the tables of all files. The same files give the same text.

    Args:
        results: the files.
        folder: where the document will be, for its links.
    """
    place = Path(os.path.relpath(results.folder, folder)).as_posix()
    lines = [
        "# Results",
        "",
        "Generated from the files in `benchmarks/results` by `lethe eval report`; do not edit.",
        "",
    ]
    for section in results.sections(KINDS):
        lines += _section(section, place)
    lines += ["## Published figures", "", NOTE, "", *_markdown(published(results)), ""]
    if missing := results.missing(KINDS):
        lines += ["## Not measured yet", "", *(f"* {kind.title}: `{kind.command}`" for kind in missing), ""]
    if others := results.others(KINDS):
        lines += ["## Other files", "", *(f"* [{name}.json]({place}/{name}.json)" for name in others), ""]
    return "\n".join(lines)


def _section(section: Section, place: str) -> Iterator[str]:
    yield from (f"## {section.title}", "")
    if section.problem:
        yield from (section.problem, "")
        return
    yield from (f"[{section.name}.json]({place}/{section.name}.json), made by `{section.command}`", "")
    if section.note:
        yield from (section.note, "")
    for table in section.tables:
        if table.title:
            yield from (f"**{table.title}**", "")
        yield from (*_markdown(table), "")


def _markdown(table: Table) -> Iterator[str]:
    for row in (table.columns, ("---",) * len(table.columns), *table.rows):
        yield "| " + " | ".join(cell.translate(_ESCAPED) for cell in row) + " |"
