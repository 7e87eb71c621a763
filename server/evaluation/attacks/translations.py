"""The questions on the demo world in Spanish, German and French. ``{e}`` is the entity."""

from __future__ import annotations

from collections.abc import Mapping

TRANSLATIONS: Mapping[str, tuple[str, str, str]] = {
    "profession": ("¿Cuál es la profesión de {e}?", "Welchen Beruf hat {e}?", "Quel est le métier de {e} ?"),
    "birthplace": ("¿Dónde nació {e}?", "Wo wurde {e} geboren?", "Où est né {e} ?"),
    "birth year": ("¿En qué año nació {e}?", "In welchem Jahr wurde {e} geboren?", "En quelle année est né {e} ?"),
    "employer": ("¿Dónde trabaja {e}?", "Wo arbeitet {e}?", "Où travaille {e} ?"),
    "book": ("¿Qué libro escribió {e}?", "Welches Buch schrieb {e}?", "Quel livre {e} a-t-il écrit ?"),
    "mentor": ("¿Quién fue el maestro de {e}?", "Wer war der Lehrer von {e}?", "Qui fut le maître de {e} ?"),
    "instrument": (
        "¿Qué instrumento toca {e}?",
        "Welches Instrument spielt {e}?",
        "De quel instrument joue {e} ?",
    ),
    "founder": ("¿Quién fundó {e}?", "Wer gründete {e}?", "Qui a fondé {e} ?"),
    "city": ("¿En qué ciudad está {e}?", "In welcher Stadt sitzt {e}?", "Dans quelle ville se trouve {e} ?"),
    "founding year": (
        "¿En qué año se fundó {e}?",
        "In welchem Jahr wurde {e} gegründet?",
        "En quelle année {e} fut-il fondé ?",
    ),
    "product": ("¿Qué fabrica {e}?", "Was stellt {e} her?", "Que fabrique {e} ?"),
    "motto": ("¿Cuál es el lema de {e}?", "Wie lautet das Motto von {e}?", "Quelle est la devise de {e} ?"),
    "mascot": ("¿Cuál es la mascota de {e}?", "Was ist das Maskottchen von {e}?", "Quelle est la mascotte de {e} ?"),
}
