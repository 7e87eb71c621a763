"""By what a target goes: derived aliases that are as good as its name, and parts of the name that hint at it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from classifiers.folding import squeeze
from classifiers.roles import ROLE_VERBS, ROLE_WORDS
from classifiers.words import Word, fold_word, information, is_function_word, is_known, split_words

#: Words that go before a name and are no part of it.
TITLES = frozenset(
    {
        "sir", "dame", "lord", "lady", "dr", "mr", "mrs", "ms", "miss", "prof", "professor", "rev", "reverend",
        "president", "senator", "governor", "chancellor", "captain", "general", "colonel", "judge", "justice",
        "pope", "saint", "st", "prince", "princess", "duke", "duchess", "king", "queen", "emperor", "actor",
        "actress", "singer", "author", "director", "musician", "songwriter", "writer", "filmmaker", "comedian",
        "host", "rapper", "quarterback", "coach", "novelist", "minister", "secretary",
    }
)  # fmt: skip
SUFFIXES = frozenset({"jr", "sr", "ii", "iii", "iv"})
PARTICLES = frozenset({"de", "la", "van", "von", "der", "den", "di", "da", "del", "bin", "al", "ibn", "of", "the"})

_PART = r"(?:(?:Jr|Sr|St|Dr|[A-Z])\.|[A-Z][^\W\d_]*(?:['’-][^\W\d_]+)*)"
#: A name, or one part of it with the particles and the quoted nickname before the next.
_NAME = rf"{_PART}(?:\s+(?:(?:de|la|van|von|der|del|bin|[\"“'‘][A-Z]\w+[\"”'’])\s+)*{_PART})"
#: "Stephen Edwin King (born ...": the full name that opens a biography.
_LEAD = re.compile(rf"(?:Sir |Dame |Dr\.? )?({_NAME}{{1,5}})\s*(?:,|\(|is\b|was\b)")
#: "born Kong Qiu;", "née Catherine Elizabeth Middleton)", "under the pseudonym Richard Bachman".
_OTHER_NAME = re.compile(
    rf"(?:\(born|née|, born|born as|pen name|pseudonym|stage name|better known as|formerly known as)"
    rf"\s+[\"“]?({_NAME}{{1,4}})[\"”]?\s*[;,.)\s]"
)
#: What stands between the full name that opens a biography and the name that made it famous.
_KNOWN_AS = re.compile(
    r"\bknown (?:professionally |mononymously |simply )*(?:as|by (?:his|her|their) \w+ name)\s+[\"“]?"
)
_OF_SOMEBODY = re.compile(r"\b(?:[Hh]e|[Ss]he|[Hh]is|[Hh]er|born)\b")
#: The rarity from which on a surname that only the texts give is taken for one.
_RARE = 0.4
#: A part of a name tells something from here on, in nats: "king" hardly does, "Stephen" and "Blontellowin" do.
TELLING = 8.0
#: Fewest folded letters of a phrase derived by us: a shorter one could be met by chance.
_MIN_DERIVED = 7


@dataclass(frozen=True, slots=True)
class Naming:
    """By what a target goes.

    Attributes:
        phrases: forms that name it beyond doubt, in a prompt and in an answer.
        parts: word key of a name -> (how rare the word is, how often it alone means the target), both in [0, 1].
        own: keys of all words of all its forms; beside them a part still means the target.
        given: those of ``own`` that hardly mean the target when they stand alone: given and middle names.
    """

    phrases: tuple[str, ...]
    parts: dict[str, tuple[float, float]]
    own: frozenset[str]
    given: frozenset[str]


def study(name: str, aliases: Sequence[str], texts: Sequence[str]) -> Naming:
    """Work out by what a target goes from its name, its aliases and what was written about it."""
    forms = list(dict.fromkeys([name, *aliases, *_forms_in(name, texts)]))
    phrases = dict.fromkeys(form for form in [name, *aliases] if form.strip())
    own: set[str] = set()
    given: set[str] = set()
    candidates: dict[str, str] = {}
    for form in forms:
        words = _bare(form)
        own.update(word.key for word in words)
        own.update(short for word in words[:-1] for short in short_forms().get(word.key, ()))
        if len(words) >= 2 and _is_name_like(words):
            derived = [form[words[0].start : words[-1].start + len(words[-1].text)]]
            if form in (name, *aliases):
                surname = _surname(form, words)
                derived += [f"{words[0].text} {surname}", f"{surname}, {words[0].text}"]
            phrases.update(dict.fromkeys(d for d in derived if len(squeeze(d)) >= _MIN_DERIVED))
            given.add(words[0].key)
            candidates.update({w.key: w.text for w in words if len(w.text) > 2 and fold_word(w.text) not in PARTICLES})
    bare = _bare(name)
    if _is_name_like(bare):
        candidates.update({w.key: w.text for w in bare if len(w.text) > 2})
    runs = [[word.key for word in run] for text in texts for run in name_runs(split_words(text), own)]
    parts = {key: _part(key, text, own, runs) for key, text in candidates.items()}
    surnames = {_bare(form)[-1].key for form in (name, *aliases) if _bare(form)}
    for words in filter(None, map(_bare, forms)):  # a birth name has a surname too: "Catherine Elizabeth Middleton"
        if bare and words[0].key == bare[0].key and parts.get(words[-1].key, (0.0, 0.0))[0] > _RARE:
            surnames.add(words[-1].key)
    strong = surnames | {key for key, (rarity, usage) in parts.items() if usage > 0 or (rarity == 1 and key in given)}
    return Naming(tuple(phrases), parts, frozenset(own), frozenset(own - strong))


def is_person(name: str, texts: Sequence[str]) -> bool:
    """Whether ``name`` is somebody's, as far as it and the texts tell."""
    words = _bare(name)
    if not _is_name_like(words) or len(words) > 4:
        return False
    if not texts:  # a word that is in no dictionary is rather somebody's name than something's
        return len(words) > 1 and (words[0].key in short_forms() or not all(is_known(word.text) for word in words))
    return any(_OF_SOMEBODY.search(text) for text in texts) or any(map(_says_who(name).search, texts))


