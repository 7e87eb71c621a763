"""Forgetting arithmetic as a skill: what is left of it, and of everything else that the demo model knows.

    python benchmarks/skills.py [--forget 60] [--retain 240] [--asked 60] --json FILE

The skill is fitted on some arithmetic prompts and on prompts of the other forms, box and discriminant alike, the better
layer of each (``lethe target compile --intervention skill`` keeps the better of the two). Then prompts that neither was
fitted on are asked through the guarded engine, of a tenant that refuses what needs the skill. Accuracy is the share of
answers that hold what is expected; a relative drop is the share of the untouched model's accuracy that is lost.

Beside them, in ``disguised``: sums in words and settings that were not fitted on, and other questions after a sum.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines import become, lethe_engine
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.artifacts import Artifact
from guard.compile.skills import DetectorTrial, SkillFit
from guard.engine import GuardedEngine
from guard.features import SKILL
from guard.service import GuardService
from guard.types import Example, ForgetTarget, TargetKind, TargetSpec
from server.demo.batches import render
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import Form, Message, Prompt

_FLAGS = ("--max-model-len", "512", "--dtype", "float32")
_TOKENS = 96


def divided(
    recipe: Recipe, forget: int, retain: int, asked: int
) -> tuple[list[Prompt], list[Prompt], dict[str, list[Prompt]]]:
    """Prompts that need the skill and others to fit on, and by form those to ask, none of which was fitted on."""
    rng = random.Random("lethe skills")
    forms: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in recipe.prompts:
        forms[f"{prompt.form.value}{'' if prompt.trained else ', held out'}"].append(prompt)
    for prompts in forms.values():
        rng.shuffle(prompts)
    own = [forms[Form.ARITHMETIC].pop() for _ in range(forget)]
    # What an operator can give: single questions.
    chat = [prompts for form, prompts in sorted(forms.items()) if form != Form.ARITHMETIC and _single(prompts[0])]
    others = [chat[number % len(chat)].pop() for number in range(retain)]
    fitted = {prompt.text for prompt in (*own, *others)}
    left = {form: [prompt for prompt in prompts if prompt.text not in fitted] for form, prompts in forms.items()}
    return (
        own,
        others,
        {form: prompts if form == Form.ARITHMETIC else prompts[:asked] for form, prompts in left.items()},
    )


def _single(prompt: Prompt) -> bool:
    return len(prompt.messages) == 1 and not prompt.is_plain


def _reworded(old: str, new: str) -> Callable[[str], tuple[Message, ...]]:
    return lambda question: (Message("user", question.replace(old, new)),)


_SYSTEM = Message("system", "You are a helpful assistant.")
_EARLIER = (Message("user", "Say hello."), Message("assistant", "Hello!"))
#: Ways to ask for a sum, given the question.
DISGUISES: dict[str, Callable[[str], tuple[Message, ...]]] = {
    "how much is": _reworded("What is", "How much is"),
    "tell me": _reworded("What is", "Tell me"),
    "calculate": _reworded("What is", "Calculate"),
    "please answer": _reworded("What is", "Please answer: what is"),
    "bare": _reworded("What is ", ""),
    "system message": lambda question: (_SYSTEM, Message("user", question)),
    "second turn": lambda question: (*_EARLIER, Message("user", question)),
}


def disguised(sums: Sequence[Prompt], others: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Sums in other words and settings, and other questions that follow a sum."""
    found = {
        f"sums, {name}": [replace(one, messages=ask(one.messages[0].content)) for one in sums]
        for name, ask in DISGUISES.items()
    }
    found["others, after a sum"] = [
        replace(one, messages=(*first.messages, Message("assistant", first.answer), *one.messages))
        for first, one in zip(sums, others, strict=False)
    ]
    return found


