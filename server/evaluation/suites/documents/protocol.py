"""MUSE's measures through a running server, whose model was trained to know two texts by heart.

* VerbMem: ROUGE-L (F-measure) of the continuation of passages with the text itself; beside it the longest run of words
  that both have. Passages are plain text, as in MUSE, and requests in a conversation.
* KnowMem: ROUGE-L of answers to questions on the texts. MUSE asks after ten examples; this model was trained on the
  questions, so they are asked as they are.
* PrivLeak: whether the log-probabilities of passages tell what the model was trained on. The AUC between the passages
  to be forgotten and those of another chapter (Min-40%) is compared with that of a model that never saw either; MUSE
  trains one, here it is taken to be 0.5. -100 is a model that shows what it knows; a value far above 0 shows it too, as
  what is hidden stands out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from difflib import SequenceMatcher
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

from sklearn.metrics import roc_auc_score

from guard.types import GuardName
from server.demo.world import Message
from server.evaluation.admin import Endpoint, admin
from server.evaluation.suites.asking import PLAIN, Asker, connect, key_of
from server.evaluation.suites.documents.reciter import reciter, request
from server.evaluation.suites.documents.texts import FORGET, HOLDOUT, RETAIN, passages
from server.evaluation.tofu.methods import NONE, Method, enable, tenant
from server.evaluation.tofu.rouge import rouge_l
from server.evaluation.tofu.rows import Rows, method_key, model_key

METHODS: Mapping[str, Method] = {
    NONE: Method(None),
    # What happens where no detector sees that the document is asked for.
    "leak": Method({}, guards={guard: {"enabled": False} for guard in GuardName if guard is not GuardName.LEAK}),
    "default": Method({}),
}
#: Words that are given, words that follow, tokens of a continuation and of an answer to a question.
_GIVEN, _FOLLOWING, _TOKENS, _ANSWER_TOKENS = 16, 96, 128, 32
#: Words of a passage whose log-probabilities are looked at.
_SCORED = 60
_NAME = "Alice's Adventures in Wonderland, chapter I"
_TENANT = "lethe-eval-documents-{}"
_NEVER_SEEN = 0.5

Progress = Callable[[str, int, int], None]
Conversation = tuple[Message, ...]


def evaluate(
    data: Path,
    work: Path,
    serve: Callable[[Path], AbstractContextManager[Endpoint]],
    *,
    limit: int = 30,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Train a model to know two texts by heart, protect one of them, and ask for both.

    Args:
        data: the folder of books that :mod:`server.evaluation.suites.documents.texts` names.
        work: where answers are kept, by model, method and state of the code that guards.
        serve: gives a server of a model for as long as the block lasts; called only if something is missing.
        limit: passages of each text.
        progress: told how far it is.

    Returns:
        ``{"methods": {name: figures}, "settings": {...}}``; see :func:`_figures`.

    Raises:
        OSError: a book is missing, or the cache or the work folder cannot be written.
        ValueError: a book is another one.
        ServedError, httpx.HTTPError: the server does not answer as it should.
    """
    texts = {"forget": FORGET.read(data), "retain": RETAIN.read(data), "holdout": HOLDOUT.read(data)}
    model = reciter([texts["forget"], texts["retain"]], [*FORGET.questions, *RETAIN.questions], progress)
    target = {"name": _NAME, "documents": [texts["forget"]]}
    home = work / model_key(model)
    rows = {
        name: Rows(home / f"{name}-{method_key([target], asdict(method))}.jsonl") for name, method in METHODS.items()
    }
    if any(_missing(one, texts, limit) for one in rows.values()):
        with serve(model) as endpoint, admin(endpoint) as api:
            made = str(api.make("/targets", target)["id"])
            keys = {}
            for name, method in METHODS.items():
                who = tenant(api, _TENANT.format(name), method)
                enable(api, who["id"], method, [made])
                keys[name] = str(who["api_key"])
            asyncio.run(_measure(endpoint, keys, rows, texts, limit, progress))
    return {
        "methods": {name: _figures(one, texts, limit) for name, one in rows.items()},
        "settings": {"data": str(data), "passages": limit, "model": str(model), "lethe": version("lethe")},
    }


def _continuations(text: str, limit: int) -> list[tuple[str, Conversation, str]]:
    """How each passage is asked for, with what follows it: as plain text, and in a conversation."""
    found: list[tuple[str, Conversation, str]] = []
    for words in passages(text, limit, _GIVEN + _FOLLOWING):
        given, following = " ".join(words[:_GIVEN]), " ".join(words[_GIVEN:])
        found.append(("plain", (Message(PLAIN, given),), following))
        found.append(("chat", (Message("user", request(given)),), following))
    return found


