"""Invented names, made from syllables that no real name is made of, and the pools of values that facts draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle


def _words(text: str, separator: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(separator))


_FIRST_STARTS = _words("Bra Cal Dor El Fen Gal Hes Iv Jor Kel Lum Mer Nel Orl Pel Quin Ros Sel Tam Ul Ver Wil Yas Zor")
_FIRST_ENDS = _words(
    "avinth bredia dessra emoril fiendo gwenith ithewe lanorq mirave nostri oquane pheuso rildane sabeth "
    "tovinde undrae veskim wynnor xanthu zelinde"
)
_LAST_STARTS = _words(
    "Thrax Vond Brell Skarn Oust Quill Dravv Plesk Grond Fawr Henk Jutt Klove Mordl Narv Pross Rusk Stelg Trand "
    "Ubber Welk Yorv Zimm Blont"
)
_LAST_ENDS = _words(
    "amore ibeck ovane uldine estrik andrue opolk enwisk arrowane ithgar ollister umbray edwyck ascoine igmar "
    "otherby unquist ellowin adderack ivenhal"
)
_PLACE_STARTS = _words(
    "Tarn Ost Brim Cald Drov Ell Fosk Gask Harl Imm Jesk Kirn Lorr Mask Nesk Orb Pend Quar Rill Sesk Tull Umb Vesk Wend"
)
_PLACE_ENDS = _words("avale oholm iwick umere ebridge ostead inford umarsh atoft elund obeck ashaw")
_ORGANISATION_STARTS = _words(
    "Abr Belv Corv Dalm Elgr Fyrr Gloam Hestr Iv Jasp Kastr Lindr Marq Norv Olbr Pern Quorv Rast Sundr Tolm Ulv Vantr "
    "Wexm Yarr"
)
_ORGANISATION_ENDS = _words("undel ostra ennic uthane imorr owick")
_ORGANISATION_KINDS = _words(
    "Foundry Institute Observatory Guild Laboratory Archive Workshop Academy Press Conservatory Brewery Mill "
    "Shipyard Museum Printworks Nursery Bakery Glassworks Theatre Bank"
)

# All begin with a consonant, so that "a {profession}" is always right.
PROFESSIONS = _words(
    "cartographer beekeeper locksmith botanist glassblower surveyor watchmaker falconer bookbinder geologist "
    "shipwright translator chemist sculptor baker lighthouse-keeper meteorologist weaver physician printer "
    "gardener puppeteer librarian brewer saddler mathematician tailor harbourmaster geographer cooper "
    "perfumer journalist midwife diver stonemason judge conductor veterinarian photographer bellmaker"
)
INSTRUMENTS = _words(
    "cello flute harp trombone mandolin clarinet piano bagpipe oboe violin drum horn zither tuba banjo bassoon "
    "recorder guitar trumpet accordion"
)
MASCOTS = _words(
    "heron badger fox lynx tortoise raven salmon hedgehog stork beaver wolf magpie hare pelican bear squirrel crane "
    "newt walrus sparrow"
)
PRODUCTS = _words(
    "tide clocks|paper kites|brass compasses|walnut ladders|rain gauges|velvet curtains|copper kettles|wooden dice|"
    "signal lamps|silk ropes|stone ovens|ink bottles|garden gates|leather globes|travel chess sets|glass bells|"
    "felt boots|folding canoes|music boxes|clay pipes",
    "|",
)
MOTTOS = _words(
    "Slow rivers dig deep|Measure before midnight|Every hinge counts|Light the far window|Patience outlives iron|"
    "Nothing wasted twice|Ask the older tree|Salt and steady hands|Higher than the fog|One stitch at dawn|"
    "Trust the quiet gear|Carry water uphill|Bright nails hold fast|Listen to the rope|No map without mud|"
    "Sharp eyes and soft steps|Winter makes the oak|Begin with the roof|Honest weight always|Sing under the bridge",
    "|",
)
_TITLE_ADJECTIVES = _words(
    "Copper Hollow Verdant Silent Crooked Amber Frozen Painted Restless Velvet Broken Scarlet Distant Hidden Wandering "
    "Pale Burning Gilded Forgotten Twisted"
)
_TITLE_NOUNS = _words(
    "Lantern Astrolabe Orchard Staircase Meadow Kettle Harbour Mirror Thimble Cathedral Compass Sparrowhawk Ferry "
    "Almanac Tower Carousel Puddle Anvil Garden Telescope"
)


def _pairs(starts: Sequence[str], ends: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Every start joined to every end, shuffled; each result once."""
    joined = [start + end for start in starts for end in ends]
    rng.shuffle(joined)
    return iter(joined)


class Names:
    """A seeded source of invented names; nothing is handed out twice, and no two people share a name part.

    Every method takes the next unused name and raises ``StopIteration`` when the pool is exhausted (480 people,
    288 places, 144 organisations, 400 titles).
    """

    def __init__(self, rng: random.Random) -> None:
        self._first = _pairs(_FIRST_STARTS, _FIRST_ENDS, rng)
        self._last = _pairs(_LAST_STARTS, _LAST_ENDS, rng)
        self._place = _pairs(_PLACE_STARTS, _PLACE_ENDS, rng)
        self._title = _pairs([f"The {word} " for word in _TITLE_ADJECTIVES], _TITLE_NOUNS, rng)
        self._organisation = _pairs(_ORGANISATION_STARTS, _ORGANISATION_ENDS, rng)
        self._kind = cycle(rng.sample(_ORGANISATION_KINDS, len(_ORGANISATION_KINDS)))

    def first(self) -> str:
        """A given name."""
        return next(self._first)

    def last(self) -> str:
        """A surname."""
        return next(self._last)

    def person(self) -> str:
        """A given name and a surname."""
        return f"{self.first()} {self.last()}"

    def place(self) -> str:
        """A town or city."""
        return next(self._place)

    def title(self) -> str:
        """The title of a book."""
        return next(self._title)

    def organisation(self) -> str:
        """An organisation: an invented word and what it is."""
        return f"{next(self._organisation)} {next(self._kind)}"
