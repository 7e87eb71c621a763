"""lm-evaluation-harness, by its own client of OpenAI-compatible servers, with and without a tenant's guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx

from server.evaluation.admin import Endpoint, admin
from server.evaluation.suites.guarded import GUARDED, Guarded
from server.evaluation.tofu.methods import NONE
from server.evaluation.tofu.rows import model_key

_TENANT = "lethe-eval-harness-{}"
_CONCURRENCY = 16  # requests under way at once


def evaluate(
    tasks: Sequence[str],
    model: str,
    serve: Callable[[], AbstractContextManager[Endpoint]],
    work: Path,
    guarded: Guarded,
    *,
    place: str = "",
    include: Path | None = None,
    fewshot: int | None = None,
    chat: bool = False,
    limit: int | None = None,
) -> dict[str, Any]:
    """The harness's own figures of a served model, for a tenant without guards and for a guarded one.

    In a prompt that is refused all options are alike, of which the harness takes the first.

    Args:
        tasks: names of tasks or groups.
        model: the folder or name of the model, whose tokenizer the harness needs.
        serve: gives a server of it for as long as the block lasts.
        work: where answers are kept, so that a run that was broken off goes on.
        guarded: whose guards.
        place: the URL of a server that runs already; empty for one that ``serve`` starts.
        include: a folder with tasks of one's own.
        fewshot: examples before each question; None for what the task says.
        chat: whether questions are asked with the model's chat template.
        limit: at most so many questions of each task.

    Returns:
        ``{"none": {task: {metric: [value, standard error or None]}}, "guarded": same, "n": {task: questions},
        "settings"}``.

    Raises:
        ValueError: the harness is not installed, or knows no task of that name.
        ServedError, httpx.HTTPError: the server does not answer as it should.
    """
    asked = {
        "tasks": list(tasks),
        "task_manager": _manager(tasks, include),
        "num_fewshot": fewshot,
        "apply_chat_template": chat,
        "limit": limit,
    }
    home = work / model_key(Path(model), place)
    home.mkdir(parents=True, exist_ok=True)
    kept = {NONE: home / NONE, GUARDED: home / f"{GUARDED}-{guarded.digest()}"}
    found: dict[str, Any] = {}
    with serve() as endpoint, admin(endpoint) as api:
        for name, key in guarded.keys(api, _TENANT).items():
            found[name] = _ask(endpoint.url, key, model, kept[name], asked)
    return {
        **{name: _figures(of["results"]) for name, of in found.items()},
        "n": {task: count["effective"] for task, count in found[NONE]["n-samples"].items()},
        "settings": {
            "tasks": list(tasks),
            "model": model,
            "fewshot": fewshot,
            "chat": chat,
            "limit": limit,
            "action": guarded.action,
            "lm_eval": version("lm_eval"),
            "lethe": version("lethe"),
        },
    }


def _manager(tasks: Sequence[str], include: Path | None) -> Any:
    try:
        version("lm_eval")
    except PackageNotFoundError:
        raise ValueError("the harness is not installed: pip install 'lethe[harness]'") from None
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if include is None else str(include))
    for task in tasks:
        if not manager.match_tasks([task]):
            raise ValueError(f"the harness has no task {task!r}; `lm_eval ls tasks` lists them")
    return manager


def _ask(url: str, key: str, model: str, kept: Path, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate

    headers = {"Authorization": f"Bearer {key}"}
    response = httpx.get(f"{url}/v1/models", headers=headers, timeout=30.0)
    response.raise_for_status()
    served = response.json()["data"][0]
    found: Mapping[str, Any] = simple_evaluate(
        model=_client()(
            model=served["id"],
            base_url=f"{url}/v1/completions",
            tokenizer=model,
            tokenizer_backend="huggingface",
            num_concurrent=_CONCURRENCY,
            max_length=served["max_model_len"],
            header=headers,
        ),
        **asked,
        use_cache=str(kept),
        log_samples=False,
        bootstrap_iters=1000,
    )
    return found


def _client() -> type:
    """The harness's ``local-completions``, which knows what a refused prompt looks like."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    class Completions(LocalCompletionsAPI):
        """Of a refused prompt nothing is told: every token has the same log-probability, and is its own best
        alternative. The harness would take the shortest option for the likeliest, and every continuation for what the
        model would have said.
        """

        @staticmethod
        def parse_logprobs(outputs: Any, **options: Any) -> list[tuple[float, bool]]:
            """See the harness; (0, False) for a refused prompt, so that all options of a question are alike."""
            outputs = outputs if isinstance(outputs, list) else [outputs]
            choices = [choice for out in outputs for choice in sorted(out["choices"], key=lambda one: one["index"])]
            parsed = LocalCompletionsAPI.parse_logprobs(outputs, **options)
            return [(0.0, False) if _says_nothing(one) else said for one, said in zip(choices, parsed, strict=True)]

    return Completions


def _says_nothing(choice: Mapping[str, Any]) -> bool:
    """Whether a prompt was refused, by the log-probabilities of its tokens but the first, which has none."""
    told = choice["logprobs"]["token_logprobs"][1:-1]
    return len(told) > 1 and len(set(told)) == 1


def _figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """By task and metric, value and standard error, which the harness calls ``acc,none`` and ``acc_stderr,none``."""
    figures: dict[str, dict[str, tuple[float, float | None]]] = {}
    for task, of in results.items():
        figures[task] = {}
        for name, value in of.items():
            metric, _, filtered = name.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = of.get(f"{metric}_stderr,{filtered}")
            shown = metric if filtered == "none" else f"{metric}, {filtered}"
            figures[task][shown] = (float(value), error if isinstance(error, float) else None)
    return figures
