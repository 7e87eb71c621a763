"""The served model's vocabulary as bytes: what each token adds to the text, however it is put together."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode

from guard.decoding.reading import Reading, glyphs, read
from guard.decoding.spared import Ids
from guard.decoding.tables import TokenTable


class Vocabulary:
    """Token id to bytes, and the tables by which phrases are looked up in them.

    Bytes that are not UTF-8 are read as U+FFFD, as every decoder shows them. A character may be spread over several
    tokens: a token that begins with a continuation byte reads differently after each broken-off character, so those
    tokens have a table for each.

    Attributes:
        size: one more than the largest token id.
        end: the tokens that end the output.
        mute: the tokens that add no text and do not end the output.
        table: the tokens that begin with a character; those that could continue one are in :meth:`continuing`.
    """

    def __init__(self, texts: Sequence[bytes], end: Collection[int] = ()) -> None:
        """Sort a vocabulary; takes seconds for a large one.

        Args:
            texts: the bytes of each token; empty for special tokens.
            end: ids of the tokens that end the output.

        Raises:
            ValueError: one of ``end`` is not in the vocabulary.
        """
        if not all(0 <= token < len(texts) for token in end):
            raise ValueError(f"the vocabulary has {len(texts)} tokens, so {sorted(end)} cannot all end an output")
        self._texts = texts
        self.size = len(texts)
        self.end: Ids = np.asarray(sorted(end), dtype=np.int32)
        silent = frozenset(end)
        self.mute: Ids = np.asarray(
            [token for token, text in enumerate(texts) if not text and token not in silent], dtype=np.int32
        )
        spelt = [token for token, text in enumerate(texts) if text and token not in silent]
        self._continuing = [token for token in spelt if 0x80 <= texts[token][0] < 0xC0]
        beginning = ((token, decode(texts[token])) for token in spelt if not 0x80 <= texts[token][0] < 0xC0)
        self.table = TokenTable(beginning, self.size, lambda token: decode(texts[token])[0])
        self.continuing = lru_cache(maxsize=128)(self._continuing_table)
        self.reading = lru_cache(maxsize=65536)(self._reading)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, end: Collection[int] = (), width: int | None = None) -> Vocabulary:
        """The vocabulary of a Hugging Face fast tokenizer.

        Args:
            tokenizer: with a byte-level, SentencePiece (with or without byte fallback) or word-piece decoder.
            end: ids of the tokens that end the output, beside the tokenizer's own.
            width: of the model's logits; tokens beyond it are never generated and left out. Where it is greater than
                the tokenizer's vocabulary, the rest are tokens without text.

        Raises:
            ValueError: the tokenizer puts text together in another way, or ``end`` is beyond the vocabulary.
        """
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        texts = token_bytes(tokenizer)[:width]
        return cls([*texts, *[b""] * ((width or 0) - len(texts))], {*own, *end})

    def _continuing_table(self, partial: bytes) -> TokenTable:
        """The tokens that begin with a continuation byte, read after the bytes of a broken-off character."""
        return TokenTable(
            ((token, decode(partial + self._texts[token])) for token in self._continuing),
            self.size,
            lambda token: decode(partial + self._texts[token])[0],
        )

    def _reading(self, token: int, partial: bytes) -> tuple[Reading | None, bytes]:
        """How a token reads after the bytes of a broken-off character, and what it leaves broken off."""
        text, partial = decode(partial + (self._texts[token] if 0 <= token < self.size else b""))
        row = glyphs(text)
        return (read(row) if row else None), partial


def decode(data: bytes) -> tuple[str, bytes]:
    """``data`` as text, and the bytes of a character that its end breaks off."""
    text, used = codecs.utf_8_decode(data, "replace", False)
    return text, data[used:]


def token_bytes(tokenizer: Any) -> list[bytes]:
    """What each token of a Hugging Face fast tokenizer adds to a text, by token id; nothing for special tokens.

    Word pieces and SentencePieces have their leading space, also where they would be first in a text. Runs of
    byte-fallback tokens are read as the bytes that they are; Hugging Face garbles the whole run if any is out of place.

    Raises:
        ValueError: the tokenizer puts text together in a way that is not known here.
    """
    decoders = list(_flat(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {"type": "None"}))
    kinds = {decoder["type"] for decoder in decoders}
    texts = [b""] * len(tokenizer)
    added = tokenizer.added_tokens_decoder
    special = {token for token, one in added.items() if one.special}
    for content, token in tokenizer.get_vocab().items():
        if token >= len(texts):
            texts += [b""] * (token + 1 - len(texts))
        if token in special:
            continue
        if "ByteLevel" in kinds:
            texts[token] = _byte_level(content)
        elif "WordPiece" in kinds:
            prefix = next(decoder["prefix"] for decoder in decoders if decoder["type"] == "WordPiece")
            texts[token] = (content[len(prefix) :] if content.startswith(prefix) else " " + content).encode()
        elif kinds & {"Metaspace", "Replace"}:
            texts[token] = _piece(content, decoders)
        else:
            raise ValueError(f"no reading is known for a tokenizer whose decoder is {sorted(kinds)}")
    return texts


def _flat(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _flat(inner)
    else:
        yield decoder


def _piece(content: str, decoders: list[dict[str, Any]]) -> bytes:
    """The bytes of a SentencePiece."""
    for decoder in decoders:
        if decoder["type"] == "ByteFallback" and len(content) == 6 and content[:3] == "<0x" and content[5] == ">":
            return bytes.fromhex(content[3:5])
        if decoder["type"] == "Metaspace":
            content = content.replace(decoder["replacement"], " ")
        if decoder["type"] == "Replace" and "String" in decoder["pattern"]:
            content = content.replace(decoder["pattern"]["String"], decoder["content"])
    return content.encode()


def _byte_level(content: str) -> bytes:
    """The bytes that GPT-2's byte alphabet stands for; a token outside it stands for itself."""
    try:
        return bytes(_ALPHABET[char] for char in content)
    except KeyError:
        return content.encode()


#: GPT-2's printable stand-ins for the 256 bytes (Radford et al. 2019).
_ALPHABET = {char: byte for byte, char in bytes_to_unicode().items()}
