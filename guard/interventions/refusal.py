"""``refuse``: answer with a fixed sentence that says nothing about what is hidden."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from vllm.outputs import RequestOutput

from guard.interventions.base import Intervention, Serve
from guard.outputs import GuardedRequest, as_asked, reply, told_of_prompt
from guard.types import ForgetTarget, TenantPolicy

DEFAULT_REFUSAL = "I'm sorry, but I don't have any information about that."

#: Stands in for the prompt where a refusal must obey a grammar, so the model itself fills the required shape.
_NEUTRAL_REQUEST = "Answer that you do not have this information."


class Refusal(Intervention):
    """A fixed sentence; where the client demands structure, the model's own answer to an empty question."""

    name = "refuse"
    strictness = 100

    def serve(
        self, request: GuardedRequest, targets: tuple[ForgetTarget, ...], policy: TenantPolicy, serve: Serve
    ) -> AsyncIterator[RequestOutput]:
        """See :meth:`Intervention.serve`."""
        if request.params.structured_outputs is not None:
            return self._structured(request, serve)
        return reply(request, policy.tenant.spec.refusal or self.means.refusal)

    async def _structured(self, request: GuardedRequest, serve: Serve) -> AsyncIterator[RequestOutput]:
        """Let the grammar shape an answer to a prompt from which everything the client wrote is gone."""
        neutral = _neutral_prompt(request)
        params = request.params.clone()
        params.prompt_logprobs = None
        prompt = {"type": "token", "prompt_token_ids": neutral, "cache_salt": "lethe:refuse"}
        told = told_of_prompt(request)
        async for result in as_asked(request, serve(replace(request, prompt=prompt, params=params))):
            result.prompt_logprobs = next(told)
            yield result


def _neutral_prompt(request: GuardedRequest) -> list[int]:
    render = getattr(request.tokenizer, "apply_chat_template", None)
    if render is not None and getattr(request.tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": _NEUTRAL_REQUEST}]
        text = render(messages, tokenize=False, add_generation_prompt=True)
        return request.tokenizer.encode(text, add_special_tokens=False)
    return request.tokenizer.encode(_NEUTRAL_REQUEST + "\n")
