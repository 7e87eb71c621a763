"""Files of rows in JSON, of which a row of another shape is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def json_lines(path: Path) -> list[dict[str, Any]]:
    """One JSON object a line; empty lines do not count.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no JSON object; the message says which.
    """
    text = _text(path)
    return _objects(path, "line", ((at, line) for at, line in enumerate(text.split("\n"), 1) if line.strip()))


def json_list(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such list.
    """
    rows = _parsed(path, "", _text(path))
    if not isinstance(rows, list):
        raise ValueError(f"{path} must be a JSON list, not {_what(rows)}")
    return _objects(path, "row", enumerate(rows, 1))


def texts(value: object, what: str) -> tuple[str, ...]:
    """A list of texts or numbers, as texts. Raises ``ValueError`` with ``what`` it was to be if it is none."""
    if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
        raise ValueError(f"{what} must be a list of texts, not {_what(value)}")
    return tuple(map(str, value))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None


def _parsed(path: Path, place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}{place} is not JSON: {error}") from None


def _objects(path: Path, unit: str, rows: Iterable[tuple[int, Any]]) -> list[dict[str, Any]]:
    found = []
    for at, raw in rows:
        row = _parsed(path, f", line {at}", raw) if unit == "line" else raw
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {unit} {at}: must be a JSON object, not {_what(row)}")
        found.append(row)
    return found


def _what(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
