"""Choosing what the action ``auto`` means for a target: every intervention that can act on it is tried and measured.

Measured are, each from 0 to 1 and on questions that the model itself answered before:

* *forget*: the share of the words of its answers on the target that are not said any more; of questions and of
  sentences that it goes on with, whichever is forgotten less;
* *kept*: the share of the words of its other answers that still are, when such a question is flagged by mistake;
* *fluency*: the share of answers on the target that are well-formed (:mod:`guard.compile.fluency`).

The score is the harmonic mean of forgetting and fluency, so that neither makes up for the other, less what is lost of
other answers as often as they are flagged by mistake. What acts on the prompt or on where an answer begins loses next
to all of those, so in a mean of all three it would be chance that decides. Of equals it is ``eco``, which alone also
hides what a client reads out of log-probabilities. What forgets too little is not eligible, whatever its score; where
nothing is, ``auto`` stays what the server's default says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import harmonic_mean, mean

import numpy as np
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import SamplingParams

from guard.artifacts import Artifact
from guard.compile import fluency, questions
from guard.compile.grounds import Grounds, is_refusal, render
from guard.compile.jobs import Progress
from guard.compile.trial import alike
from guard.interventions import INTERVENTIONS, InModelIntervention, Means, UnpreparedError
from guard.interventions.corruption import Eco
from guard.outputs import GuardedRequest
from guard.policy import AUTO
from guard.probe import Probe
from guard.prompt import PromptReader
from guard.types import ForgetTarget, Gating

#: How much must be forgotten.
_LEAST = 0.8
#: The share of requests on other things that are flagged by mistake, at most.
_MISTAKEN = 0.01
_ASKED, _OTHERS, _TOKENS = 24, 16, 24

#: Token ids, and what the model says to them.
Asked = tuple[Sequence[int], str]


@dataclass(frozen=True, slots=True)
class Appraised:
    """What was measured of one intervention; see the module."""

    forget: float
    kept: float
    fluency: float
    seconds: float

    @property
    def score(self) -> float:
        """Higher is better, in hundredths: what is measured on two dozen answers tells no finer ones apart."""
        return round(harmonic_mean([self.forget, self.fluency]) - _MISTAKEN * (1 - self.kept), 2)


def chosen(found: Mapping[str, Appraised]) -> str:
    """The name of the best of those that forget enough; of equals ``eco``; empty if none does."""
    enough = {name: one.score for name, one in found.items() if one.forget >= _LEAST}
    return max(enough, key=lambda name: (enough[name], name == Eco.name), default="")


class AutoFit:
    """Chooses for targets on one model. It comes after all other fits: what is not fitted cannot be chosen."""

    def __init__(self, means: Means, probe: Probe) -> None:
        self._probe = probe
        kinds = [kind for kind in INTERVENTIONS.values() if issubclass(kind, InModelIntervention)]
        self._interventions = {kind.name: kind(means) for kind in kinds}
        self._reader = PromptReader(probe.tokenizer)

    async def fit(self, target: ForgetTarget, grounds: Grounds, progress: Progress) -> Artifact:
        """The choice for one target, as an artifact of ``auto`` whose settings hold the ``action``, "" for none."""
        began = time.monotonic()
        progress("asking", 0.05)
        tokenizer = self._probe.tokenizer
        asked = [render(tokenizer, question) for question in questions.on_target(target.spec)[1::2]]
        known = (await self._known(asked))[:_ASKED]
        begun = await self._known([tokenizer.encode(text) for text in questions.begun_on(target.spec.name)])
        report: dict[str, object] = {"questions": len(known), "completions": len(begun)}
        if not known:
            return self._artifact("", report | {"because": "the model knows nothing of it"}, began)
        others = list(grounds.retain.items())[:: max(1, len(grounds.retain) // _OTHERS)][:_OTHERS]
        bar = await self._plausible([said for _, said in known], others)
        found: dict[str, Appraised] = {}
        for number, name in enumerate(self._interventions):
            progress(f"trying {name}", 0.1 + 0.9 * number / len(self._interventions))
            try:
                found[name] = await self._appraise(name, target, known, begun, others, bar)
            except UnpreparedError:
                continue
        best = chosen(found)
        report["actions"] = {
            name: {**{key: round(value, 3) for key, value in asdict(one).items()}, "score": one.score}
            for name, one in found.items()
        }
        report["because"] = (
            f"best score of those that forget at least {_LEAST:.0%}" if best else f"none forgets {_LEAST:.0%}"
        )
        return self._artifact(best, report, began)

    async def _known(self, asked: Sequence[Sequence[int]]) -> list[Asked]:
        """What the model says of its own accord, beside what was asked; without refusals."""
        answers = await self._probe.generate(asked, max_tokens=_TOKENS)
        return [(ids, said) for ids, said in zip(asked, answers, strict=True) if not is_refusal(said)]

    def _artifact(self, action: str, report: dict[str, object], began: float) -> Artifact:
        report["seconds"] = round(time.monotonic() - began, 2)
        return Artifact(AUTO, self._probe.model, {"action": action}, report)

    async def _appraise(
        self,
        name: str,
        target: ForgetTarget,
        known: Sequence[Asked],
        begun: Sequence[Asked],
        others: Sequence[Asked],
        bar: float,
    ) -> Appraised:
        began = time.monotonic()
        now = await self._answers(name, target, [ids for ids, _ in known])
        seconds = time.monotonic() - began
        plain = await self._answers(name, target, [ids for ids, _ in begun])
        elsewhere = await self._answers(name, target, [ids for ids, _ in others])
        losses = await self._losses(now, others)
        return Appraised(
            forget=1 - max(_kept(known, now), _kept(begun, plain)),
            kept=_kept(others, elsewhere),
            fluency=mean(fluency.is_well_formed(said, nll, bar) for said, nll in zip(now, losses, strict=True)),
            seconds=seconds / len(known),
        )

    async def _answers(self, name: str, target: ForgetTarget, prompts: Sequence[Sequence[int]]) -> list[str]:
        """What is said under an intervention.

        Raises:
            UnpreparedError: it cannot act on the target.
        """

        async def one(ids: Sequence[int]) -> str:
            controls = await self._interventions[name].controls(self._request(ids), (target,), Gating.GATED)
            (said,) = await self._probe.generate([ids], max_tokens=_TOKENS, controls=controls)
            return said

        return list(await asyncio.gather(*map(one, prompts)))

    def _request(self, ids: Sequence[int]) -> GuardedRequest:
        return GuardedRequest(
            prompt=tokens_input(list(ids)),
            params=SamplingParams(temperature=0, max_tokens=_TOKENS),
            request_id="appraisal",
            view=self._reader.read(ids),
            tokenizer=self._probe.tokenizer,
            vocab_size=0,
            eos_token_id=None,
        )

    async def _plausible(self, said: Sequence[str], others: Sequence[Asked]) -> float:
        own = await self._losses(said, others)
        mixed = await self._losses([fluency.shuffled(one) for one in said], others)
        return fluency.plausibility_bar(np.asarray(own), np.asarray(mixed))

    async def _losses(self, said: Sequence[str], others: Sequence[Asked]) -> list[float]:
        """Mean negative log-probability (nats a token) of texts behind other questions; infinite for empty ones."""
        encode = self._probe.tokenizer.encode
        pairs = [
            (others[number % len(others)][0], encode(text, add_special_tokens=False))
            for number, text in enumerate(said)
        ]
        filled = [(ids, tokens) for ids, tokens in pairs if tokens]
        scores = iter(
            await self._probe.logprobs([[*ids, *tokens] for ids, tokens in filled], [len(ids) for ids, _ in filled])
        )
        return [-next(scores) if tokens else float("inf") for _, tokens in pairs]


def _kept(asked: Sequence[Asked], answers: Sequence[str]) -> float:
    """The share of the words that were said before and still are; 0 where nothing was."""
    return mean([alike(before, after) for (_, before), after in zip(asked, answers, strict=True)] or [0.0])
