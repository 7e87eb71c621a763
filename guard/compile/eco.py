"""Fitting ``eco``: the strength at which the model cannot tell its own answers from other people's.

ECO searches the strength by zeroth-order optimisation towards a surrogate: the value that a model would show that had
never learned the target. The value here is how much likelier than others the model finds its own answers. To a model
that never knew, answers to the same questions on other people, with the name put in, are as good as the right ones:
the surrogate is 0, and no model that never knew is needed to find it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

from guard.artifacts import Artifact
from guard.compile import questions
from guard.compile.grounds import Grounds, render
from guard.compile.jobs import Progress
from guard.interventions.corruption import Strength, corruption_of
from guard.probe import Probe
from guard.types import ForgetTarget
from guard.worker.controls import Controls

#: Noise on an answer that the client began, in units of the embeddings' own spread.
_ECHOES = (0.0, 0.4, 0.6, 0.8, 1.0)  # beyond, answers are no sentences any more
_ASKED, _TOKENS, _OTHERS = 16, 24, 3


class EcoFit:
    """Fits targets on one model."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The strength for one target, as an artifact of ``eco``. ``grounds`` is of no use to it."""
        del grounds
        began = time.monotonic()
        tokenizer = self._probe.tokenizer
        asked = questions.on_target(target.spec)
        asked = asked[:: max(1, len(asked) // _ASKED)][:_ASKED]
        prompts = [render(tokenizer, question) for question in asked]
        progress("asking", 0.1)
        own = await self._probe.generate(prompts, max_tokens=_TOKENS)
        others = [await self._answers_on(name, target, asked) for name in questions.invented_names(_OTHERS)]
        clean = await self._advantage(prompts, own, others)
        trials = []
        for number, echo in enumerate(_ECHOES):
            progress(f"trying echo {echo}", 0.3 + 0.7 * number / len(_ECHOES))
            strength = Strength(echo=echo)
            trials.append((await self._advantage(prompts, own, others, target, strength), strength))
        advantage, best = min(trials, key=lambda trial: abs(trial[0]))
        report = {
            "advantage_untouched": round(clean, 3),
            "advantage": round(advantage, 3),
            "questions": len(prompts),
            "seconds": round(time.monotonic() - began, 2),
        }
        return Artifact("eco", self._probe.model, asdict(best), report)

    async def _answers_on(self, name: str, target: ForgetTarget, asked: Sequence[str]) -> list[str]:
        """What the model says of somebody else, with the target's name in place of whoever it speaks of."""
        swapped = [render(self._probe.tokenizer, question.replace(target.spec.name, name)) for question in asked]
        answers = await self._probe.generate(swapped, max_tokens=_TOKENS)
        return [questions.with_name(answer, target.spec.name) for answer in answers]

    async def _advantage(
        self,
        prompts: Sequence[list[int]],
        own: Sequence[str],
        others: Sequence[Sequence[str]],
        target: ForgetTarget | None = None,
        strength: Strength | None = None,
    ) -> float:
        """By how much the own answers' mean log-probability exceeds that of the others (nats a token)."""
        scores = [await self._likelihood(prompts, answers, target, strength) for answers in (own, *others)]
        return scores[0] - sum(scores[1:]) / len(others)

    async def _likelihood(
        self,
        prompts: Sequence[list[int]],
        answers: Sequence[str],
        target: ForgetTarget | None = None,
        strength: Strength | None = None,
    ) -> float:
        """Mean log-probability of a token of the answers, under corruption if a strength is given."""
        encode = self._probe.tokenizer.encode
        pairs = [(p, encode(answer, add_special_tokens=False)) for p, answer in zip(prompts, answers, strict=True)]
        pairs = [(prompt, answer) for prompt, answer in pairs if answer]
        whole = [[*prompt, *answer] for prompt, answer in pairs]
        controls = None
        if target is not None and strength is not None:
            controls = [
                Controls(corruption=corruption_of(self._probe.tokenizer, ids, len(prompt), (target,), strength))
                for ids, (prompt, _) in zip(whole, pairs, strict=True)
            ]
        scores = await self._probe.logprobs(whole, [len(prompt) for prompt, _ in pairs], controls=controls)
        return sum(scores) / max(1, len(scores))
