"""What the head looks at when it judges whether a stretch of text speaks of a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from classifiers.compiled import Compiled
from classifiers.naming import PARTICLES, SUFFIXES, TITLES, name_runs, short_forms
from classifiers.roles import PEOPLE, PRONOUNS, Description, descriptions
from classifiers.words import LONGEST_TERM, Word, fold_word, information, is_function_word, is_known

FEATURES = (
    "alone", "rarity", "usage", "given", "blank", "foreign", "uncased", "uncased_usage",
    "terms", "title", "numbers", "described", "described_title", "asked",
    "cosine", "margin", "coverage", "matched", "sentence_coverage", "unexplained",
    "alone_cosine", "alone_coverage", "pronoun", "who", "length", "verbatim", "verbatim_share",
)  # fmt: skip

_DIGITS = frozenset("2689")
_DETERMINERS = frozenset({"the", "a", "an"})
#: Words are compared by their first letters, so that "founder" is found in "founded".
_STEM = 6
#: What a name must tell to be somebody's, in nats.
_SOMEBODY = 12.0
_WHO = frozenset(["who", "whom", "whose", "quién", "qui", "wer", "chi", "quem"])


@dataclass(frozen=True, slots=True)
class Reading:
    """A stretch of text as the lexicon sees it, computed once for all targets."""

    words: tuple[Word, ...]
    keys: frozenset[str]
    grams: frozenset[str]
    cased: bool
    content: dict[str, float]
    descriptions: tuple[Description, ...]
    pronoun: bool
    who: bool
    names: frozenset[str]
    capitals: tuple[tuple[str, float], ...]  # words with a capital that no place demands, and what each tells
    triples: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, words: Sequence[Word]) -> Reading:
        """Read ``words``."""
        keys = [word.key for word in words]
        lower = [word.text.lower() for word in words]
        return cls(
            words=tuple(words),
            keys=frozenset(keys),
            grams=frozenset(_grams(keys, LONGEST_TERM)),
            cased=any(w.capital and not w.opens for w in words) and not all(w.text.isupper() for w in words),
            content={w.key: information(w.text) for w in words if not is_function_word(w.text) and w.text != "_"},
            descriptions=tuple(descriptions([word.text for word in words])),
            pronoun=any(word in PRONOUNS for word in lower[:4]),
            who=not _WHO.isdisjoint(lower),
            names=names_in(words),
            capitals=tuple(
                (word.key, min(12.0, information(word.text)))
                for word in words
                if word.capital and not word.opens and not is_function_word(word.text)
            ),
            triples=_triples(keys),
        )


def _grams(keys: Sequence[str], longest: int) -> set[str]:
    return {" ".join(keys[i : i + n]) for n in range(1, longest + 1) for i in range(len(keys) - n + 1)}


def mentions(reading: Reading, target: Compiled) -> tuple[bool, dict[str, float]]:
    """Whether the text names ``target`` in full, and how strongly it uses parts of its name."""
    found = dict.fromkeys(("alone", "rarity", "usage", "given", "blank", "foreign", "uncased", "uncased_usage"), 0.0)
    present = reading.keys & target.parts.keys()
    if not present:
        return False, found
    if not reading.cased:
        found["uncased"] = max(target.parts[key][0] for key in present)
        found["uncased_usage"] = max(target.parts[key][1] for key in present)
    named = False
    position = {word.start: index for index, word in enumerate(reading.words)}
    for run in name_runs(reading.words, target.own):
        own = {word.key for word in run} & target.own
        if not own & target.parts.keys():
            continue
        rarity = max(target.parts.get(key, (0.0, 0.0))[0] for key in own)
        usage = max(target.parts.get(key, (0.0, 0.0))[1] for key in own)
        first = position[run[0].start]
        before = reading.words[first - 1] if first else None
        strangers = [
            word
            for word in run
            if word.key not in target.own
            and len(word.text) > 1
            and word.text.lower() not in SUFFIXES
            and not (word.opens and word is run[0] and len(run) > 2)
        ]
        if strangers and (_shares_surname(run, before, reading.words, first, target) or _frames(run, target)):
            named = True
        elif strangers:
            found["foreign"] = max(found["foreign"], rarity + usage)
        elif len(own) >= 2 and own - target.given:
            named = True
        elif before is not None and before.text == "_" and run[0].joined:
            found["blank"] = max(found["blank"], rarity + usage)
        elif own <= target.given:
            found["given"] = max(found["given"], rarity)
        else:
            after = reading.words[position[run[-1].start] + 1 :][:1]
            found["alone"] = max(found["alone"], _trust(run[0], rarity, usage, before, after))
            found["rarity"] = max(found["rarity"], rarity)
            found["usage"] = max(found["usage"], usage)
    return _uncapitalised(reading, target, found) or named, found


def _uncapitalised(reading: Reading, target: Compiled, found: dict[str, float]) -> bool:
    """What :func:`mentions` says of surnames that stand without a capital; goes on with what it ``found``."""
    named = False
    for index, word in enumerate(reading.words):
        if word.capital or word.key in target.given or target.parts.get(word.key, (0.0, 0.0))[0] < 1.0:
            continue  # a word of some dictionary means nobody without its capital
        if word.key == fold_word(target.phrases[0].split()[0]):
            continue  # a given name, which others bear
        beside = _names_before(reading.words, index, target)
        after = reading.words[index + 1 : index + 2]
        goes_on = any(one.joined and not is_known(one.text) and one.key not in target.own for one in after)
        names = target.parts.keys() - {word.key}
        if any(one.key in names and one.text.lower() not in PARTICLES for one in beside):
            named = True
        elif not (beside or goes_on):  # neither "anna vesperton" nor "vesperton quenneltrop"
            found["alone"] = found["rarity"] = 1.0
            found["usage"] = max(found["usage"], target.parts[word.key][1])
    return named


def _frames(run: Sequence[Word], target: Compiled) -> bool:
    """Whether ``run`` is a person's name with one or two more names within it: "Orla Marie Vesperton".

    Of names in common use it may be somebody else's: "John Quincy Adams" is no John Adams.
    """
    if run[0].opens and run[0].key not in target.own:  # "Introduce Orla Marie Vesperton."
        run = run[1:]
    if not (target.person and 3 <= len(run) <= 4):
        return False
    first, last = run[0], run[-1]
    return (
        first.key in target.parts
        and last.key in target.parts.keys() - target.given
        and first.key != last.key
        and max(target.parts[first.key][0], target.parts[last.key][0]) >= 1.0
    )


def _names_before(words: Sequence[Word], index: int, target: Compiled) -> Sequence[Word]:
    """At most three words before that of ``index`` that may be names of the same person, though without capitals: given
    names in use, the target's, and words of no dictionary.
    """
    first = index
    while first > max(0, index - 3) and words[first].joined:
        before = words[first - 1]
        if before.text == "_" or (
            is_known(before.text) and before.key not in short_forms() and before.key not in target.own
        ):
            break
        first -= 1
    return words[first:index]


def _shares_surname(
    run: Sequence[Word], before: Word | None, words: Sequence[Word], first: int, target: Compiled
) -> bool:
    """Whether ``run`` is the end of "Jill and Joe Biden", which names Jill Biden as well."""
    if before is None or not (before.text.lower() == "and" or run[0].amp):
        return False
    mate = words[first - 1 if run[0].amp else first - 2] if first >= 2 else before
    return mate.key in target.parts and mate.key in target.given and run[-1].key in target.own - target.given


def _trust(word: Word, rarity: float, usage: float, before: Word | None, after: Sequence[Word]) -> float:
    """How far a name part that stands alone can be trusted to mean the target, from its form and place alone."""
    trust = 1.0
    if word.key in short_forms() or word.text.lower() in TITLES:
        trust *= 0.3
    else:
        trust *= min(1.0, 0.55 + 0.6 * rarity)
        if rarity < 0.35 and (word.opens or (before is not None and before.text.lower() in _DETERMINERS)):
            trust *= 0.5
    if word.amp or (after and after[0].amp):
        trust *= 0.4
    if usage == 0:
        trust *= 0.4 + 0.6 * rarity
    return trust


def measure(
    reading: Reading, target: Compiled, part: Mapping[str, float], cosine: float, sentence: Sequence[str]
) -> np.ndarray:
    """The feature vector, float64 ``(len(FEATURES),)``; see :data:`FEATURES`.

    Args:
        reading: the text.
        target: the target.
        part: what :func:`mentions` found.
        cosine: the text's best similarity to the target's evidence, less what it has more to counter-evidence.
        sentence: word keys of the evidence sentence that is most similar to the text.
    """
    terms = {term: told for term, told in target.terms.items() if term in reading.grams}
    titles = {term: told for term, told in terms.items() if not _is_number(term)}
    content = {key: told for key, told in reading.content.items() if key not in target.own}
    total = sum(content.values()) or 1.0
    matched = sum(told for key, told in content.items() if key in target.words)
    verbatim, triples = _shared_triples(reading, sentence, titles)
    described, asked, described_title = _descriptions(reading, target, titles)
    values = {
        **part,
        "terms": min(60.0, sum(terms.values())) / 20,
        "title": max(titles.values(), default=0.0) / 10,
        "numbers": min(2, len(terms) - len(titles)),
        "described": described,
        "described_title": described_title / 10,
        "asked": asked,
        "cosine": cosine,
        "margin": cosine - target.baseline,
        "coverage": matched / total,
        "matched": min(60.0, matched) / 20,
        "sentence_coverage": sum(content.get(key, 0.0) for key in set(sentence)) / total,
        "unexplained": min(36.0, _unexplained(reading, target)) / 12,
        "alone_cosine": part["alone"] * cosine,
        "alone_coverage": part["alone"] * matched / total,
        "pronoun": reading.pronoun,
        "who": reading.who,
        "length": min(40, len(reading.words)) / 20,
        "verbatim": min(10, verbatim),
        "verbatim_share": verbatim / max(1, triples),
    }
    return np.array([values[name] for name in FEATURES], np.float64)


def _shared_triples(reading: Reading, sentence: Sequence[str], titles: Mapping[str, float]) -> tuple[int, int]:
    """How many runs of three words the text shares with ``sentence``, of how many; runs inside a title do not count."""
    in_titles = {key for term in titles for key in term.split()}
    triples = frozenset(run for run in reading.triples if not in_titles.issuperset(run)) if titles else reading.triples
    return len(triples & _triples(sentence)), len(triples)


def _triples(keys: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(keys[i : i + 3]) for i in range(len(keys) - 2))


def names_in(words: Iterable[Word]) -> frozenset[str]:
    """Keys of the words that are names, as far as it can be told from their form."""
    return frozenset(
        word.key
        for word in words
        if word.capital and not is_function_word(word.text) and not (word.opens and is_known(word.text))
    )


def of_others(reading: Reading, target: Compiled, sentence: Sequence[str], names: frozenset[str]) -> bool:
    """Whether a text may be like a sentence and is not about the same, since it is about somebody else by name.

    It has other names where the sentence has its own, or has the same with no other word of it, or with one and in
    another role: whom the sentence names beside the target ("The mentor of this person was Ada Rook") may be asked
    about ("Who was the mentor of Ada Rook?"). A title ("The Hidden Tower") is no such name.

    Args:
        reading: the text.
        target: the target, which the text does not name.
        sentence: word keys of a sentence about it.
        names: those of them that are names.
    """
    if not reading.names.isdisjoint(target.own):
        return False
    if reading.names.isdisjoint(names):
        return min(_told(names), _told(reading.names - target.words.keys())) >= _SOMEBODY
    said = {key[:_STEM] for key in reading.content.keys() - reading.names}
    somebody = (key for key in reading.names & names if not is_known(key))
    if _told(somebody) < _SOMEBODY:
        return False
    roles = _before(reading.names & names, [word.key for word in reading.words]) & _before(names, sentence)
    return len(said & {key[:_STEM] for key in sentence}) <= (0 if roles else 1)


def _before(names: frozenset[str], keys: Sequence[str]) -> set[str]:
    """The words right before ``names``: "by" in "founded by Ada Rook"."""
    return {before for before, name in pairwise(keys) if name in names and before not in names}


def _told(keys: Iterable[str]) -> float:
    return sum(min(12.0, information(key)) for key in keys)


def _unexplained(reading: Reading, target: Compiled) -> float:
    """What the text tells, in nats, by names of which nothing is known to have to do with the target."""
    return sum(told for key, told in reading.capitals if key not in target.words and key not in target.own)


def _descriptions(reading: Reading, target: Compiled, titles: Mapping[str, float]) -> tuple[bool, bool, float]:
    """Whether a role of the target is described, whether one is asked for, and the best title beside a description."""
    if not reading.descriptions:
        return False, False, 0.0
    in_titles = {key for term in titles for key in term.split()}
    outside = [found for found in reading.descriptions if reading.words[found.position].key not in in_titles]
    fitting = [found for found in outside if found.role in target.roles]
    best = 0.0
    for found in outside:
        if not found.asked and (found.role in target.roles or (target.person and found.role in PEOPLE)):
            near = [word.key for word in reading.words[max(0, found.position - 8) : found.position + 12]]
            grams = _grams(near, LONGEST_TERM)
            best = max([best, *(told for term, told in titles.items() if term in grams)])
    return any(not found.asked for found in fitting), any(found.asked for found in fitting), best


def _is_number(term: str) -> bool:
    """Whether a folded term was a year or another number; folding leaves 2, 6, 8 and 9 as they are."""
    return len(term) <= 4 and not _DIGITS.isdisjoint(term)
