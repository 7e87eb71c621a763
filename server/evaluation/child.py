"""A server of one's own for as long as it is measured."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from server.child import ON_GPU, Server
from server.evaluation.admin import Endpoint

#: How many stay up in one run: two models with their references. A GPU has room for one such pair.
_AT_MOST = 2 if ON_GPU else 4
#: What a guard changes is seen by comparing answers word by word, and in bfloat16 a request's rounding depends on which
#: others are in its batch: answers that a model is not sure of then differ from run to run.
_FLAGS = () if ON_GPU else ("--dtype", "float32")
#: Seconds between looks at a server that is to end while it starts.
_POLL = 0.2
#: Without it vLLM keeps no responses, and there would be none of another tenant's to ask for.
_ENVIRONMENT = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}


class _Child:
    """``lethe serve`` of one model, with a database and a log that last as long as it does."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="lethe-eval-")
        self._server: Server | None = None

    def start(self) -> Endpoint:
        """Start it and wait until it is ready. Raises :class:`ServerFailed`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        admin_key = secrets.token_urlsafe(32)
        self._server = Server(self._model, port, admin_key, Path(self._folder.name), _ENVIRONMENT, _FLAGS)
        self._server.start()
        return Endpoint(self._server.base_url, admin_key)

    def stop(self) -> None:
        """End it, if it has been started by now."""
        if self._server is not None:
            self._server.stop()

    def close(self) -> None:
        """End it and take away its folder; not while it starts."""
        self.stop()
        self._folder.cleanup()


class _Kept:
    """Servers that stay up between the suites of one run, by model, least recently used first."""

    def __init__(self) -> None:
        self._starting = ThreadPoolExecutor(1)  # two at once are not up sooner than one after the other
        self._servers: OrderedDict[Path, tuple[_Child, Future[Endpoint]]] = OrderedDict()

    def start(self, model: Path) -> None:
        """Have a server of ``model``, without waiting for it."""
        if model not in self._servers:
            while len(self._servers) >= _AT_MOST:
                self.close(next(iter(self._servers)))
            server = _Child(model)
            self._servers[model] = server, self._starting.submit(server.start)

    def endpoint(self, model: Path) -> Endpoint:
        """The server of ``model`` once it is ready. Raises :class:`ServerFailed` if it did not start."""
        self.start(model)
        self._servers.move_to_end(model)
        return self._servers[model][1].result()

    def close(self, model: Path) -> None:
        """End the server of ``model``, if there is one, also while it starts."""
        if model not in self._servers:
            return
        server, started = self._servers.pop(model)
        if not started.cancel():
            while not started.done():  # it may be about to start, when there is nothing to stop yet
                server.stop()
                wait([started], timeout=_POLL)
        server.close()

    def close_all(self) -> None:
        """End all servers; none can be started any more."""
        while self._servers:
            self.close(next(iter(self._servers)))
        self._starting.shutdown()


_KEPT: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def child(model: Path) -> Iterator[Endpoint]:
    """``lethe serve`` of a model, with a database and a log that last as long as the server.

    Args:
        model: its folder.

    Raises:
        ServerFailed: it did not start.
    """
    kept = _KEPT.get()
    if kept is None:
        server = _Child(model)
        try:
            yield server.start()
        finally:
            server.close()
        return
    try:
        yield kept.endpoint(model)
    except BaseException:  # the server may be the reason: the next suite gets a fresh one
        kept.close(model)
        raise


@contextmanager
def kept_servers(soon: Sequence[Path] = ()) -> Iterator[None]:
    """Servers that :func:`child` starts within stay up for whoever wants the same model next; starting one takes longer
    than a small suite.

    Args:
        soon: folders of models that will be wanted, in this order; their servers start beside what is done until then.
    """
    kept = _Kept()
    token = _KEPT.set(kept)
    try:
        for model in soon[:_AT_MOST]:
            kept.start(model)
        yield
    finally:
        _KEPT.reset(token)
        kept.close_all()
