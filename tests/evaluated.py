"""A fake of a running ``lethe serve``, with the routes that evaluations use, behind real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from server.evaluation.admin import Endpoint

#: The token that ends an answer.
END = "<|im_end|>"
#: The log-probabilities of the words of a prompt, given the request and the targets that are on.
Likelihood = Callable[[list[str], tuple[str, ...]], list[float]]
#: Answers a request: its body and the names of the targets that are on for its tenant.
Answer = Callable[[dict[str, Any], tuple[str, ...]], str]


class Fake:
    """What a fake server was told, and how it answers.

    Attributes:
        targets: bodies of the targets that there are, by id.
        tenants: bodies of the tenants that there are, by id; a tenant's key is its id.
        on: the toggles of targets, by tenant and target.
        compiled: what was to be fitted, by target.
        asked: how many requests for an answer came.
    """

    def __init__(self, answer: Answer, likelihood: Likelihood = lambda words, on: [-0.7] * len(words)) -> None:
        self.answer = answer
        self.likelihood = likelihood
        self.targets: dict[str, dict[str, Any]] = {}
        self.tenants: dict[str, dict[str, Any]] = {}
        self.on: dict[tuple[str, str], dict[str, Any]] = {}
        self.compiled: dict[str, list[str]] = {}
        self.asked = 0
        self._made = 0

    def handle(self, method: str, path: str, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        """The status and the body of one response."""
        parts = path.strip("/").split("/")
        match method, parts:
            case "GET", ["v1", "models"]:
                return 200, {"object": "list", "data": [{"id": "fake", "object": "model"}]}
            case "POST", ["v1", "chat", "completions"]:
                return 200, self._chat(key, body)
            case "POST", ["v1", "completions"]:
                choice = {"index": 0, "text": self._said(key, body), "finish_reason": "stop", "logprobs": None}
                if "prompt_logprobs" in body:
                    choice["prompt_logprobs"] = self._logprobs(key, body["prompt"].split())
                return 200, {"id": "1", "object": "text_completion", "created": 0, "model": "fake", "choices": [choice]}
            case "POST", ["v1", "guard", ("targets" | "tenants") as kind]:
                return self._make(kind, body)
            case "DELETE", ["v1", "guard", ("targets" | "tenants") as kind, made]:
                del getattr(self, kind)[made]
                return 200, {}
            case "PUT", ["v1", "guard", "tenants", tenant, "targets", target]:
                self.on[tenant, target] = body
                return 200, {}
            case "PUT", ["v1", "guard", "tenants", _, "guards", _]:
                return 200, {}
            case "POST", ["v1", "guard", "targets", target, "compile"]:
                self.compiled[target] = body["interventions"]
                return 202, {"id": f"job_{target}"}
            case "GET", ["v1", "guard", "compile", "jobs", job]:
                return 200, {"state": "done", "target": job, "error": ""}
        return 404, {"error": {"message": f"no {method} {path}"}}

    def _make(self, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
        if body["name"] in [one["name"] for one in getattr(self, kind).values()]:
            return 409, {"error": {"message": "there is one of that name"}}
        self._made += 1
        made = f"{kind}_{self._made}"
        getattr(self, kind)[made] = body
        return 201, {"id": made, "api_key": made}

    def _chat(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """The shape of vLLM's answers, with tokens that are words."""
        words = [word for message in body["messages"] for word in (message["role"], *_tokens(message["content"]))]
        message = {"role": "assistant", "content": self._said(key, body)}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "fake",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "prompt_token_ids": list(range(len(words))),
            "prompt_logprobs": self._logprobs(key, words),
        }

    def _logprobs(self, key: str, words: list[str]) -> list[dict[str, Any] | None]:
        likely = zip(words, self.likelihood(words, self._on(key)), strict=True)
        found = [{str(at): {"logprob": logprob, "decoded_token": word}} for at, (word, logprob) in enumerate(likely)]
        return [None, *found[1:]]

    def _said(self, key: str, body: dict[str, Any]) -> str:
        self.asked += 1
        return self.answer(body, self._on(key))

    def _on(self, key: str) -> tuple[str, ...]:
        on = (target for (tenant, target), toggle in self.on.items() if tenant == key and toggle["enabled"])
        return tuple(self.targets[target]["name"] for target in on if target in self.targets)


def _tokens(text: str) -> list[str]:
    return text.replace(END, f" {END}").split()


@contextmanager
def serving(fake: Fake) -> Iterator[Endpoint]:
    """The fake on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer = fake.handle(self.command, self.path, key, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _respond

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_port}", "admin")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
