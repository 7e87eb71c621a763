"""What a detector is told about a target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of one revision of one target. Everything but ``key`` and ``name`` may be empty.

    ``forget_examples`` and ``retain_examples`` are (prompt, completion or None) pairs.
    """

    key: str
    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    forget_examples: tuple[tuple[str, str | None], ...] = ()
    retain_examples: tuple[tuple[str, str | None], ...] = ()
