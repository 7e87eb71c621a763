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
_INVENTED, _NEIGHBOURS, _ORDINARY = 8, 24, 40
_OTHERS = 1500


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
        opening: direction of the residual that makes it begin a refusal: (hidden,), of length 1.
    """

    layers: Mapping[int, Layer]
    retain: Mapping[tuple[int, ...], str]
    refuses: bool
    opening: torch.Tensor


def render(tokenizer: Any, question: str, answer: str | None = None) -> list[int]:
    """The token ids of a conversation of one question, and of the beginning of its answer."""
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    else:
        ids = tokenizer.encode(f"Question: {question}\nAnswer:")
    return [*ids, *(tokenizer.encode(answer, add_special_tokens=False) if answer else ())]


def candidates(layers: int) -> list[int]:
    """Up to four layers of the middle, where what is known of a subject has been gathered and not yet been said."""
    first, last = round(0.3 * layers), max(round(0.3 * layers), round(0.75 * layers) - 1)
    count = min(4, last - first + 1)
    return sorted({first + round(step * (last - first) / max(count - 1, 1)) for step in range(count)})


def early(layers: int) -> list[int]:
    """Where ROCR edits: the early layers that enrich a subject, as 4 to 6 of 32."""
    first = max(1, round(layers / 8))
    return list(range(first, min(layers - 1, first + 3)))


async def survey(probe: Probe, but: Sequence[str]) -> Grounds:
    """Look at a model once; costs some 300 short prompts.

    Args:
        probe: the model.
        but: names that must not be taken for ordinary ones: those of the targets.
    """
    invented = questions.on(questions.invented_names(_INVENTED))
    unanswerable = [render(probe.tokenizer, question) for question in invented]
    answers = await probe.generate(unanswerable, max_tokens=24)
    # What a model says of people whom it does not know tells whom it knows: its neighbours.
    neighbours = questions.names_in(answers, but, _NEIGHBOURS)
    known = [*questions.on(neighbours, 5), *questions.ordinary(_ORDINARY)]
    retain = [render(probe.tokenizer, question) for question in known]
    spoken = await probe.generate(retain, max_tokens=24)
    layers = sorted({*candidates(probe.layers), *early(probe.layers)})
    seen = await probe.activations(
        [*unanswerable, *retain], [site(layer) for layer in layers for site in (mlp_input, residual)]
    )
    refuses = sum(any(sign in answer.lower() for sign in _SIGNS) for answer in answers) > len(answers) / 2
    return Grounds(
        layers={layer: _layer(seen, layer, len(unanswerable)) for layer in layers},
        retain={tuple(ids): said for ids, said in zip(retain, spoken, strict=True)},
        refuses=refuses,
        opening=await _opening(probe, unanswerable),
    )


def _layer(seen: Sequence[Mapping[str, torch.Tensor]], layer: int, unanswerable: int) -> Layer:
    starts = torch.stack([one[mlp_input(layer)][-1] for one in seen])
    others = torch.cat([one[mlp_input(layer)][:-1] for one in seen])
    ends = torch.stack([one[residual(layer)][-1] for one in seen])
    return Layer(
        starts=starts,
        others=others[:: max(1, len(others) // _OTHERS)],
        unanswerable=ends[:unanswerable].mean(0),
        norm=float(ends.norm(dim=1).mean()),
    )


async def _opening(probe: Probe, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The direction of the token by which this model would most readily begin a refusal that it then completes."""
    some = [list(ids) for ids in prompts[:: max(1, len(prompts) // 8)]]
    best: tuple[float, int] | None = None
    for refusal in _REFUSALS:
        spelled = probe.tokenizer.encode(refusal, add_special_tokens=False)
        # The first token is what the edit brings about; the rest the model must want to say by itself.
        starts = [len(ids) + 1 for ids in some]
        scores = await probe.logprobs([[*ids, *spelled] for ids in some], starts)
        mean = sum(scores) / len(scores)
        if best is None or mean > best[0]:
            best = (mean, spelled[0])
    assert best is not None
    direction = await probe.unembedding(best[1])
    return direction / direction.norm()