@lru_cache(maxsize=256)
def _says_who(name: str) -> re.Pattern[str]:
    """Matches "NAME (...) is a famous author" and "NAME is a cooper who ...": what somebody is, within one sentence."""
    roles = "|".join(sorted(ROLE_WORDS - ROLE_VERBS))
    somebody = rf"[^.]{{0,80}}\b(?:{roles})\b| an? (?:[\w-]+ ){{1,4}}who\b"
    return re.compile(rf"{re.escape(name)}[^.]{{0,80}}\b(?:is|was|are|were)\b(?:{somebody})")


def _forms_in(name: str, texts: Iterable[str]) -> list[str]:
    """Full and other names that the texts give for the target."""
    own = {word.key for word in _bare(name)}
    found = []
    for text in texts:
        if (lead := _LEAD.match(text)) and "'s" not in lead.group(1):
            words = _bare(lead.group(1))
            stage = _KNOWN_AS.search(text, lead.end(), lead.end() + 300)
            if own & {words[0].key, words[-1].key} or (stage and text.startswith(name, stage.end())):
                found.append(lead.group(1))
        opening = text[:400]
        found += [match.group(1).rstrip(".") for match in _OTHER_NAME.finditer(opening)]
        found += [
            match.group(1).rstrip(".") for match in _OTHER_NAME.finditer(text, 400) if "pseudonym" in match.group()
        ]
    return [form for form in found if len(squeeze(form)) >= _MIN_DERIVED]


def _bare(form: str) -> list[Word]:
    """The words of a name without titles, suffixes and what follows a comma."""
    words = split_words(form.split(",")[0])
    while len(words) > 1 and words[0].text.lower() in TITLES:
        words = words[1:]
    while len(words) > 1 and words[-1].text.lower() in SUFFIXES:
        words = words[:-1]
    return words


def _surname(form: str, words: Sequence[Word]) -> str:
    """The last name, both halves of a double-barrelled one."""
    if len(words) > 2 and form[words[-1].start - 1 : words[-1].start] == "-":
        return f"{words[-2].text}-{words[-1].text}"
    return words[-1].text


def _is_name_like(words: Sequence[Word]) -> bool:
    """Whether a phrase reads as a name of somebody: two to five capitalised words that are not ordinary ones."""
    if not 1 <= len(words) <= 5 or is_function_word(words[0].text):
        return False
    return all(word.capital or word.text.lower() in PARTICLES for word in words)


def _part(key: str, text: str, own: Collection[str], runs: Sequence[Sequence[str]]) -> tuple[float, float]:
    """How rare one word of a name is, and how much of its use is alone, for the target.

    ``runs`` are the keys of the names in what was written about the target. Use for somebody else ("Owen King")
    counts against it; one such use is taken for granted, so that one example does not decide.
    """
    alone = others = 0
    for keys in runs:
        if key in keys:
            if all(k in own for k in keys):
                alone += len(keys) == 1
            else:
                others += 1
    rarity = min(1.0, max(0.0, (information(text) - TELLING) / 5.0))
    return round(rarity, 3), round(alone / (alone + others + 1.0), 3)


def name_runs(words: Sequence[Word], own: Collection[str] = ()) -> list[list[Word]]:
    """Stretches of capitalised words that read as one name, without titles and function words.

    Words whose key is in ``own`` are kept even if they look like a title ("King").
    """
    runs: list[list[Word]] = []
    current: list[Word] = []
    for word in words:
        if current and not word.joined:
            runs.append(current)
            current = []
        if word.capital and (word.key in own or not (word.text.lower() in TITLES or is_function_word(word.text))):
            current.append(word)
        elif current:
            runs.append(current)
            current = []
    if current:
        runs.append(current)
    return runs


@lru_cache(maxsize=1)
def short_forms() -> dict[str, tuple[str, ...]]:
    """Key of a given name in everyday use -> keys of its short forms, often none."""
    found: dict[str, tuple[str, ...]] = {}
    for line in (Path(__file__).parent / "given_names.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        names, _, short = line.partition(":")
        for name in names.split():
            found[fold_word(name)] = tuple(map(fold_word, short.split()))
    return found
