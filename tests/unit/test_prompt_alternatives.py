"""What the log-probabilities of a prompt tell in other words, by the alternatives to its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from vllm.logprobs import Logprob
from vllm.outputs import RequestOutput

from classifiers.profile import Profile
from classifiers.statement_index import StatementIndex
from guard.prompt_alternatives import tell
from guard.statements import StatementRule
from guard.types import GuardToggle
from tests.statements import indexed
from tests.streams import chat, request_of

VESPER = Profile(
    "v@1", "Orla Vesperton", documents=("Orla Vesperton was born in Ballinacarrow. She plays the bassoon.",)
)
ASKED = "What does the writer born in Ballinacarrow play?"


@pytest.fixture(scope="module")
def index() -> Iterator[StatementIndex]:
    with indexed(VESPER) as index:
        yield index


def _rule(
    index: StatementIndex, *, enforced: bool = True, seen: list[Any] | None = None, **toggle: Any
) -> StatementRule:
    keys, none = frozenset({VESPER.key}), frozenset[str]()
    return StatementRule(
        index=index,
        enforced=keys if enforced else none,
        monitored=none if enforced else keys,
        toggle=GuardToggle(enabled=True, deadline_ms=60_000, **toggle),
        fallback="",
        report=None if seen is None else lambda hit, taken_back: seen.append((hit.key, taken_back)),
    )


def _result(ids: Sequence[int], rather: Mapping[int, Sequence[int]]) -> RequestOutput:
    """Log-probabilities of a prompt, with alternatives to some of its tokens."""
    told = [{token: Logprob(-1.0) for token in (one, *rather.get(at, ()))} for at, one in enumerate(ids)]
    return RequestOutput("r", None, list(ids), [None, *told[1:]], [], finished=True)


def _begun(tokenizer: Any, asked: str, begun: str) -> list[int]:
    return [*chat(tokenizer, asked), *tokenizer.encode(begun, add_special_tokens=False)]


async def _tells(tokenizer: Any, rule: StatementRule, asked: str, begun: str, ends: str) -> bool:
    """Of a prompt that begins an answer and repeats its last token, to which ``ends`` is the alternative, whole."""
    ids = _begun(tokenizer, asked, begun)
    rest = tokenizer.encode(f"{begun}{ends}", add_special_tokens=False)
    more = rest[len(tokenizer.encode(begun, add_special_tokens=False)) :]
    told = False
    for token in more:  # read off one by one
        sent = [*ids, ids[-1]]
        told |= await tell(request_of(tokenizer, sent, prompt_logprobs=1), rule, _result(sent, {len(ids): [token]}))
        ids.append(token)
    return told


@pytest.mark.parametrize("begun", ["Orla Vesperton plays the", "She plays the"])
async def test_a_fact_that_comes_next_is_told(tokenizer: Any, index: StatementIndex, begun: str) -> None:
    seen: list[Any] = []
    assert await _tells(tokenizer, _rule(index, seen=seen), ASKED, begun, " bassoon")
    assert seen[0] == (VESPER.key, True)


async def test_it_is_told_behind_what_an_intervention_put_before_the_prompt(
    tokenizer: Any, index: StatementIndex
) -> None:
    *begun, end = _begun(tokenizer, ASKED, "She plays the bassoon")
    sent = [*begun, begun[-1]]
    served = [*chat(tokenizer, "Say nothing of anybody."), *sent]
    result = _result(served, {len(served) - 1: [end]})
    assert await tell(request_of(tokenizer, sent, prompt_logprobs=1), _rule(index), result)


@pytest.mark.parametrize("ends", [" violin", " ball", " lottery"])
async def test_what_is_no_fact_is_not(tokenizer: Any, index: StatementIndex, ends: str) -> None:
    assert not await _tells(tokenizer, _rule(index), "What does Tom like?", "He plays the", ends)


async def test_what_is_monitored_is_reported_only(tokenizer: Any, index: StatementIndex) -> None:
    seen: list[Any] = []
    rule = _rule(index, enforced=False, seen=seen)
    assert not await _tells(tokenizer, rule, ASKED, "Orla Vesperton plays the", " bassoon")
    assert (VESPER.key, False) in seen


async def test_what_cannot_be_judged_counts_as_told_where_guards_fail_closed(
    tokenizer: Any, index: StatementIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(index, "candidates", broken)
    for on_error in ("closed", "open"):
        told = await _tells(tokenizer, _rule(index, on_error=on_error), ASKED, "Orla Vesperton plays the", " bassoon")
        assert told is (on_error == "closed")


async def test_few_of_many_alternatives_are_looked_at_closely(
    tokenizer: Any, index: StatementIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may ask for twenty to each of thousands of tokens."""
    ids = chat(tokenizer, "The old ship left the harbour at dawn, and nobody on board had slept. " * 20)
    others = tokenizer.encode(
        " sea storm captain bread winter lantern street music table glass", add_special_tokens=False
    )
    looked = []
    candidates = index.candidates
    monkeypatch.setattr(index, "candidates", lambda *a: looked.append(a) or candidates(*a))
    result = _result(ids, {at: others for at in range(1, len(ids))})
    assert not await tell(request_of(tokenizer, ids, prompt_logprobs=20), _rule(index), result)
    assert len(looked) < len(ids) * len(others) / 5
