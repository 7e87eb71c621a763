"""Where ECO corrupts a prompt: all that somebody wrote, and in answers the names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from guard.interventions.corruption import Strength, corruption, names_of
from guard.types import ForgetTarget, TargetSpec
from tests.streams import Counting, chat, request_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = ForgetTarget("tgt_1", 1, TargetSpec(name="Stephen King", aliases=("Richard Bachman",)), NOW, NOW)


def _texts(tokenizer, ids, spans):
    return [tokenizer.decode(ids[start:end]).strip() for start, end in spans]


def test_every_message_is_corrupted_and_the_template_is_not(tokenizer):
    ids = chat(tokenizer, "Who wrote It?", "A man.", "Which?", add_generation_prompt=True)
    made = corruption(request_of(tokenizer, ids), (TARGET,), Strength())
    assert _texts(tokenizer, ids, made.spans) == ["Who wrote It?", "A man.", "Which?"]
    assert made.answer == (len(ids), len(ids))


def test_in_an_answer_that_the_client_began_only_names_are_corrupted(tokenizer):
    ids = chat(tokenizer, "Who wrote It?", "It was Stephen King, or Bachman", continue_final_message=True)
    made = corruption(request_of(tokenizer, ids), (TARGET,), Strength(echo=0.5))
    question, *names = _texts(tokenizer, ids, made.spans)
    assert question == "Who wrote It?"
    assert "Stephen King" in " ".join(names) and "Bachman" in names[-1]
    assert not any("It was" in name for name in names)
    assert tokenizer.decode(ids[slice(*made.answer)]).strip().startswith("It was")
    assert made.echo == 0.5


def test_a_question_that_is_to_be_continued_is_no_answer(tokenizer):
    messages = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "The author of It was born in"}]
    ids = tokenizer.apply_chat_template(messages, return_dict=False, continue_final_message=True)
    made = corruption(request_of(tokenizer, ids), (TARGET,), Strength())
    assert "born in" in _texts(tokenizer, ids, made.spans)[-1]


def test_a_finished_answer_is_one_all_the_same(tokenizer):
    ids = chat(tokenizer, "Who wrote It?", "It was a man", continue_final_message=True)
    made = corruption(request_of(tokenizer, [*ids, tokenizer.eos_token_id]), (TARGET,), Strength())
    assert _texts(tokenizer, ids, made.spans) == ["Who wrote It?"]


def test_a_prompt_without_turns_is_corrupted_whole(tokenizer):
    ids = tokenizer.encode("It was written by Stephen")
    made = corruption(request_of(tokenizer, ids), (TARGET,), Strength())
    assert made.spans == ((0, len(ids)),)


def test_the_same_prompt_is_corrupted_alike_and_another_otherwise(tokenizer):
    one, other = (tokenizer.encode(text) for text in ("Who wrote It?", "Who wrote Carrie?"))
    seeds = [corruption(request_of(tokenizer, ids), (TARGET,), Strength()).seed for ids in (one, one, other)]
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("name", ["Stephen King", "King", "Bachman"])
def test_names_are_recognised_as_the_model_spells_them(tokenizer, name):
    made = corruption(request_of(tokenizer, tokenizer.encode("Who?")), (TARGET,), Strength())
    assert name in names_of(TARGET)
    assert tuple(tokenizer.encode(f" {name}", add_special_tokens=False)) in made.names


def test_every_name_in_a_long_answer_is_found_without_reading_it_again(tokenizer):
    counting = Counting(tokenizer)
    work = []
    for count in (20, 80):
        ids = chat(tokenizer, "Who wrote It?", "It was Stephen King, naturally. " * count, continue_final_message=True)
        counting.decoded = 0
        _, *names = corruption(request_of(counting, ids), (TARGET,), Strength()).spans
        assert sum("King" in tokenizer.decode(ids[start:end]) for start, end in names) == count
        work.append(counting.decoded)
    assert work[1] < 8 * work[0]


def test_names_that_end_in_one_step_are_all_found(tokenizer):
    target = ForgetTarget("tgt_1", 1, TargetSpec(name="Cooper", aliases=("山",)), NOW, NOW)
    ids = chat(tokenizer, "Who?", "It was Cooper山", continue_final_message=True)
    _, *names = corruption(request_of(tokenizer, ids), (target,), Strength()).spans
    assert (
        tokenizer.decode([ids[at] for at in sorted({at for span in names for at in range(*span)})]).strip()
        == "Cooper山"
    )


def test_a_name_and_its_part_that_end_together_are_one_span(tokenizer):
    ids = chat(tokenizer, "Who?", "It was Stephen King.", continue_final_message=True)
    _, *names = _texts(tokenizer, ids, corruption(request_of(tokenizer, ids), (TARGET,), Strength()).spans)
    assert sum("King" in name for name in names) == 1


def test_words_of_grammar_in_a_name_are_no_names():
    target = ForgetTarget("tgt_1", 1, TargetSpec(name="The Lord of the Rings", aliases=("LotR",)), NOW, NOW)
    assert names_of(target) == ["The Lord of the Rings", "LotR", "Lord", "Rings"]
