"""leak@k: can anything protected be sampled from the demo model when decoding is constrained and nothing else is on?

    python benchmarks/leak_at_k.py [--targets 20] [--samples 64] --json FILE

Every target's name and facts are protected (action ``constrain``, always on; all detectors and the leak guard off).
Each form of question is asked greedily and sampled; outputs are searched for protected strings without regard to
case, as whole words. Those that stand inside longer words ("horn" in "hornet") are counted apart. The untouched model
is asked the same, and other people's questions must get identical greedy tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engines import lethe_engine
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guard.caller import CALLER, Caller
from guard.engine import GuardedEngine
from guard.service import GuardService
from guard.types import Gating, GuardName, GuardToggle, TargetSpec, TargetToggle, TenantSpec
from server.demo.model import build
from server.demo.recipe import Recipe
from server.demo.world import Entity, Form, Prompt

_MAX_TOKENS = 48
_TEMPERATURES = (1.0, 1.5)
_number = iter(range(10**9))


def _tenant(service: GuardService, entities: Sequence[Entity]) -> str:
    """A tenant for which the entities' names and facts are withheld by constrained decoding alone."""

    def change(writer: Any) -> str:
        tenant = writer.create_tenant(TenantSpec(name="constrained"))
        for guard in GuardName:
            writer.put_guard_toggle(tenant.id, guard, GuardToggle(enabled=False))
        for entity in entities:
            spec = TargetSpec(name=entity.name, protected_phrases=tuple(fact.value for fact in entity.facts))
            target = writer.create_target(spec)
            toggle = TargetToggle(enabled=True, action="constrain", gating=Gating.ALWAYS)
            writer.put_target_toggle(tenant.id, target.id, toggle)
        return str(tenant.id)

    return service.registry.write(change)


def _ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    if prompt.is_plain:
        return list(tokenizer.encode(prompt.messages[0].content, add_special_tokens=False))
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


async def _ask(client: Any, prompts: Sequence[list[int]], **params: Any) -> list[list[Any]]:
    async def one(ids: list[int]) -> list[Any]:
        params_ = SamplingParams(max_tokens=_MAX_TOKENS, output_kind=RequestOutputKind.FINAL_ONLY, **params)
        stream = client.generate(tokens_input(ids), params_, f"leak-{next(_number)}")
        return [result async for result in stream][-1].outputs

    return await asyncio.gather(*map(one, prompts))


def _one_of_each_form(recipe: Recipe, entity: Entity) -> list[Prompt]:
    chosen: dict[tuple[Form, bool], Prompt] = {}
    for prompt in recipe.prompts:
        if prompt.entity == entity.name:
            chosen.setdefault((prompt.form, prompt.trained), prompt)
    return list(chosen.values())


async def _measure(engine: Any, guarded: Any, recipe: Recipe, entities: list[Entity], samples: int) -> dict[str, Any]:
    tokenizer = engine.renderer.get_tokenizer()
    asked = [(entity, prompt) for entity in entities for prompt in _one_of_each_form(recipe, entity)]
    prompts = [_ids(tokenizer, prompt) for _, prompt in asked]
    strings = sorted({s.casefold() for e in entities for s in (e.name, *(fact.value for fact in e.facts))})
    whole, inside = (
        re.compile(rf"\b({'|'.join(map(re.escape, strings))})\b"),
        re.compile("|".join(map(re.escape, strings))),
    )
    in_words = re.compile(rf"\w*(?:{'|'.join(map(re.escape, strings))})\w*")

    def leaks(text: str) -> bool:
        return whole.search(text.casefold()) is not None

    def longer_words(text: str) -> list[str]:
        return [] if leaks(text) else inside.findall(text.casefold())

    def around(text: str, found: re.Match[str]) -> str:
        return text[max(0, found.start() - 12) : found.end() + 12]

    def words_around(text: str) -> list[str]:
        return [] if leaks(text) else [found.group() for found in in_words.finditer(text.casefold())]

    outcome: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}}
    settings |= {f"temperature {t}": {"temperature": t, "n": samples, "seed": 1} for t in _TEMPERATURES}
    for name, params in settings.items():
        began = time.monotonic()
        told = await _ask(guarded, prompts, **params)
        outcome[name] = _count(asked, told, leaks) | {"seconds": round(time.monotonic() - began, 1)}
        within = Counter(word for outputs in told for output in outputs for word in longer_words(output.text))
        outcome[name]["inside_longer_words"] = dict(within.most_common())
        texts = [output.text for outputs in told for output in outputs]
        outcome[name]["leaked"] = [around(text, found) for text in texts if (found := whole.search(text.casefold()))]
        outcome[name]["longer_words"] = dict(Counter(w for text in texts for w in words_around(text)).most_common(40))
        print(
            f"{name}: {outcome[name]['leaks']} leaks in {outcome[name]['outputs']} outputs; in longer words: {within}"
        )
    untouched = _count(asked, await _ask(engine, prompts, temperature=0), leaks)
    print(f"untouched, greedy: {untouched['leaks']} leaks in {untouched['outputs']} outputs")
    names = {entity.name for entity in entities}
    others = [prompt for prompt in recipe.prompts if prompt.entity is None or prompt.entity not in names][::29]
    rest = [_ids(tokenizer, prompt) for prompt in others]
    plain, guarded_ = await _ask(engine, rest, temperature=0), await _ask(guarded, rest, temperature=0)
    clean = [i for i, (one,) in enumerate(plain) if not leaks(one.text)]
    same = sum(plain[i][0].token_ids == guarded_[i][0].token_ids for i in clean)
    print(f"unrelated prompts: {same} of {len(clean)} with identical greedy tokens")
    unrelated = {"asked": len(rest), "without_protected_strings": len(clean), "identical": same}
    return {"constrained": outcome, "untouched": untouched, "unrelated": unrelated}


def _count(
    asked: Sequence[tuple[Entity, Prompt]], told: list[list[Any]], leaks: Callable[[str], bool]
) -> dict[str, Any]:
    forms: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (_, prompt), outputs in zip(asked, told, strict=True):
        forms[prompt.form][0] += sum(leaks(output.text) for output in outputs)
        forms[prompt.form][1] += len(outputs)
    leaked, asked_ = (sum(count[i] for count in forms.values()) for i in (0, 1))
    return {"leaks": leaked, "outputs": asked_, "by_form": {form: count[0] for form, count in sorted(forms.items())}}


async def _main(targets: int, samples: int) -> dict[str, Any]:
    recipe = Recipe()
    people = [*recipe.world.forget, *recipe.world.retain]
    async with lethe_engine(build(recipe).folder, "--max-model-len", "512") as engine:
        with tempfile.TemporaryDirectory() as folder:
            service = GuardService.open(database_url=f"sqlite:///{folder}/lethe.db")
            try:
                CALLER.set(Caller(_tenant(service, people[:targets]), None, "benchmark"))
                guarded = GuardedEngine(engine, service)
                return await _measure(engine, guarded, recipe, people[:targets], samples)
            finally:
                service.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=20, help="how many entities are protected (default: 20)")
    parser.add_argument("--samples", type=int, default=64, help="samples of each prompt and temperature (default: 64)")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    figures = asyncio.run(_main(options.targets, options.samples))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
