"""Transcripts, kept in files that a later run goes on with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from server.evaluation.attacks.session import Transcript


class Transcripts:
    """The transcripts of one attack on one configuration, by attempt."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, Transcript] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the last line was being written when a run was killed
            path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            attempt, transcript = json.loads(line)
            self._kept[attempt] = Transcript(**transcript)

    def __contains__(self, attempt: str) -> bool:
        return attempt in self._kept

    def __getitem__(self, attempt: str) -> Transcript:
        return self._kept[attempt]

    def add(self, attempt: str, transcript: Transcript) -> None:
        """Keep one, in the file too."""
        self._kept[attempt] = transcript
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([attempt, asdict(transcript)]) + "\n")
