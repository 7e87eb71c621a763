"""What the harness is told of a refused prompt."""

from __future__ import annotations

from typing import Any

from server.evaluation.suites.harness import _client


def _choice(index: int, *logprobs: float) -> dict[str, Any]:
    told = [None, *logprobs, -0.1]  # nothing of the first token; the last is the one token that is generated
    top = [None, *({f"t{at}": logprob} for at, logprob in enumerate(logprobs)), {"x": -0.1}]
    return {"index": index, "logprobs": {"token_logprobs": told, "top_logprobs": top}}


def _parsed(*choices: dict[str, Any], context: int) -> list[tuple[float, bool]]:
    return _client().parse_logprobs({"choices": list(choices)}, ctxlens=[context] * len(choices))


def test_a_refused_prompt_prefers_nothing() -> None:
    short, long = _choice(0, *[-9.0] * 4), _choice(1, *[-9.0] * 7)
    assert _parsed(short, long, context=3) == [(0.0, False), (0.0, False)]


def test_any_other_is_the_harness_s_own() -> None:
    assert _parsed(_choice(0, -1.0, -2.0, -3.0, -0.5), context=3) == [(-3.5, True)]
