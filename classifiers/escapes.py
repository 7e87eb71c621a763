"""JSON escapes in text that a model writes (tool arguments): what they stand for, and where one is not whole yet.

A character beyond the basic plane is two escapes, a pair of surrogates; one that comes alone stands for nothing.
"""

from __future__ import annotations

import re

#: A line break, tab and the like, or one character given by its code (two codes for one beyond the basic plane).
ESCAPE = re.compile(r"\\(?:[nrtbf]|u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)")
#: The start of an escape that the text seen so far does not complete.
OPEN_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?\Z")
#: Most characters of an escape that is not complete: a high surrogate and three digits of a low one.
_LONGEST_OPEN = 11


def unescape(escape: str) -> str:
    """The character that a match of :data:`ESCAPE` stands for; a space for white space of any kind."""
    if escape[1] != "u":
        return " "
    units = bytes.fromhex("".join(escape.split("\\u")))
    return units.decode("utf-16-be", errors="replace")[:1]


def unescaped(text: str) -> str:
    """``text`` with what its escapes stand for."""
    return ESCAPE.sub(lambda match: unescape(match.group()), text) if "\\" in text else text


def open_at(text: str, start: int = 0) -> int:
    """Where in ``text[start:]`` the escape begins that ``text`` ends in without completing it; its length if none.

    Looks at the end alone: whoever asks again and again about the same text does not read it again and again.
    """
    found = OPEN_ESCAPE.search(text, max(start, len(text) - _LONGEST_OPEN))
    return len(text) if found is None else found.start()


def paired(text: str) -> str:
    """``text`` with its surrogates as the characters that pairs of them stand for; ``"\ufffd"`` for each other one.

    Not every reader takes a lone surrogate: it is no character, and has no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
    return text
