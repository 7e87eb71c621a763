"""``lethe serve`` as a child process: for the demo, and for what measures a server of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

MODEL_NAME = "lethe-demo"
ON_GPU = shutil.which("nvidia-smi") is not None
#: Flags with which a model's server and its reference's fit on one GPU; on a CPU the space of the KV cache is set.
BESIDE_ANOTHER = ("--gpu-memory-utilization", "0.4") if ON_GPU else ()
_READY_WITHIN = 600.0  # seconds; a first start compiles the model, which takes minutes beside other work
_STOP_WITHIN = 30.0
_LOG_LINES = 30


class ServerFailed(RuntimeError):
    """The server did not become ready; the message ends with the last lines of its log."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM raises ``SystemExit(143)`` here, so that servers in groups of their own are not left behind.

    Blocks may be within each other. Off the main thread, where signals cannot be handled, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _end:
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would break off what this one has taken away
    raise SystemExit(128 + number)


class Server:
    """``lethe serve`` as a process group of its own, with its state in ``folder``."""

    def __init__(
        self,
        model: Path,
        port: int,
        admin_key: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        self.base_url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        self._command = [
            *(sys.executable, "-m", "server.cli", "serve", str(model)),
            *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL_NAME),
            *("--max-model-len", "2048"),
            *BESIDE_ANOTHER,
            *flags,
        ]
        self._environment = os.environ | {
            "LETHE_ADMIN_KEY": admin_key,
            "LETHE_DATABASE_URL": f"sqlite:///{folder / 'lethe.db'}",
            "HF_HUB_OFFLINE": "1",
            **(environment or {}),
        }
        self._environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready. Raises :class:`ServerFailed` if it ends or takes too long."""
        with self.log.open("ab") as log:
            process = self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _READY_WITHIN
        while time.monotonic() < deadline:
            if process.poll() is not None:  # perhaps since it was stopped meanwhile
                raise ServerFailed(f"the server ended with status {process.returncode}\n{self._tail()}")
            if self._is_ready():
                return
            time.sleep(0.5)
        self.kill()
        raise ServerFailed(f"the server was not ready after {_READY_WITHIN:.0f} s\n{self._tail()}")

    def restart(self) -> None:
        """Kill it as a power cut would, and start it again."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """``kill -9`` of the server and all its engine processes."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and insist if it does not."""
        self._signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until it ends by itself."""
        if self._process:
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_WITHIN)
        except ProcessLookupError:
            process.wait()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.base_url}/ready", timeout=5.0).is_success
        except httpx.TransportError:
            return False

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
