"""A server of one's own for as long as it is measured."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from server.child import ON_GPU, Server
from server.evaluation.admin import Endpoint

#: Servers that stay up between the suites of one run, by model, least recently used first.
_KEPT: ContextVar[OrderedDict[Path, tuple[Endpoint, ExitStack]] | None] = ContextVar("kept", default=None)
#: How many do: a model and its reference, which most suites ask one after the other.
_AT_MOST = 2
#: What a guard changes is seen by comparing answers word by word, and in bfloat16 a request's rounding depends on which
#: others are in its batch: answers that a model is not sure of then differ from run to run.
_FLAGS = () if ON_GPU else ("--dtype", "float32")
#: Without it vLLM keeps no responses, and there would be none of another tenant's to ask for.
_ENVIRONMENT = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}


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
        with _started(model) as endpoint:
            yield endpoint
        return
    if model not in kept:
        while len(kept) >= _AT_MOST:
            _, (_, oldest) = kept.popitem(last=False)
            oldest.close()
        stack = ExitStack()
        kept[model] = stack.enter_context(_started(model)), stack
    kept.move_to_end(model)
    endpoint, stack = kept[model]
    try:
        yield endpoint
    except BaseException:  # the server may be the reason: the next suite gets a fresh one
        kept.pop(model, None)
        stack.close()
        raise


@contextmanager
def kept_servers() -> Iterator[None]:
    """Servers that :func:`child` starts within stay up for whoever wants the same model next; starting one takes longer
    than a small suite.
    """
    servers: OrderedDict[Path, tuple[Endpoint, ExitStack]] = OrderedDict()
    token = _KEPT.set(servers)
    try:
        yield
    finally:
        _KEPT.reset(token)
        for _, stack in servers.values():
            stack.close()


@contextmanager
def _started(model: Path) -> Iterator[Endpoint]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    admin_key = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="lethe-eval-") as folder:
        server = Server(model, port, admin_key, Path(folder), _ENVIRONMENT, _FLAGS)
        try:
            server.start()
            yield Endpoint(server.base_url, admin_key)
        finally:
            server.stop()
