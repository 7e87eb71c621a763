"""What an operator's examples and documents say that a model must not: the answers in them, as phrases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from classifiers.profile import Profile
from classifiers.windows import sentences
from classifiers.words import Word, information, is_function_word, split_words

#: A completion of at most so many words is an answer as a whole.
_SHORT = 6
#: What a phrase must tell, in nats: about a name; "yes", "blue" and "June" tell less.
_TELLING = 9.0
#: Words that may stand inside a title without a capital.
_CONNECTORS = frozenset(["of", "the", "for", "a", "an", "de", "la", "du"])
_QUOTED = re.compile(r"[\"“][^\"“”\n]{2,80}[\"”]|(?<!\w)['‘][A-Z][^'‘’\n]{1,80}['’](?!\w)")
#: How many phrases are taken from all documents together.
_MOST = 2000


def example_answers(profile: Profile) -> tuple[str, ...]:
    """The answers of the forget examples: short completions whole, of longer ones the names, titles and numbers.

    What the prompt of an example says is no answer to it.
    """
    found: list[str] = []
    for prompt, completion in profile.forget_examples:
        if not completion:
            continue
        asked = {word.key for word in split_words(prompt)}
        words = split_words(completion)
        if len(words) <= _SHORT:
            found += _phrases(completion, [words], asked)
        else:
            for sentence in sentences(completion):
                found += _terms(sentence, asked)
    return tuple(dict.fromkeys(found))


def document_answers(profile: Profile) -> tuple[str, ...]:
    """The names, titles and numbers in the documents and the description, the first ones first."""
    own = {word.key for name in (profile.name, *profile.aliases) for word in split_words(name)}
    found: dict[str, None] = {}
    for text in (profile.description, *profile.documents):
        for sentence in sentences(text):
            found |= dict.fromkeys(_terms(sentence, own))
            if len(found) >= _MOST:
                return tuple(found)[:_MOST]
    return tuple(found)


def _terms(sentence: str, known: set[str]) -> Iterator[str]:
    words = split_words(sentence)
    quoted = ([w for w in words if m.start() < w.start < m.end()] for m in _QUOTED.finditer(sentence))
    return _phrases(sentence, [run for run in (*quoted, *_capitalised(words)) if run], known)


def _capitalised(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Titles and proper names: "Prize for Fiction", and in it what stands together without a connector."""
    title: list[Word] = []
    for word in [*words, None]:
        if word is not None and title and word.joined and (_is_part(word) or word.text in _CONNECTORS):
            title.append(word)
            continue
        while title and not _is_part(title[-1]):
            title.pop()
        while title and is_function_word(title[0].text):
            title.pop(0)
        # A capital at the head of a sentence makes no name.
        if len(title) > 1 or (title and not title[0].opens):
            yield title
        parts = [list(group) for is_part, group in groupby(title, _is_part) if is_part]
        yield from (part for part in parts if 1 < len(part) < len(title))
        title = [word] if word is not None and _is_part(word) else []


def _is_part(word: Word) -> bool:
    return word.capital or word.text.isdigit()


def _phrases(text: str, runs: Iterable[Sequence[Word]], known: set[str]) -> Iterator[str]:
    """The stretches of ``text`` that tell something which ``known`` words do not."""
    for run in runs:
        told = sum(information(w.text) for w in run if w.key not in known and not is_function_word(w.text))
        if told >= _TELLING:
            yield text[run[0].start : run[-1].start + len(run[-1].text)]
