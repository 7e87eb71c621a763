"""A document that the model knows by heart is not recited by the real engine: streamed or whole, greedy or sampled."""

from __future__ import annotations

import asyncio

import pytest
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from classifiers.word_stream import folded_words
from guard.types import GuardName, GuardToggle, TargetSpec
from server.demo.general import DEFINITIONS

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUN = 4
#: What the demo model answers word for word, as one text.
DOCUMENT = " ".join(DEFINITIONS.values())
WORDS = ("bread", "candle", "needle", "hammer")

_counter = iter(range(10**9))


def _longest_run(text: str) -> int:
    """Words in a row that ``text`` has from the document."""
    document, said = f" {' '.join(folded_words(DOCUMENT))} ", folded_words(text)
    spans = ((start, end) for start in range(len(said)) for end in range(start + 1, len(said) + 1))
    return max((end - start for start, end in spans if f" {' '.join(said[start:end])} " in document), default=0)


@pytest.fixture
def become_readers(as_tenant, service):
    """Makes a tenant for which the document is protected and nothing looks at prompts; call it inside the test."""

    def become() -> str:
        tenant = as_tenant(TargetSpec(name="The little dictionary", documents=(DOCUMENT,), verbatim_run=RUN))

        def switch_off(writer):
            for guard in set(GuardName) - {GuardName.LEAK}:
                writer.put_guard_toggle(tenant, guard, GuardToggle(enabled=False))

        service.registry.write(switch_off)
        return tenant

    return become


async def _answers(client, **params):
    tokenizer = client.renderer.get_tokenizer()

    async def one(word: str) -> str:
        messages = [{"role": "user", "content": f"Define the word {word}."}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        sampling = SamplingParams(max_tokens=40, **{"temperature": 0, **params})
        stream = client.generate(tokens_input(ids), sampling, f"document-{next(_counter)}")
        return "".join([result.outputs[0].text async for result in stream if result.outputs])

    return await asyncio.gather(*map(one, WORDS))


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
@pytest.mark.parametrize("options", [{}, {"logprobs": 2}, {"temperature": 0.5, "seed": 1}])
async def test_a_document_is_not_recited(guarded, engine, become_readers, service, kind, options):
    readers = become_readers()
    untouched = await _answers(engine, output_kind=kind, **options)
    assert all(_longest_run(text) > RUN for text in untouched)
    told = await _answers(guarded, output_kind=kind, **options)
    assert max(map(_longest_run, told)) <= RUN
    refusal = service.refusal_text(service.registry.snapshot.policies[readers])
    assert all(text.endswith(refusal) for text in told)
    if kind is RequestOutputKind.DELTA:
        assert all(_longest_run(text) == RUN for text in told), "what may be said has been said"


async def test_the_check_route_sees_copies(service, become_readers):
    readers = become_readers()
    policy = service.registry.snapshot.policies[readers]
    recited = await service.check(policy, ["What is bread?"], DEFINITIONS["bread"])
    quoted = await service.check(policy, ["What is bread?"], "They say that bread is a food.")
    assert recited.completion_blocked and not quoted.completion_blocked
