"""Seeing through disguises: the same text as a plain reader would write it, and what is encoded inside it.

Everything here is cheap on ordinary text: a disguise is undone only where a quick test finds one.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from classifiers.ciphers import deciphered
from classifiers.escapes import paired
from classifiers.folding import LETTER_SIGNS, LETTER_SYMBOLS, SMALL_CAPITALS, fold, is_separator

#: Encoded text inside encoded text is followed this deep.
_DEPTH = 2
#: Shortest encoded stretch worth decoding, in characters.
_MIN_ENCODED = 12

_GAP = r"[ .\-_*·|/+]"
_LETTER = r"[^\W\d_]"
#: Four or more single letters with the same gap between them, and further such runs after another gap.
_SPELLED = re.compile(
    rf"(?<![^\W_])(?:{_LETTER}({_GAP}{{1,3}}))(?:{_LETTER}\1){{2,}}{_LETTER}"
    rf"(?:(?!\1){_GAP}{{1,6}}{_LETTER}(?:\1{_LETTER})+)*(?![^\W_])"
)
_LEET_RUN = re.compile(r"[\w@$!|]+")
_LEET_SIGN = re.compile(r"[0-9@$!|]")
_LEET = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", **LETTER_SIGNS})
_BASE64 = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{_MIN_ENCODED},}}={{0,2}}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[\s:,]?){6,}(?![0-9A-Za-z])")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2}|[\w.+~-]){3,}")
_ESCAPES = re.compile(r"\\u[0-9a-fA-F]{4}")
_BINARY = re.compile(r"(?:[01]{8}[\s,]*){4,}")
#: The number of a character, up to the digits that make it none; Python refuses to read numbers of thousands of digits.
_REFERENCE = re.compile(r"&#0*([0-9]{1,8})[0-9]*")
#: Fewest symbols in a line that are read as letters; two flags have four.
_FEWEST_SYMBOLS = 5
_SYMBOL = re.compile(f"[{''.join(LETTER_SYMBOLS)}]")
_SYMBOLS = {ord(symbol): letter for symbol, letter in LETTER_SYMBOLS.items()}
#: Tags, which are drawn as nothing and are ASCII to a model, and the flags that have some: of England, Scotland, Wales.
_TAG = re.compile("[\U000e0020-\U000e007e]")
_TAGGED_FLAG = re.compile("\U0001f3f4\U000e0067\U000e0062[\U000e0061-\U000e007a]{3}\U000e007f")
_TAGS = {0xE0000 + code: code for code in range(0x20, 0x7F)}


def plain(text: str) -> str:
    """``text`` without disguises; case and punctuation stay.

    It is in NFKC and has no invisible characters; look-alikes and digits inside words are letters again, and words
    that were spelled out letter by letter are joined.
    """
    if not text.isascii():
        kept = (c for c in unicodedata.normalize("NFKC", text) if is_separator(c) or fold(c) or c.isspace())
        text = re.sub(r"\w+", lambda match: _latin(match.group()), "".join(kept))
    text = _LEET_RUN.sub(lambda match: _unleet(match.group()), text)
    return _SPELLED.sub(lambda match: _join(match.group(), match.group(1)), text)


def hidden(text: str, depth: int = _DEPTH) -> Iterator[str]:
    """Texts that are encoded inside ``text``.

    Known are base64, hex, binary, percent, HTML and Unicode escapes, letters that are symbols or invisible tags, and
    what :mod:`classifiers.ciphers` reads. Whoever stops asking has no more of the text read.
    """
    if depth == 0:
        return
    known = {text}
    for found in _decoded(text):
        if found not in known:
            known.add(found)
            yield found
            yield from hidden(found, depth - 1)


def _decoded(text: str) -> Iterator[str]:
    for match in _BASE64.finditer(text):
        yield from _bytes(_from_base64, match.group())
    for match in _HEX.finditer(text):
        yield from _bytes(lambda run: bytes.fromhex(re.sub(r"0x|\\x|[\s:,]", "", run)), match.group())
    for match in _BINARY.finditer(text):
        yield from _bytes(lambda run: bytes(int(octet, 2) for octet in re.findall("[01]{8}", run)), match.group())
    if text.count("%") > 1:
        yield from (unquote(match.group()) for match in _PERCENT.finditer(text) if match.group().count("%") > 1)
    if "&" in text and ";" in text and (unescaped := html.unescape(_REFERENCE.sub(r"&#\1", text))) != text:
        yield unescaped
    if _ESCAPES.search(text):
        yield paired(_ESCAPES.sub(lambda match: chr(int(match.group()[2:], 16)), text))
    if not text.isascii():
        yield from _drawn(text)
    yield from deciphered(text)


def _drawn(text: str) -> Iterator[str]:
    """What ``text`` says in symbols, line by line, and in tags: these alone, and among the letters that are seen."""
    for line in text.splitlines():
        if len(_SYMBOL.findall(line)) >= _FEWEST_SYMBOLS:
            yield line.translate(_SYMBOLS)
    text = _TAGGED_FLAG.sub("", text)
    if tags := "".join(_TAG.findall(text)):
        yield tags.translate(_TAGS)
        yield text.translate(_TAGS)


def _bytes(decode: Callable[[str], bytes], run: str) -> Iterator[str]:
    try:
        decoded = decode(run).decode("utf-8")
    except (ValueError, binascii.Error):
        return
    readable = sum(char.isalpha() or char.isspace() for char in decoded)
    if len(decoded) >= 4 and all(c.isprintable() or c.isspace() for c in decoded) and readable >= 0.7 * len(decoded):
        yield decoded


def _from_base64(run: str) -> bytes:
    standard = run.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)


def _latin(word: str) -> str:
    """``word`` with look-alikes replaced, if it mixes alphabets or most of it is small capitals (unlike in IPA)."""
    if len(word) > 2 and 2 * sum(char in SMALL_CAPITALS for char in word) > len(word):
        return "".join(SMALL_CAPITALS.get(char, char) for char in word)
    if word.isascii() or not any(char.isascii() and char.isalpha() for char in word):
        return word
    return "".join(c if c.isascii() or "LATIN" in unicodedata.name(c, "") else _cased(c) for c in word)


def _cased(char: str) -> str:
    folded = fold(char)
    return folded.upper() if char.isupper() else folded


def _unleet(run: str) -> str:
    """``run`` with digits read as letters where letters stand on both sides: "St3phen", but not "1947" or "M60"."""
    sign = _LEET_SIGN.search(run)
    if sign is None:
        return run
    start = run.rfind("_", 0, sign.start()) + 1
    word = run[start:]
    inner = re.search(r"[^\W\d_][0-9@$!|]+[^\W\d_]", word) or re.fullmatch(r"[@$][^\W\d_]{3,}", word)
    return run[:start] + word.translate(_LEET) if inner else run


def _join(run: str, separator: str) -> str:
    """A spelled-out run without its separators; a different or longer gap was a space between words."""
    gap = re.escape(separator)
    words = re.split(rf"(?:(?!{gap}(?!{re.escape(separator[-1])})){_GAP}){{1,6}}", run)
    return " ".join("".join(word.split(separator)) for word in words if word)
