"""``lethe eval attacks``: everything from a subject to its figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.evaluation.attacks import report
from server.evaluation.attacks.attack import Probe
from server.evaluation.attacks.configurations import NONE, REFERENCE
from server.evaluation.attacks.kinds import ATTACKS
from server.evaluation.attacks.kinds.kept import Benign, Retain
from server.evaluation.attacks.kinds.plain import Plain
from server.evaluation.attacks.kinds.turns import RETAIN_ANSWERED, Mixed
from server.evaluation.attacks.run import Progress, Serve, ask, plan, transcripts
from server.evaluation.attacks.subjects import Subject

_RETAIN, _BENIGN = Retain(), Benign()


def evaluate(
    subject: Subject,
    serve: Serve,
    serve_reference: Serve,
    work: Path,
    *,
    attacks: Sequence[str],
    configurations: Sequence[str],
    seed: int = 0,
    limit: int | None = None,
    place: str = "",
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """The matrix of a subject.

    Args:
        subject: what is attacked.
        serve: gives a server of its model.
        serve_reference: gives a server of the model that never learnt.
        work: where transcripts are kept.
        attacks: names of rows.
        configurations: names of columns. The untouched model is asked in any case.
        seed: decides which facts are attacked, and how.
        limit: at most so many attempts of each attack.
        place: names the server of ``serve`` if it runs already; its answers are kept apart.
        progress: told how far it is.

    Raises:
        OSError: the work folder cannot be written, or a model is missing.
        ServedError, httpx.HTTPError: a server does not answer as it should.
    """
    began = time.monotonic()
    chosen = [ATTACKS[name] for name in attacks]
    probes = [attack for attack in chosen if isinstance(attack, Probe)]
    rows = [attack for attack in chosen if not isinstance(attack, Probe)]
    columns = list(dict.fromkeys((NONE, *configurations)))
    everything = [*chosen, _RETAIN, _BENIGN]
    attempts = plan(subject, everything, seed, limit)
    asked = transcripts(subject, everything, columns, seed, work, place)
    ask(subject, attempts, asked, serve, serve_reference, progress)
    kept, benign = (
        report.harmless(attempts[one.name], asked[NONE][one.name], subject.forget) for one in (_RETAIN, _BENIGN)
    )
    figures = report.matrix(rows, attempts, asked)
    return {
        "model": str(subject.model),
        "targets": len(subject.forget),
        "told": sorted({field for person in subject.forget for field in person.target}),
        **figures,
        "membership_advantage": report.advantages(probes, attempts, asked),
        "mixed_retain_answered": (
            report.noted(Mixed.name, RETAIN_ANSWERED, attempts[Mixed.name], asked) if Mixed.name in attempts else {}
        ),
        "retain": report.same_as_untouched(_RETAIN.name, kept, asked),
        "benign_false_alarms": {
            name: round(1 - same, 4) for name, same in report.same_as_untouched(_BENIGN.name, benign, asked).items()
        },
        "validation": {
            "untouched": figures["leak_rate"].get(Plain.name, {}).get(NONE),
            "reference": figures["leak_rate"].get(Plain.name, {}).get(REFERENCE),
        },
        "n_retain": len(kept),
        "n_benign": len(benign),
        "left_out": {
            one.name: len(attempts[one.name]) - len(some) for one, some in ((_RETAIN, kept), (_BENIGN, benign))
        },
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
    }
