"""A server of one's own for as long as it is measured."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server.child import Server
from server.evaluation.admin import Endpoint


@contextmanager
def child(model: Path, environment: Mapping[str, str] | None = None) -> Iterator[Endpoint]:
    """``lethe serve`` of a model, with a database and a log that last as long as the server.

    Args:
        model: its folder.
        environment: more environment variables.

    Raises:
        ServerFailed: it did not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    admin_key = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="lethe-eval-") as folder:
        server = Server(model, port, admin_key, Path(folder), environment)
        try:
            server.start()
            yield Endpoint(server.base_url, admin_key)
        finally:
            server.stop()
