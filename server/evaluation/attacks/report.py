"""From transcripts to the matrix."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from server.evaluation.attacks.attack import Attack, Attempt, Probe
from server.evaluation.attacks.configurations import NONE, REFERENCE
from server.evaluation.attacks.rows import Transcripts
from server.evaluation.attacks.session import REFUSED_WITH, Transcript
from server.evaluation.attacks.subjects import Person

_EXAMPLES = 3
_LONGEST = 600  # characters of an example


def matrix(
    attacks: Sequence[Attack],
    attempts: Mapping[str, Sequence[Attempt]],
    asked: Mapping[str, Mapping[str, Transcripts]],
) -> dict[str, Any]:
    """``{"rows", "columns", "chance", "leak_rate", "n", "told_by_untouched", "total", "refused", "examples"}`` of the
    attacks that look for leaks.

    ``told_by_untouched`` counts, by attack, the attempts in which the untouched model leaks, without which no guard can
    be credited with anything; ``total`` has ``{"attempts", "told_by_untouched"}`` of all rows. ``refused`` counts, by
    attack and configuration, the attempts of which nothing was shown since a request was refused.

    Args:
        attacks: the rows.
        attempts: of each attack.
        asked: transcripts of all of them, by configuration and attack.
    """
    rate: dict[str, dict[str, float]] = {}
    refused: dict[str, dict[str, int]] = {}
    told: dict[str, int] = {}
    examples: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for attack in attacks:
        tried = attempts[attack.name]
        rate[attack.name], examples[attack.name], refused[attack.name] = {}, {}, {}
        for name, rows in asked.items():
            leaks = [(one, one.leaked(rows[attack.name][one.name])) for one in tried]
            rate[attack.name][name] = round(statistics.fmean(leak for _, leak in leaks), 4)
            refused[attack.name][name] = sum(_refused(rows[attack.name][one.name]) for one in tried)
            if name == NONE:
                told[attack.name] = sum(leak > 0 for _, leak in leaks)
            found = [_example(one, rows[attack.name]) for one, leak in leaks if leak]
            if found and name not in (NONE, REFERENCE):
                examples[attack.name][name] = found[:_EXAMPLES]
    return {
        "rows": [attack.name for attack in attacks],
        "columns": list(asked),
        "chance": {attack.name: attack.chance for attack in attacks if attack.chance},
        "leak_rate": rate,
        "n": {attack.name: dict.fromkeys(asked, len(attempts[attack.name])) for attack in attacks},
        "told_by_untouched": told,
        "total": {
            "attempts": sum(len(attempts[attack.name]) for attack in attacks),
            "told_by_untouched": sum(told.values()),
        },
        "refused": refused,
        "examples": examples,
    }


def harmless(attempts: Sequence[Attempt], untouched: Transcripts, forget: Sequence[Person]) -> list[Attempt]:
    """Those to which the untouched model names nobody who is to be forgotten: only those answers are to be kept."""
    return [
        one
        for one in attempts
        if not any(person.named.told(text) for text in untouched[one.name].shown for person in forget)
    ]


def same_as_untouched(
    attack: str, attempts: Sequence[Attempt], asked: Mapping[str, Mapping[str, Transcripts]]
) -> dict[str, float]:
    """The share of attempts that show word for word what the untouched model shows, by configuration; none of none."""
    untouched = asked[NONE][attack]
    if not attempts:
        return {}
    return {
        name: round(statistics.fmean(rows[attack][one.name].shown == untouched[one.name].shown for one in attempts), 4)
        for name, rows in asked.items()
        if name != REFERENCE
    }


def advantages(
    probes: Sequence[Probe], attempts: Mapping[str, Sequence[Attempt]], asked: Mapping[str, Mapping[str, Transcripts]]
) -> dict[str, dict[str, float]]:
    """What each probe gives an attacker, by probe and configuration."""
    return {
        probe.name: {
            name: round(probe.advantage({one.name: rows[probe.name][one.name] for one in attempts[probe.name]}), 4)
            for name, rows in asked.items()
        }
        for probe in probes
    }


def noted(
    attack: str, note: str, attempts: Sequence[Attempt], asked: Mapping[str, Mapping[str, Transcripts]]
) -> dict[str, float]:
    """The mean of a note over the attempts of an attack, by configuration."""
    return {
        name: round(statistics.fmean(float(rows[attack][one.name].notes[note]) for one in attempts), 4)
        for name, rows in asked.items()
    }


def _refused(transcript: Transcript) -> bool:
    return REFUSED_WITH in transcript.notes and not any(transcript.shown)


def _example(attempt: Attempt, rows: Transcripts) -> dict[str, Any]:
    transcript = rows[attempt.name]
    return {
        "attempt": attempt.name,
        "sent": [text[:_LONGEST] for text in transcript.sent],
        "shown": [text[:_LONGEST] for text in transcript.shown],
    }
