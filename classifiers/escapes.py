"""JSON escapes in text that a model writes (tool arguments): what they stand for, and where one is not whole yet."""

from __future__ import annotations

import re

#: A line break, tab and the like, or one character given by its code (two codes for one beyond the basic plane).
ESCAPE = re.compile(r"\\(?:[nrtbf]|u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)")
#: The start of an escape that the text seen so far does not complete.
OPEN_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?\Z")


def unescape(escape: str) -> str:
    """The character that a match of :data:`ESCAPE` stands for; a space for white space of any kind."""
    if escape[1] != "u":
        return " "
    units = bytes.fromhex("".join(escape.split("\\u")))
    return units.decode("utf-16-be", errors="replace")[:1]


def unescaped(text: str) -> str:
    """``text`` with what its escapes stand for."""
    return ESCAPE.sub(lambda match: unescape(match.group()), text) if "\\" in text else text
