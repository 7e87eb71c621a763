"""What the texts about a target say that could give it away without its name: titles, places, dates, roles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from classifiers.naming import Naming
from classifiers.roles import PRONOUNS, roles_of
from classifiers.windows import sentences
from classifiers.words import LONGEST_TERM, Word, information, is_function_word, split_words

#: Words that may stand inside a title without a capital: "The Silence of the Lambs".
_CONNECTORS = frozenset(
    ["of", "the", "and", "in", "for", "a", "an", "to", "with", "on", "at", "by", "from", "is", "my", "de", "la", "du"]
)
_QUOTED = re.compile(r"[\"“]([^\"“”\n]{2,60})[\"”]|(?<!\w)['‘]([A-Z][^'‘’\n]{1,60})['’](?!\w)")
#: How much text about a target is read for words and titles, in characters, and how many sentences become evidence.
MAX_TEXT, MAX_EVIDENCE = 300_000, 256
#: Where in a text it is said what somebody is: within its first two sentences and so many characters.
_OPENING = 2_000
#: The most that one title can tell, in nats; rarer ones are all certain.
_MAX_INFORMATION = 30.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What gives a target away without its name.

    Attributes:
        evidence: sentences about it, with "this person" where its name stood.
        terms: space-joined word keys of titles, names and numbers -> what meeting them tells, in nats.
        words: key of every content word -> the same.
        roles: role words that may stand for it.
    """

    evidence: tuple[str, ...]
    terms: dict[str, float]
    words: dict[str, float]
    roles: frozenset[str]


def extract(naming: Naming, texts: Sequence[str]) -> Facts:
    """Gather the facts in ``texts``, of which the first ``MAX_TEXT`` characters are read for words and titles.

    At most ``MAX_EVIDENCE`` sentences become evidence, taken at even distances.
    """
    terms: dict[str, float] = {}
    content: dict[str, float] = {}
    for text in within(texts, MAX_TEXT):
        for sentence in sentences(text):
            words = split_words(sentence)
            for term in _terms(sentence, words, naming.own):
                terms[" ".join(word.key for word in term)] = min(_MAX_INFORMATION, sum(_told(word) for word in term))
            content.update({w.key: _told(w) for w in _content(words, naming.own)})
    found = [sentence for text in texts for sentence in sentences(text)]
    step = max(1, math.ceil(len(found) / MAX_EVIDENCE))
    evidence = []
    for sentence in found[::step]:
        words = split_words(sentence)
        if _says_something(words, naming.own):
            evidence.append(without_name(sentence, words, naming.own))
    opening = " ".join(sentence for text in texts for sentence in sentences(text[:_OPENING])[:2])
    return Facts(tuple(dict.fromkeys(evidence)), terms, content, roles_of(opening))


def within(texts: Iterable[str], budget: int) -> Iterator[str]:
    """The first ``budget`` characters of ``texts``, taken together."""
    for text in texts:
        yield text[:budget]
        budget -= len(text[:budget])


def _says_something(words: Sequence[Word], own: frozenset[str]) -> bool:
    """Whether a sentence may be evidence: one word alone only where it is said of somebody ("She is a beekeeper."), so
    that headings ("Awards") and greetings are none.
    """
    content = [word for word in _content(words, own) if word.text != "_"]
    somebody = (word.key in own or word.text.lower() in PRONOUNS for word in words)
    return len(content) > 1 or (bool(content) and len(words) > 2 and any(somebody))


def _content(words: Iterable[Word], own: frozenset[str]) -> list[Word]:
    return [word for word in words if word.key not in own and not is_function_word(word.text)]


def without_name(sentence: str, words: Sequence[Word], own: frozenset[str]) -> str:
    """``sentence`` with "this person" for the target, as somebody would write who avoids the name."""
    pieces, end, index = [], 0, 0
    while index < len(words):
        last = index
        if words[index].capital and words[index].key in own:
            while last + 1 < len(words) and words[last + 1].joined and words[last + 1].key in own:
                last += 1
            pieces.append(sentence[end : words[index].start])
            pieces.append("This person" if index == 0 else "this person")
            end = words[last].start + len(words[last].text)
        index = last + 1
    return "".join([*pieces, sentence[end:]])


def _terms(sentence: str, words: Sequence[Word], own: frozenset[str]) -> list[Sequence[Word]]:
    """Stretches of words that read as a title or a proper name, quoted stretches, and numbers."""
    found: list[Sequence[Word]] = []
    for quoted in _QUOTED.finditer(sentence):
        start, end = quoted.span(1) if quoted.group(1) else quoted.span(2)
        found.append([word for word in words if start <= word.start < end])
    index = 0
    while index < len(words):
        last = index
        if words[index].capital:
            probe = index + 1
            while probe < len(words) and words[probe].joined:
                if words[probe].capital or words[probe].text.isdigit():
                    last = probe
                elif words[probe].text not in _CONNECTORS:
                    break
                probe += 1
            found.append(words[index : last + 1])
        elif words[index].text.isdigit() and len(words[index].text) > 1:
            found.append([words[index]])
        index = last + 1
    pieces = [piece for run in found for piece in _split_at_and(run)]
    trimmed = [_without_opening(run) for run in [*found, *pieces]]
    return [run for run in trimmed if 0 < len(run) <= LONGEST_TERM and not all(w.key in own for w in run)]


def _split_at_and(run: Sequence[Word]) -> list[Sequence[Word]]:
    """The parts of "The Shining and Misery"; nothing if there is no "and"."""
    breaks = [index for index, word in enumerate(run) if word.text == "and"]
    if not breaks:
        return []
    return [run[start:end] for start, end in zip([0, *(i + 1 for i in breaks)], [*breaks, len(run)], strict=True)]


def _without_opening(run: Sequence[Word]) -> Sequence[Word]:
    """Drop articles and the words that merely open a sentence; what is left must hold a content word."""
    while run and is_function_word(run[0].text):
        run = run[1:]
    return run


def _told(word: Word) -> float:
    """What meeting ``word`` tells, in nats; function words tell nothing."""
    return 0.0 if is_function_word(word.text) else round(information(word.text), 2)
