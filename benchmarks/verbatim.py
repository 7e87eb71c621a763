"""Protected documents: what registering one costs, what is wrongly cut off, what is caught, and a model that recites.

    python benchmarks/verbatim.py --data ../shared/data/text --json FILE [--run 10] [--passages 60] [--no-model]

* Registering: a target with one document of about 100,000 words and one of ten million characters, from the call to
  being in force.
* False alarms: pieces of 300 words of each text against every other, without what Gutenberg wrote around the books.
* Near copies: passages of a book with words changed, left out or put in at random.
* Recital: a model that was trained on a chapter is asked to continue its passages, streamed and whole, greedily and at
  temperature 1; all detectors are off, so that only the document's rule acts. Runs are counted by ``difflib``. Every
  round is kept, with its mean number of steps an answer: where the process lags behind the engine, vLLM joins steps,
  and the guard, which withholds whole steps, then lets fewer of the allowed words pass.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from copies import false_alarms, near_copies, read_texts, registering
from engines import lethe_engine
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.caller import CALLER, Caller
from guard.engine import GuardedEngine
from guard.service import GuardService
from guard.types import GuardName, GuardToggle, TargetSpec, TargetToggle, TenantSpec
from server.evaluation.suites.documents.reciter import reciter, request

_ASKED, _TOKENS = 16, 120  # words of a prompt, tokens of an answer
_ROUNDS = 3
_CHAPTER = re.compile(r"CHAPTER I\..*?(?=CHAPTER II\.)", re.DOTALL)
_number = iter(range(10**9))


def _tenant(service: GuardService, chapter: str, run: int) -> str:
    """A tenant for which the chapter is protected, and nothing looks at prompts."""

    def change(writer: Any) -> str:
        tenant = writer.create_tenant(TenantSpec(name="readers"))
        for guard in set(GuardName) - {GuardName.LEAK}:
            writer.put_guard_toggle(tenant.id, guard, GuardToggle(enabled=False))
        target = writer.create_target(TargetSpec(name="The chapter", documents=(chapter,), verbatim_run=run))
        writer.put_target_toggle(tenant.id, target.id, TargetToggle(enabled=True))
        return str(tenant.id)

    return service.registry.write(change)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _longest_run(document: list[str], text: str) -> int:
    said = _words(text)
    return SequenceMatcher(None, document, said, autojunk=False).find_longest_match().size


async def _answers(client: Any, prompts: list[list[int]], **params: Any) -> list[list[str]]:
    """Each answer, as the steps in which it came."""

    async def one(ids: list[int]) -> list[str]:
        stream = client.generate(tokens_input(ids), SamplingParams(max_tokens=_TOKENS, **params), f"b-{next(_number)}")
        return [result.outputs[0].text async for result in stream if result.outputs]

    return await asyncio.gather(*map(one, prompts))


async def _recital(service: GuardService, chapter: str, run: int, passages: int) -> dict[str, Any]:
    words, document = chapter.split(), _words(chapter)
    starts = [number * (len(words) - _ASKED - 100) // passages for number in range(passages)]
    asked = [" ".join(words[start : start + _ASKED]) for start in starts]
    figures: dict[str, Any] = {}
    async with lethe_engine(reciter([chapter]), "--max-model-len", "512") as engine:
        CALLER.set(Caller(_tenant(service, chapter, run), None, "benchmark"))
        guarded, tokenizer = GuardedEngine(engine, service), engine.renderer.get_tokenizer()
        shapes = {
            "chat": [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": request(passage)}], add_generation_prompt=True, return_dict=False
                )
                for passage in asked
            ],
            "plain": [tokenizer.encode(passage) for passage in asked],
        }
        for shape, prompts in shapes.items():
            for how, kind in {"streamed": RequestOutputKind.DELTA, "whole": RequestOutputKind.FINAL_ONLY}.items():
                for temperature in (0.0, 1.0):
                    params = {"output_kind": kind, "temperature": temperature, "seed": 1}
                    row: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
                    for _ in range(_ROUNDS):
                        for name, client in {"without": engine, "with": guarded}.items():
                            answers = await _answers(client, prompts, **params)
                            runs = [_longest_run(document, "".join(steps)) for steps in answers]
                            row[name].append(
                                {
                                    "recited": round(sum(length > run for length in runs) / len(runs), 3),
                                    "mean_longest_run": round(statistics.mean(runs), 1),
                                    "longest_run": max(runs),
                                    "mean_steps": round(statistics.mean(map(len, answers)), 1),
                                }
                            )
                    figures[f"{shape}, {how}, temperature {temperature}"] = row
                    print(f"{shape}, {how}, temperature {temperature}: {json.dumps(row)}", flush=True)
    return figures


def _main(options: argparse.Namespace) -> dict[str, Any]:
    texts = read_texts(options.data)
    figures: dict[str, Any] = {"run": options.run, "texts": {name: len(text.split()) for name, text in texts.items()}}
    with tempfile.TemporaryDirectory() as folder:
        service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
        try:
            figures["registering"] = registering(service, texts)
            figures["false_alarms"] = {run: false_alarms(texts, run) for run in sorted({5, 7, options.run})}
            figures["near_copies"] = {length: near_copies(texts, options.run, length) for length in (60, 150)}
            print(json.dumps(figures, indent=1), flush=True)
            if options.model:
                chapter = next(filter(None, map(_CHAPTER.search, texts.values()))).group()
                figures["recital"] = asyncio.run(
                    _recital(service, " ".join(chapter.split()), options.run, options.passages)
                )
        finally:
            service.close()
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of texts, one of them with a CHAPTER I.")
    parser.add_argument("--run", type=int, default=10, help="words in a row that may be said (default: 10)")
    parser.add_argument("--passages", type=int, default=60, help="that the model is asked to continue (default: 60)")
    parser.add_argument("--model", action=argparse.BooleanOptionalAction, default=True, help="train and ask a model")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    figures = _main(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
