"""What somebody wants forgotten who says it in plain words: "please forget everything about Jane Doe" (as in RePAIR).

Rules, and no language model: what is understood is shown to whoever asked; nothing is enforced until they confirm it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ASKS = re.compile(
    r"""\b(?: forget | unlearn | erase | delete | remove | wipe | purge
            | stop\ (?:mentioning | (?:talking|speaking|answering\ questions|telling\ \w+)\ about)
            | (?:do\ not|don['’]t|never)\ (?:\w+\ )?(?:mention | (?:talk|speak|know|say|tell|answer)\b)
        )\b""",
    re.VERBOSE | re.IGNORECASE,
)
#: What may stand between the asking and what it is about.
_LEAD = re.compile(
    r"""^[\s,:]*(?:
            (?: please | everything | anything | all | whatever | what | that | who | which | any | the | information
              | facts? | data | details | memor(?:y|ies) | you | we | i | knows? | learn(?:ed|t) | have | has | there
              | is | are | was | people | anyone | questions? | any\s?more )\b[\s,]*
          | (?:about | regarding | concerning | related\ to | relating\ to | on | of)\b[\s:]* )+""",
    re.VERBOSE | re.IGNORECASE,
)
#: What is not to be forgotten with it.
_BUT = re.compile(r"[,;.]?\s+\b(?:but|except(?:\ for)?|though|however)\b\s*(?P<kept>.*)$", re.IGNORECASE | re.DOTALL)
_ALIAS = re.compile(
    r"\(?\b(?:a\.?k\.?a\.?|also known as|also called|or simply)\s+(?P<alias>[^,;()]+)\)?", re.IGNORECASE
)
_QUOTED = re.compile(r"[\"“]([^\"“”]{2,200})[\"”]")
_END = re.compile(
    r"[.!?;](?:\s|$)|\s+(?:please|from now on|any\s?more|again|ever|at all|thanks?|thank you|is|was|are|were)\b.*$",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?:[A-Z][\w'’.&-]*)(?:\s+(?:(?:of|the|and|de|der|den|van|von|al|bin|da|di|la|le)\s+)*[A-Z0-9][\w'’.&-]*)*"
)


@dataclass(frozen=True, slots=True)
class Understood:
    """What was understood.

    Attributes:
        name: of what is to be forgotten.
        aliases: by which else it goes.
        scope: how it was described, beyond its name.
        kept: what is to be kept, in the words of the asker.
    """

    name: str
    aliases: tuple[str, ...] = ()
    scope: str = ""
    kept: str = ""


def understand(instruction: str) -> Understood | None:
    """What an instruction asks to forget; None where it asks nothing of the kind."""
    asked = _ASKS.search(instruction)
    if asked is None:
        return None
    rest = instruction[asked.end() :]
    kept = ""
    if (but := _BUT.search(rest)) is not None:
        rest, kept = rest[: but.start()], but["kept"].strip(" .!")
    aliases = tuple(found["alias"].strip(" \"“”'") for found in _ALIAS.finditer(rest))
    rest = _ALIAS.sub("", rest)
    quoted = _QUOTED.search(rest)
    about = _LEAD.sub("", rest, count=1)
    end = _END.search(about)
    about = (about[: end.start()] if end is not None else about).strip(' \t\n.,!?"“”()')
    names = [] if quoted else _NAME.findall(about)
    name = quoted.group(1).strip() if quoted else max(names, key=len, default=about)
    if not re.search(r"\w", name):
        return None
    scope = "" if about == name else " ".join(about.split())
    return Understood(name[:200], aliases, scope, kept)
