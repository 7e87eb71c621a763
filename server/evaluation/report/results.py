"""The JSON files of results, and the tables that they become."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of texts. The first column says what a row is about; all rows are as long as ``columns``."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> Table:
    """A table of whatever can be shown: numbers as by :func:`number`, the rest as text; None is left empty."""
    return Table(tuple(columns), tuple(tuple(map(_cell, row)) for row in rows), title)


def number(value: float) -> str:
    """A number as it is read best: whole ones whole, p values in two digits, others with three decimals at most,
    or four where a rate of one in 300 would be told too roughly."""
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.{4 if abs(value) < 0.01 else 3}f}".rstrip("0").rstrip(".")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Kind:
    """A kind of results file.

    Attributes:
        pattern: of the file's name without ``.json``.
        title: a heading.
        command: what makes the file, unless the file says so itself.
        tables: makes tables of it.
        note: what must be known to read them.
    """

    pattern: str
    title: str
    command: str
    tables: Callable[[Figures], list[Table]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One results file, rendered. ``tables`` is empty, and ``problem`` says why, where that was not possible."""

    name: str
    title: str
    command: str = ""
    note: str = ""
    tables: tuple[Table, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Results:
    """What a folder holds, by file name without ``.json``.

    Attributes:
        folder: where the files are.
        figures: of the files that could be read.
        unreadable: names of those that could not.
    """

    folder: Path
    figures: Mapping[str, Figures]
    unreadable: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Read all ``*.json`` of a folder.

        Raises:
            OSError: there is no such folder, or a file cannot be opened.
        """
        figures, unreadable = {}, []
        for path in sorted(path for path in folder.iterdir() if path.suffix == ".json"):
            try:
                figures[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                unreadable.append(path.stem)
        return cls(folder, figures, tuple(unreadable))

    def sections(self, kinds: Iterable[Kind]) -> list[Section]:
        """The files of each kind in turn, rendered."""
        return [
            _section(kind, name, self.figures[name])
            for kind in kinds
            for name in self.figures
            if fnmatchcase(name, kind.pattern)
        ]

    def missing(self, kinds: Iterable[Kind]) -> list[Kind]:
        """Kinds of which there is no file."""
        return [kind for kind in kinds if not any(fnmatchcase(name, kind.pattern) for name in self.figures)]

    def others(self, kinds: Iterable[Kind]) -> list[str]:
        """Names of files that are of no kind, or unreadable."""
        known = list(kinds)
        strange = [name for name in self.figures if not any(fnmatchcase(name, kind.pattern) for kind in known)]
        return sorted([*strange, *self.unreadable])


def _section(kind: Kind, name: str, figures: Figures) -> Section:
    title = kind.title if kind.pattern == name else f"{kind.title}: {name.removeprefix(kind.pattern.rstrip('*'))}"
    try:
        tables = tuple(kind.tables(figures))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        problem = f"{name}.json has another shape than expected here ({type(error).__name__}: {error})."
        return Section(name, title, problem=problem)
    settings = figures.get("settings") or {}
    measured = ", ".join(f"{what} at {commit}" for what, commit in settings.get("commits", {}).items())
    notes = (kind.note, settings.get("note", ""), measured and f"Measured: {measured}.")
    return Section(name, title, figures.get("command") or kind.command, " ".join(filter(None, notes)), tables)
