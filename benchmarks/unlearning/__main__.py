"""Baselines on the demo model: gradient ascent and difference, KL, NPO, and ULD.

    python -m benchmarks.unlearning [--methods ga,gd,kl,npo,npo_gd,uld] --json FILE

Ten people are to be forgotten, as in ``lethe eval demo``, whose prompts and judgement these are, so that the figures
stand beside those of ``benchmarks/results/forgetting.json``. A method is trained on every prompt on these people that
the model was trained on; those with a retain term also on all other prompts, but for those that are asked in the end.
Each is tried with some settings and judged several times on the way by prompts that are not asked in the end; the
best of all these is reported: by the harmonic mean of the share of forget prompts that are no longer answered and of
the shares of retain and general recall that are left. Answers are greedy, in bfloat16, by transformers. Seconds are of
CPU time, so other work on the machine does not count; with ``OMP_NUM_THREADS=1`` they are those of one idle core.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from benchmarks.unlearning.data import split
from benchmarks.unlearning.judging import Judge
from benchmarks.unlearning.methods import METHODS
from benchmarks.unlearning.training import Plan, Search
from server.demo.model import build
from server.demo.recipe import Recipe
from server.evaluation.suites.demo.questions import people
from server.evaluation.suites.demo.stages import TARGETS


def _load(folder: Path, dtype: torch.dtype) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval(), AutoTokenizer.from_pretrained(folder)


def measure(methods: Sequence[str], plan: Plan, limit: int, validated: int) -> Iterator[dict[str, Any]]:
    """``{"methods": {name: figures}, "fitting": {name: how it was fitted}, "settings": {...}}``, method by method.

    Args:
        methods: of :data:`METHODS`; the untouched model and the one that never knew are measured in any case.
        plan: how methods are tried.
        limit: prompts of each part, form and kind to judge by.
        validated: the same to choose settings by.
    """
    recipe = Recipe()
    model, tokenizer = _load(build(recipe).folder, torch.float32)
    parts = split(recipe, people(recipe.world, TARGETS), limit, validated)
    untouched = copy.deepcopy(model).to(torch.bfloat16)
    judge = Judge(recipe.world, untouched, tokenizer, parts.test, parts.validation)
    sizes = {name: len(getattr(parts, name)) for name in ("forget", "retain", "validation", "test")}
    print(sizes, "untouched", judge.untouched, flush=True)
    found = {
        "none": judge.report(untouched),
        "reference": judge.report(*_load(build(replace(recipe, without_forget=True)).folder, torch.bfloat16)),
    }
    search, fitting = Search(model, tokenizer, parts, judge, plan), {}
    settings = {"limit": limit, "validated": validated, **asdict(plan), "prompts": sizes}
    settings["threads"] = torch.get_num_threads()
    for name in methods:
        began = time.process_time()
        best = search.best(METHODS[name], partial(print, name, flush=True))
        assert best.model is not None
        spent = time.process_time() - began
        found[name] = judge.report(best.model)
        fitting[name] = {
            "chosen": best.chosen,
            "search_seconds": round(spent, 1),
            "needs": METHODS[name].needs(),
            "terms": {"forget": METHODS[name].forget, "retain": METHODS[name].retain},
            "grid": best.grid,
        }
        print(name, {part: found[name][part]["recall"] for part in ("forget", "retain", "general")}, flush=True)
        yield {"methods": found, "fitting": fitting, "settings": settings}


def main() -> None:
    """See the module."""
    disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=5, help="with each setting")
    parser.add_argument(
        "--checks",
        type=int,
        default=1,
        help="looks at the validation prompts in each epoch; twice that without a retain term",
    )
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--assistant-layers", type=int, default=1, help="of ULD's assistant; the demo model has 4")
    parser.add_argument("--limit", type=int, default=12, help="as of lethe eval demo, which asks 20 by default")
    parser.add_argument("--validated", type=int, default=5, help="the same for the prompts that choose")
    parser.add_argument("--seed", type=int, default=0, help="of the order of training")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    methods = args.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}")
    plan = Plan(args.epochs, args.checks, args.batch_tokens, args.assistant_layers, args.seed)
    for report in measure(methods, plan, args.limit, args.validated):
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
