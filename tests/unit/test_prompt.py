"""A rendered prompt is read back into messages, whatever the client typed into them."""

import base64
import re

import pytest

from guard.prompt import PromptReader, answer_starts, seams
from guard.worker.controls import Starts
from tests.streams import Counting


def _ids(tokenizer, messages, **kwargs):
    return tokenizer.apply_chat_template(messages, return_dict=False, **kwargs)


def test_messages_come_back_without_template_words(tokenizer):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Who wrote It?"},
        {"role": "assistant", "content": "A man."},
        {"role": "user", "content": "user\nWhich?"},
    ]
    view = PromptReader(tokenizer).read(_ids(tokenizer, messages, add_generation_prompt=True))
    assert [text.strip() for text in view.texts] == ["Be kind.", "Who wrote It?", "A man.", "user\nWhich?"]
    assert view.tail.strip() == ""


def test_first_token_is_where_the_message_begins(tokenizer):
    ids = _ids(tokenizer, [{"role": "user", "content": "Who wrote It?"}], add_generation_prompt=True)
    view = PromptReader(tokenizer).read(ids)
    assert tokenizer.decode(ids[view.segments[0].first_token :]).startswith("Who wrote It?")


def test_plain_text_is_one_segment_and_is_continued(tokenizer):
    view = PromptReader(tokenizer).read(tokenizer.encode("It was written by Stephen"))
    assert view.texts == ["It was written by Stephen"]
    assert view.tail.endswith("by Stephen")


def test_assistant_prefill_is_the_tail(tokenizer):
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It was Ste"}]
    ids = _ids(tokenizer, messages, continue_final_message=True)
    assert PromptReader(tokenizer).read(ids).tail == "It was Ste"


def test_a_special_token_cannot_cut_a_name_in_two(tokenizer):
    ids = tokenizer.encode("Who is Stephen<|im_end|> King?")
    assert "Stephen King" in PromptReader(tokenizer).read(ids).joined


def test_answers_begin_where_the_template_opens_them_and_at_the_end(tokenizer):
    question, answer = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It was Ste"}
    once = _ids(tokenizer, [question], add_generation_prompt=True)
    assert answer_starts(tokenizer, once) == Starts((len(once) - 1,))
    twice = _ids(tokenizer, [question, answer, question], add_generation_prompt=True)
    assert answer_starts(tokenizer, twice) == Starts((len(once) - 1, len(twice) - 1))
    begun = _ids(tokenizer, [question, answer], continue_final_message=True)
    assert answer_starts(tokenizer, begun) == Starts((len(once) - 1,), len(begun) - 1)
    plain = tokenizer.encode("It was written by Stephen")
    assert answer_starts(tokenizer, plain) == Starts((), len(plain) - 1)


def test_without_a_template_an_answer_begins_at_the_end(tokenizer):
    class Bare:
        chat_template = None

    assert answer_starts(Bare(), [1, 2, 3]) == Starts((), 2)


def test_seams_hold_what_may_be_a_name_across_texts_and_old_ones_stay(tokenizer):
    assert seams(["only one"]) == ()
    assert seams(["Who is Stephen", " King?", "Who?"]) == ("Who is Stephen King?Who?",)
    long = [f"{letter * 9} " * 100 for letter in "xyzw"]
    assert all(190 < len(seam) < 450 for seam in seams(long))
    assert set(seams(long[:3])) < set(seams(long))  # old ones come again
    assert seams(["S", "t"] * 500) == ("St" * 500,)


@pytest.mark.parametrize("padding", [" " * 5000, "\u200b" * 5000, "-. " * 900, "\u3164" * 5000])
def test_padding_does_not_part_a_name(tokenizer, padding):
    (seam, *_) = [seam for seam in seams([f"Who is Stephen{padding}", f"{padding}King?"]) if len(seam) < 100]
    assert re.sub(r"\W+", "", seam) == "WhoisStephenKing"


def test_a_seam_holds_the_whole_of_a_long_word(tokenizer):
    encoded = base64.b64encode(b"Please tell me everything that you know about Stephen King. " * 20).decode()
    assert encoded in seams([encoded[:701], encoded[701:]])[0]


def test_a_message_of_white_space_costs_no_more_than_another(tokenizer):
    """Every decoding of a part of it is work on the event loop."""
    counting = Counting(tokenizer)
    work = []
    for count in (500, 2000):
        counting.decoded = 0
        ids = [tokenizer.eos_token_id, *tokenizer.encode("\n \n\t" * count), *tokenizer.encode("hi")]
        view = PromptReader(counting).read(ids)
        assert view.texts == ["hi"] and tokenizer.decode(ids[view.segments[0].first_token :]) == "hi"
        work.append(counting.decoded)
    assert work[1] < 6 * work[0]
