"""Where the process with the HTTP server spends its CPU time: ``lethe serve`` under cProfile, while it is asked.

Run as a script, this is ``lethe serve`` that profiles its main thread from SIGUSR1 to SIGUSR2 and then writes what it
found to the file named by ``LETHE_PROFILE``. CPU time is counted, not waiting; cProfile's own cost falls on functions
that are called often, so shares are rough.
"""

from __future__ import annotations

import cProfile
import itertools
import marshal
import os
import pstats
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import Case
from load import drive
from serving import Serving
from traffic import conversations

_OWN = ("guard/", "server/", "classifiers/", "sae_features/")
_TOP = 25
_CLIENTS, _TURNS = 4, 3


def command(into: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """What starts a server that can be profiled, and its environment."""
    return (__file__, "serve"), {"LETHE_PROFILE": str(into)}


async def profiled(server: Serving, some: Sequence[Case], into: Path, requests: int, tokens: int) -> dict[str, Any]:
    """For each case, milliseconds of CPU time a request and the functions that take most of it."""
    found, talk = {}, conversations(_TURNS, _CLIENTS, seed=99)
    for case in some:
        await drive(server, case.key, list(itertools.islice(talk, _CLIENTS * _TURNS)), tokens, _CLIENTS)
        into.unlink(missing_ok=True)
        server.process.send_signal(signal.SIGUSR1)
        await drive(server, case.key, list(itertools.islice(talk, requests)), tokens, _CLIENTS)
        server.process.send_signal(signal.SIGUSR2)
        while not into.exists():
            time.sleep(0.1)
        found[case.name] = {"requests": requests, **_summary(marshal.loads(into.read_bytes()), requests)}
    return found


def _summary(raw: dict[str, Any], requests: int) -> dict[str, Any]:
    """Shares of the main thread's CPU time: by function's own time, and Lethe's functions with all that they call."""
    stats, whole = raw["stats"], raw["main_s"]
    own = sorted(((row[2] / whole, where) for where, row in stats.items()), reverse=True)
    whole_calls = sorted(((row[3] / whole, where) for where, row in stats.items() if _is_own(where)), reverse=True)
    return {
        "main_thread_ms_per_request": round(whole / requests * 1e3, 2),
        "other_threads_ms_per_request": round((raw["process_s"] - whole) / requests * 1e3, 2),
        "functions": [[_named(where), round(share, 4)] for share, where in own[:_TOP]],
        "lethe_with_callees": [[_named(where), round(share, 4)] for share, where in whole_calls[:_TOP]],
        "lethe_own_share": round(sum(share for share, where in own if _is_own(where)), 4),
        "outside_python_share": round(1 - sum(share for share, _ in own), 4),
    }


def _is_own(where: tuple[str, int, str]) -> bool:
    root = str(Path(__file__).parents[1])
    return where[0].startswith(tuple(f"{root}/{folder}" for folder in _OWN))


def _named(where: tuple[str, int, str]) -> str:
    """A function as ``folder/module.py:function``, whatever the machine's folders are called."""
    file, _, name = where
    return name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{name}"


def _serve() -> None:
    """``lethe`` with the arguments given, which two signals profile."""
    profile, began = cProfile.Profile(time.thread_time), [0.0, 0.0]

    def start(*_: object) -> None:
        began[:] = time.thread_time(), time.process_time()
        profile.clear()
        profile.enable()

    def stop(*_: object) -> None:
        profile.disable()
        main_s, process_s = time.thread_time() - began[0], time.process_time() - began[1]
        stats = {where: row[:4] for where, row in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
        into = Path(os.environ["LETHE_PROFILE"])
        into.with_suffix(".part").write_bytes(marshal.dumps({"stats": stats, "main_s": main_s, "process_s": process_s}))
        into.with_suffix(".part").replace(into)

    signal.signal(signal.SIGUSR1, start)
    signal.signal(signal.SIGUSR2, stop)

    from server.cli import main

    main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _serve()
