"""A real ``lethe serve`` process for tests, and the demo model that it serves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from server.child import BESIDE_ANOTHER

ADMIN_KEY = "lethe-admin-for-tests-only"
MODEL_NAME = "demo"


class LetheServer:
    """Starts, kills and restarts a server on a free port with its own database.

    Args:
        model: a model folder.
        folder: where the database and the log are kept; a restart finds them again.
        flags: more flags of ``lethe serve``.
        env: more environment variables.
    """

    def __init__(self, model: Path, folder: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._command = [sys.executable, "-m", "server.cli", "serve", str(model), "--served-model-name", MODEL_NAME]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), "--max-model-len", "1024"]
        self._command += [*BESIDE_ANOTHER, *flags]  # some tests start a second server beside the session's
        self._env = {
            **os.environ,
            "LETHE_DATABASE_URL": f"sqlite:///{folder / 'lethe.db'}",
            "LETHE_ADMIN_KEY": ADMIN_KEY,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_RESPONSES_API_STORE": "1",
            "HF_HUB_OFFLINE": "1",
            **(env or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=60)

    def start(self, timeout: float = 240.0) -> LetheServer:
        """Start and wait until ``/ready`` says so."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/ready", timeout=30).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.25)
        self.kill()
        raise RuntimeError("the server did not become ready:\n" + self.log.read_text()[-4000:])

    def kill(self) -> None:
        """``kill -9``, the engine's processes included."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """Ask it to end and wait; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(60)
        self.kill()
        return status

    # What tests do to it most.

    def tenant(self, name: str, **spec: Any) -> tuple[str, str]:
        """Make a tenant; its id and key."""
        made = self.admin.post("/v1/guard/tenants", json={"name": name, **spec}).raise_for_status().json()
        return made["id"], made["api_key"]

    def target(self, name: str, **spec: Any) -> str:
        """Register a target; its id."""
        return self.admin.post("/v1/guard/targets", json={"name": name, **spec}).raise_for_status().json()["id"]

    def enable(self, tenant: str, target: str, **toggle: Any) -> None:
        """Switch a target on for a tenant (or as ``toggle`` says)."""
        body = {"enabled": True, **toggle}
        self.admin.put(f"/v1/guard/tenants/{tenant}/targets/{target}", json=body).raise_for_status()

    def guard(self, tenant: str, guard: str, **toggle: Any) -> None:
        """Set a guard of a tenant."""
        self.admin.put(f"/v1/guard/tenants/{tenant}/guards/{guard}", json=toggle).raise_for_status()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
