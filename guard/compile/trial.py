"""What is asked to fit an edit, and what the edit then does: how much is left of old answers, here and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from guard.compile import questions
from guard.compile.grounds import Grounds, is_refusal, render
from guard.methods.edit import Edit
from guard.probe import Probe
from guard.types import Gating, TargetSpec
from guard.worker.controls import Controls

_RETAINED = 10
#: How many questions are kept back to see what an edit does.
_CHECKED = 10
#: How long the answers are that are compared.
TOKENS = 20


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions on a target and what the model says to them, in two halves: an edit is seen on those it is not made of.

    Attributes:
        prompts: to fit with, as token ids.
        answers: to those.
        held: kept back, as token ids: every second of those that the model does not refuse.
        said: to those.
        asked: how many questions there are.
        known: how many of them the model does not refuse; all if it refuses all.
    """

    prompts: list[list[int]]
    answers: list[str]
    held: list[list[int]]
    said: list[str]
    asked: int
    known: int


async def ask(probe: Probe, spec: TargetSpec) -> Questions:
    """Ask what there is to ask about a target."""
    prompts = [render(probe.tokenizer, question) for question in questions.on_target(spec)]
    answers = await probe.generate(prompts, max_tokens=TOKENS)
    everything = list(range(len(prompts)))
    known = [index for index in everything if not is_refusal(answers[index])] or everything
    held = known[1::2][:_CHECKED] or known
    fitted = [index for index in everything if index not in held] or everything
    return Questions(
        prompts=[prompts[index] for index in fitted],
        answers=[answers[index] for index in fitted],
        held=[prompts[index] for index in held],
        said=[answers[index] for index in held],
        asked=len(prompts),
        known=len(known),
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """What an edit did.

    Attributes:
        left: how much of the old answers to forget questions is left, 0 to 1.
        others_left: how much of those to retain questions is left when the edit is always on, 0 to 1.
        distinct: how little the new answers repeat themselves, 0 to 1.
    """

    left: float
    others_left: float
    distinct: float

    def score(self, gating: Gating) -> float:
        """Higher is better: forgetting first, then speaking well; for an edit that is always on, the rest as before."""
        return -2 * self.left + self.distinct + (self.others_left if gating is Gating.ALWAYS else 0.0)

    def report(self) -> dict[str, float]:
        """As it is shown in a target's report."""
        figures = {"target_left": self.left, "others_left": self.others_left, "distinct_words": self.distinct}
        return {name: round(value, 3) for name, value in figures.items()}


async def attempt(
    probe: Probe, edit: Edit, grounds: Grounds, asked: Sequence[Sequence[int]], said: Sequence[str]
) -> Trial:
    """Ask under an edit.

    Args:
        probe: the model.
        edit: what is tried.
        grounds: whose retain questions are asked too.
        asked: forget questions, as token ids.
        said: what was answered to them before.
    """
    retained = list(grounds.retain)[:: max(1, len(grounds.retain) // _RETAINED)][:_RETAINED]
    async with probe.borrowed(edit) as name:
        controls = Controls(edits=(name,))
        now = await probe.generate([*asked, *retained], max_tokens=TOKENS, controls=controls)
    new = now[: len(asked)]
    kept = [(grounds.retain[ids], answer) for ids, answer in zip(retained, now[len(asked) :], strict=True)]
    return Trial(
        left=_mean([alike(old, answer) for old, answer in zip(said, new, strict=True)]),
        others_left=_mean([alike(old[: len(answer)], answer) for old, answer in kept]),
        distinct=_mean([_distinct(answer) for answer in new]),
    )


def alike(before: str, after: str) -> float:
    """How much of the words of ``before`` still stands in ``after`` in their order, 0 to 1."""
    words = before.lower().split()
    blocks = SequenceMatcher(None, words, after.lower().split(), autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(1, len(words))


def _distinct(text: str) -> float:
    words = text.lower().split()
    return len(set(words)) / len(words) if words else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