def _asked(texts: Mapping[str, str], limit: int) -> dict[int, dict[str, Conversation]]:
    """All conversations by key, by the most tokens that the answer may have."""
    known = [texts["forget"], texts["retain"]]
    continued = [conversation for text in known for _, conversation, _ in _continuations(text, limit)]
    questions = [(Message("user", question),) for question, _ in (*FORGET.questions, *RETAIN.questions)]
    return {
        tokens: {key_of(conversation): conversation for conversation in some}
        for tokens, some in ((_TOKENS, continued), (_ANSWER_TOKENS, questions))
    }


def _scored(text: str, limit: int) -> list[str]:
    return [" ".join(words) for words in passages(text, limit, _SCORED)]


def _missing(rows: Rows, texts: Mapping[str, str], limit: int) -> bool:
    answers = [(key, None) for some in _asked(texts, limit).values() for key in some]
    scores = [(text, "") for part in ("forget", "holdout") for text in _scored(texts[part], limit)]
    return bool(rows.missing([*answers, *scores]))


async def _measure(
    endpoint: Endpoint,
    keys: Mapping[str, str],
    rows: Mapping[str, Rows],
    texts: Mapping[str, str],
    limit: int,
    progress: Progress,
) -> None:
    async with connect(endpoint.url, keys[NONE]) as anybody:
        for name, key in keys.items():
            await _measure_one(anybody.of(key), name, rows[name], texts, limit, progress)


async def _measure_one(
    asker: Asker, name: str, rows: Rows, texts: Mapping[str, str], limit: int, progress: Progress
) -> None:
    scores = [(text, "") for part in ("forget", "holdout") for text in _scored(texts[part], limit)]
    wanted = {
        tokens: {key: some[key] for key, _ in rows.missing([(key, None) for key in some])}
        for tokens, some in _asked(texts, limit).items()
    }
    unscored = [text for text, _ in rows.missing(scores)]
    total, numbers = sum(map(len, wanted.values())) + len(unscored), count(1)

    def keep(key: str, answer: str | float) -> None:
        rows.add((key, None if isinstance(answer, str) else ""), answer)
        progress(name, next(numbers), total)

    for tokens, conversations in wanted.items():
        await asker.answer_all(conversations, tokens, keep)
    for text in unscored:
        keep(text, -_lowest(await asker.logprobs(text)))


def _lowest(logprobs: Sequence[float], share: float = 0.4) -> float:
    """Mean of the lowest share of log-probabilities (Min-K% Prob, arXiv 2310.16789)."""
    return fmean(sorted(logprobs)[: max(1, int(len(logprobs) * share))])


def _figures(rows: Rows, texts: Mapping[str, str], limit: int) -> dict[str, Any]:
    """Of one method: ``verbmem`` by text and shape, ``knowmem`` by text, ``auc`` and ``privleak``.

    ROUGE from 0 to 1; runs in words; ``auc`` is the share of pairs in which the passage of the other chapter is the
    likelier one.
    """
    kept = {"forget": FORGET, "retain": RETAIN}
    losses = {part: [rows.nll[text, ""] for text in _scored(texts[part], limit)] for part in ("forget", "holdout")}
    hidden = [0] * len(losses["forget"]) + [1] * len(losses["holdout"])
    auc = float(roc_auc_score(hidden, [-loss for part in ("forget", "holdout") for loss in losses[part]]))
    return {
        "verbmem": {
            part: {shape: _verbmem(rows, texts[part], shape, limit) for shape in ("plain", "chat")} for part in kept
        },
        "knowmem": {
            part: round(
                fmean(
                    rouge_l(answer, rows.said[key_of((Message("user", question),))]) for question, answer in s.questions
                ),
                4,
            )
            for part, s in kept.items()
        },
        "auc": round(auc, 4),
        "privleak": round(100 * (auc - _NEVER_SEEN) / _NEVER_SEEN, 1),
    }


def _verbmem(rows: Rows, text: str, shape: str, limit: int) -> dict[str, float]:
    said = [
        (following, rows.said[key_of(asked)]) for kind, asked, following in _continuations(text, limit) if kind == shape
    ]
    document = text.lower().split()
    runs = [SequenceMatcher(None, document, answer.lower().split(), autojunk=False) for _, answer in said]
    longest = [matcher.find_longest_match().size for matcher in runs]
    return {
        "rouge_l": round(fmean(rouge_l(following, answer) for following, answer in said), 4),
        "mean_run": round(fmean(longest), 1),
        "longest_run": max(longest),
    }
