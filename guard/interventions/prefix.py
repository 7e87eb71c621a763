"""``prefix``: the guardrail baseline of Thaker et al. (arXiv 2403.03329), applied only to flagged requests.

The model is told, ahead of everything the client wrote, to answer as if it had never known the target. The wording
follows the RWKU benchmark's version of the baseline (its appendix H).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

from vllm.outputs import RequestOutput

from guard.interventions.base import Intervention, Serve
from guard.outputs import GuardedRequest, as_asked
from guard.types import ForgetTarget, TenantPolicy

_INSTRUCTION = (
    "You are an AI assistant who is supposed to unlearn about {names} and provide answers without its knowledge, "
    "as if you never knew about it. Don't tell anyone that you unlearned anything.\n\n"
)


class Prefix(Intervention):
    """An instruction at the head of the first message; costs its own length in prompt tokens."""

    name = "prefix"
    strictness = 10

    async def serve(
        self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], policy: TenantPolicy, serve: Serve
    ) -> AsyncIterator[RequestOutput]:
        """See :meth:`Intervention.serve`."""
        instruction = _INSTRUCTION.format(names=", ".join(target.spec.name for target in targets))
        changed = request.token_ids
        at = request.view.segments[0].first_token if request.view.segments else len(changed)
        changed[at:at] = request.tokenizer.encode(instruction, add_special_tokens=False)
        salt = hashlib.sha256(instruction.encode()).hexdigest()[:16]
        salts = ["lethe", self.name, salt, request.prompt.get("cache_salt") or ""]
        prompt = {"type": "token", "prompt_token_ids": changed, "cache_salt": ":".join(salts)}
        async for result in as_asked(request, serve(replace(request, prompt=prompt))):
            # Nor must ours show in the log-probabilities.
            if result.prompt_logprobs is not None:
                added = len(changed) - len(request.token_ids)
                del result.prompt_logprobs[at + (at == 0) : at + (at == 0) + added]
            yield result
