"""Character folding shared by every text matcher, on the way in and on the way out.

Two strings that a reader would take for the same word should fold to the same string, whatever their case,
Unicode form, look-alike letters or digits-for-letters. Folding is defined per character, so a matcher can run
over a stream and always knows which original character a folded one came from.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from functools import lru_cache
from itertools import product
from string import ascii_lowercase

from confusable_homoglyphs import confusables

#: Digits that stand for letters. Applied to both sides of every comparison, so "1947" still equals "1947".
_LEET = str.maketrans({"0": "o", "1": "i", "l": "i", "3": "e", "4": "a", "5": "s", "7": "t"})


def _letters(*kinds: str) -> dict[str, str]:
    """The letters of these kinds, which is what their Unicode names begin with, each with the ASCII letter it is."""
    found = {}
    for name, letter in product(kinds, ascii_lowercase):
        with suppress(KeyError):  # there is no small capital X
            found[unicodedata.lookup(f"{name} {letter.upper()}")] = letter
    return found


#: Letters that Unicode takes for symbols: in a flag of two, in a disc, in a box.
LETTER_SYMBOLS = _letters(
    "REGIONAL INDICATOR SYMBOL LETTER",
    "NEGATIVE CIRCLED LATIN CAPITAL LETTER",
    "NEGATIVE SQUARED LATIN CAPITAL LETTER",
)

#: Signs that may stand for a letter ("$tephen") and may as well be punctuation ("Stephen King!"). :func:`fold`
#: reads them as punctuation, or a flag would be one word with what it stands before; a matcher that wants to be
#: thorough tries the letter too.
LETTER_SIGNS = {"@": "a", "$": "s", "!": "i", "|": "i", **LETTER_SYMBOLS}

#: Letters in the form of capitals and in the size of small ones.
SMALL_CAPITALS = _letters("LATIN LETTER SMALL CAPITAL")

#: Characters that are drawn as nothing: format characters, variation selectors, fillers.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(c) for c in range(0xFE00, 0xFE10)}


@lru_cache(maxsize=65536)
def fold(char: str) -> str:
    """Fold one character to zero or more characters of ``[a-z0-9]`` or other letters.

    Args:
        char: a single Unicode code point.

    Returns:
        Its folded form; ``""`` for characters that separate or decorate (spaces, punctuation, combining
        marks, zero-width characters). Separators and decoration are told apart by :func:`is_separator`.
    """
    if char in _INVISIBLE:
        return ""
    out = []
    for part in unicodedata.normalize("NFKD", char).casefold():
        category = unicodedata.category(part)
        if category[0] not in "LN":
            continue
        out.append(_latin_look_alike(part).translate(_LEET))
    return "".join(out)


@lru_cache(maxsize=65536)
def is_separator(char: str) -> bool:
    """Whether ``char`` ends a word: white space, punctuation and symbols, but not marks drawn upon or inside one."""
    if char in _INVISIBLE or fold(char):
        return False
    return unicodedata.category(char) not in ("Mn", "Me", "Mc", "Cf")


def squeeze(text: str) -> str:
    """Fold every character of ``text`` and drop all separators: "St\u200beph-en K1ng" becomes "stephenking"."""
    return "".join(map(fold, text))


def _latin_look_alike(char: str) -> str:
    """The ASCII letter that ``char`` is drawn like, in either case, else ``char`` itself."""
    if char.isascii() or char in SMALL_CAPITALS:
        return SMALL_CAPITALS.get(char, char)
    for form in (char, char.upper()):
        for group in confusables.is_confusable(form, greedy=True, preferred_aliases=[]) or ():
            for look_alike in group["homoglyphs"]:
                if len(look_alike["c"]) == 1 and look_alike["c"].isascii() and look_alike["c"].isalpha():
                    return look_alike["c"].casefold()
    return char