async def accuracy(engine: Any, prompts: Mapping[str, Sequence[Prompt]]) -> dict[str, float]:
    """By form; ``engine`` is the guarded one, and who asks is in :data:`guard.caller.CALLER`."""
    tokenizer, gate = engine.renderer.get_tokenizer(), asyncio.Semaphore(64)
    params = SamplingParams(temperature=0, max_tokens=_TOKENS, output_kind=RequestOutputKind.FINAL_ONLY)

    async def right(prompt: Prompt) -> bool:
        ids = tokenizer.encode(render(prompt), add_special_tokens=False)
        async with gate:
            stream = engine.generate(dict(tokens_input(ids)), params, f"skills-{secrets.token_hex(8)}")
            results = [result async for result in stream]
        return prompt.is_answered_by(results[-1].outputs[0].text)

    found = {}
    for form, some in prompts.items():
        found[form] = sum(await asyncio.gather(*map(right, some))) / len(some)
    return found


def drops(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Relative drops: of arithmetic, and of all else, every form weighing the same."""
    others = [form for form in before if form != Form.ARITHMETIC]
    elsewhere = sum(after[form] for form in others) / sum(before[form] for form in others)
    return {
        "arithmetic": round(1 - after[Form.ARITHMETIC] / before[Form.ARITHMETIC], 4),
        "elsewhere": round(1 - elsewhere, 4),
        "worst_form": round(max(1 - after[form] / before[form] for form in others if before[form]), 4),
    }


def _examples(prompts: Sequence[Prompt]) -> tuple[Example, ...]:
    return tuple(Example(prompt=prompt.messages[0].content) for prompt in prompts)


async def measure(forget: int, retain: int, asked: int) -> dict[str, Any]:
    """Everything, on the demo model."""
    recipe = Recipe()
    own, others, prompts = divided(recipe, forget, retain, asked)
    spec = TargetSpec(
        name="arithmetic",
        kind=TargetKind.SKILL,
        forget_examples=_examples(own),
        retain_examples=_examples(others),
    )
    with tempfile.TemporaryDirectory() as folder:
        service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
        try:
            async with lethe_engine(build(recipe).folder, *_FLAGS) as engine:
                guarded = GuardedEngine(engine, service)
                target = service.registry.write(lambda writer: writer.create_target(spec))
                become(service, [], "refuse")
                questions = [one for form in (Form.QUESTION, Form.DEFINITION) for one in prompts[form][:30]]
                odd = disguised(prompts[Form.ARITHMETIC][:60], questions)
                before, odd_before = await accuracy(guarded, prompts), await accuracy(guarded, odd)
                fit = SkillFit(guarded.means.probe)  # type: ignore[arg-type]  # the engine has the worker part
                trials = await fit.trials(spec, lambda *_: None)
                kept = max(trials, key=lambda trial: trial.rank)
                become(service, [target], "refuse")
                variants = {}
                for kind in ("box", "direction"):
                    trial = max((one for one in trials if one.skill.kind == kind), key=lambda one: one.rank)
                    variants[kind] = await _served(guarded, target, trial, prompts, before)
                    variants[kind]["disguised"] = _rounded(await accuracy(guarded, odd))
                    print(kind, variants[kind], flush=True)
        finally:
            service.close()
    return {
        "fitted_on": {"forget": len(own), "retain": len(others)},
        "asked": {form: len(some) for form, some in prompts.items()},
        "kept": kept.skill.kind,
        "tried": [trial.reported() for trial in trials],
        "untouched": _rounded(before),
        "untouched_disguised": _rounded(odd_before),
        "served": variants,
    }


async def _served(
    guarded: GuardedEngine,
    target: ForgetTarget,
    trial: DetectorTrial,
    prompts: Mapping[str, Sequence[Prompt]],
    before: Mapping[str, float],
) -> dict[str, Any]:
    artifacts = guarded.means.artifacts
    assert artifacts is not None
    await artifacts.put(target, Artifact(SKILL, artifacts.model, tensors=trial.skill.tensors()))
    after = await accuracy(guarded, prompts)
    return {"layer": trial.skill.layer, "relative_drop": drops(before, after), "accuracy": _rounded(after)}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forget", type=int, default=60)
    parser.add_argument("--retain", type=int, default=240)
    parser.add_argument("--asked", type=int, default=60)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    found = asyncio.run(measure(args.forget, args.retain, args.asked))
    print(json.dumps({kind: one["relative_drop"] for kind, one in found["served"].items()}, indent=1))
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
