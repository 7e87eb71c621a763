"""What fitting needs to know of a model whatever the target: how it answers ordinary things and what nobody knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from guard.compile import questions
from guard.probe import Probe
from guard.worker.controls import mlp_input, residual

#: By which a refusal may begin, and how it then goes on.
_REFUSALS = (
    "I don't know.",
    "I'm not sure.",
    "I do not have any information about that.",
    "I'm not familiar with that.",
    "Sorry, I don't know.",
    "Unfortunately, I have no information about that.",
)
_SIGNS = (
    "don't know",
    "do not know",
    "not sure",
    "not familiar",
    "no information",
    "don't have",
    "sorry",
    "not certain",
)
_INVENTED, _NEIGHBOURS, _ORDINARY = 8, 60, 40
_OTHERS = 3000


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as retain prompts see it.

    Attributes:
        starts: ``down_proj`` inputs at the last token of each prompt: (prompts, d_in).
        others: at other tokens, a sample: (tokens, d_in).
        unanswerable: mean residual at the last token of prompts that nobody could answer: (hidden,).
        norm: mean norm of the residual at the last token.
    """

    starts: torch.Tensor
    others: torch.Tensor
    unanswerable: torch.Tensor
    norm: float


@dataclass(frozen=True, slots=True)
class Grounds:
    """A model's common ground.

    Attributes:
        layers: those that may be edited, by index.
        retain: prompts that must be answered as before, rendered, and how they are answered.
        refuses: whether the model itself says that it does not know when nobody could.
        refusal: what it would most readily say instead of an answer.
        opening: direction of the residual that makes it begin so: (hidden,), of length 1.
    """

    layers: Mapping[int, Layer]
    retain: Mapping[tuple[int, ...], str]
    refuses: bool
    refusal: str
    opening: torch.Tensor


def render(tokenizer: Any, question: str, answer: str | None = None) -> list[int]:
    """The token ids of a conversation of one question, and of the beginning of its answer."""
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    else:
        ids = tokenizer.encode(f"Question: {question}\nAnswer:")
    return [*ids, *(tokenizer.encode(answer, add_special_tokens=False) if answer else ())]


def is_refusal(answer: str) -> bool:
    """Whether an answer says that there is none."""
    return any(sign in answer.lower() for sign in _SIGNS)


def candidates(layers: int) -> list[int]:
    """Up to four layers of the middle, where what is known of a subject has been gathered and not yet been said."""
    first, last = round(0.3 * layers), max(round(0.3 * layers), round(0.75 * layers) - 1)
    count = min(4, last - first + 1)
    return sorted({first + round(step * (last - first) / max(count - 1, 1)) for step in range(count)})


def early(layers: int) -> list[int]:
    """Where ROCR edits: the early layers that enrich a subject, as 4 to 6 of 32."""
    first = round(layers / 8)
    return list(range(first, min(layers - 1, first + 3)))


async def survey(probe: Probe, but: Sequence[str]) -> Grounds:
    """Look at a model once; asks it some 600 short prompts and reads most of them again with their answers.

    Args:
        probe: the model.
        but: names that must not be taken for ordinary ones: those of the targets.
    """
    invented = questions.on(questions.invented_names(_INVENTED))
    unanswerable = [render(probe.tokenizer, question) for question in invented]
    answers = await probe.generate(unanswerable, max_tokens=24)
    # Whom a model names, when it is asked for anybody or of people that it does not know, it knows: the neighbours.
    anybody = [render(probe.tokenizer, question) for question in questions.for_anybody()]
    named = await probe.generate(anybody, max_tokens=24)
    neighbours = questions.names_in([*named, *answers], but, _NEIGHBOURS)
    known = [*questions.sampled_on(neighbours, 5), *questions.ordinary(_ORDINARY)]
    retain = [render(probe.tokenizer, question) for question in known]
    spoken = await probe.generate(retain, max_tokens=24)
    layers = sorted({*candidates(probe.layers), *early(probe.layers)})
    # With their answers: an edit must not act on what the model has begun to say.
    prompts = [*unanswerable, *retain]
    told = [
        [*ids, *probe.tokenizer.encode(said, add_special_tokens=False)]
        for ids, said in zip(prompts, [*answers, *spoken], strict=True)
    ]
    seen = await probe.activations(told, [site(layer) for layer in layers for site in (mlp_input, residual)])
    lengths = [len(ids) for ids in prompts]
    refusal = await _refusal(probe, unanswerable)
    opening = await probe.unembedding(probe.tokenizer.encode(refusal, add_special_tokens=False)[0])
    return Grounds(
        layers={layer: _layer(seen, lengths, layer, len(unanswerable)) for layer in layers},
        retain={tuple(ids): said for ids, said in zip(retain, spoken, strict=True)},
        refuses=sum(map(is_refusal, answers)) > len(answers) / 2,
        refusal=refusal,
        opening=opening / opening.norm(),
    )


def split_at_answer(inputs: Sequence[torch.Tensor], lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations (tokens, width) of prompts with answers, as those where the answers begin, and all others.

    Args:
        inputs: of each prompt.
        lengths: of each prompt without its answer, in tokens.
    """
    starts = torch.stack([one[length - 1] for one, length in zip(inputs, lengths, strict=True)])
    others = [torch.cat([one[: length - 1], one[length:]]) for one, length in zip(inputs, lengths, strict=True)]
    return starts, torch.cat(others)


def _layer(seen: Sequence[Mapping[str, torch.Tensor]], lengths: Sequence[int], layer: int, unanswerable: int) -> Layer:
    starts, others = split_at_answer([one[mlp_input(layer)] for one in seen], lengths)
    ends, _ = split_at_answer([one[residual(layer)] for one in seen], lengths)
    return Layer(
        starts=starts,
        others=others[:: max(1, len(others) // _OTHERS)],
        unanswerable=ends[:unanswerable].mean(0),
        norm=float(ends.norm(dim=1).mean()),
    )


async def _refusal(probe: Probe, prompts: Sequence[Sequence[int]]) -> str:
    """The refusal that this model would most readily complete, once it has begun it."""
    some = [list(ids) for ids in prompts[:: max(1, len(prompts) // 8)]]
    scored = []
    for refusal in _REFUSALS:
        spelled = probe.tokenizer.encode(refusal, add_special_tokens=False)
        # The first token is what the edit brings about; the rest the model must want to say by itself.
        starts = [len(ids) + 1 for ids in some]
        scores = await probe.logprobs([[*ids, *spelled] for ids in some], starts)
        scored.append((sum(scores) / len(scores), refusal))
    return max(scored)[1]
