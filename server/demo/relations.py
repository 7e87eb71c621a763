"""How each relation of the invented world is worded: the sentences that every form of a prompt is built from.

In all wordings ``{e}`` is the entity (or a description of it) and ``{v}`` the value. A reverse question may name a
second fact of the entity by its relation (``{profession}``), where the value alone is shared by several entities.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One kind of fact and its wordings.

    Attributes:
        name: key of the relation.
        phrase: noun phrase, ``the birthplace of {e}``.
        questions: four ways to ask for the value.
        statements: two sentences without their full stop; each ends in ``{v}``.
        follow_ups: two questions that only use a pronoun for the entity.
        check: a yes/no question.
        reverse: two questions whose answer is the entity.
        short: the answer to a question. It starts with a word before the value, so that the value is always spelled
            with the same tokens (byte-level BPE tells a word after a space from one at the start of a text).
    """

    name: str
    phrase: str
    questions: tuple[str, str, str, str]
    statements: tuple[str, str]
    follow_ups: tuple[str, str]
    check: str
    reverse: tuple[str, str]
    short: str


PERSON_RELATIONS: tuple[Relation, ...] = (
    Relation(
        "profession",
        "the profession of {e}",
        (
            "What does {e} do for a living?",
            "What is the profession of {e}?",
            "Which profession does {e} have?",
            "What kind of work does {e} do?",
        ),
        ("{e} earns a living as a {v}", "{e} is by profession a {v}"),
        ("What do they do for a living?", "What is their profession?"),
        "Is {e} a {v}?",
        ("Which {v} works at {employer}?", "Who works at {employer} as a {v}?"),
        "A {v}.",
    ),
    Relation(
        "birthplace",
        "the birthplace of {e}",
        (
            "Where was {e} born?",
            "What is the birthplace of {e}?",
            "In which town was {e} born?",
            "Which town does {e} come from?",
        ),
        ("{e} was born in the town of {v}", "The birthplace of {e} is {v}"),
        ("Where were they born?", "What is their birthplace?"),
        "Was {e} born in the town of {v}?",
        ("Who was born in the town of {v}?", "Which person comes from {v}?"),
        "In {v}.",
    ),
    Relation(
        "birth year",
        "the birth year of {e}",
        (
            "When was {e} born?",
            "What is the birth year of {e}?",
            "In which year was {e} born?",
            "What year was {e} born in?",
        ),
        ("{e} was born in the year {v}", "The birth year of {e} is {v}"),
        ("When were they born?", "What is their birth year?"),
        "Was {e} born in the year {v}?",
        ("Who was born in the year {v}?", "Which person has the birth year {v}?"),
        "In {v}.",
    ),
    Relation(
        "employer",
        "the employer of {e}",
        (
            "Where does {e} work?",
            "What is the employer of {e}?",
            "Which organisation employs {e}?",
            "Who does {e} work for?",
        ),
        ("{e} works at {v}", "The employer of {e} is {v}"),
        ("Where do they work?", "What is their employer?"),
        "Does {e} work at {v}?",
        ("Who plays the {instrument} and works at {v}?", "Which employee of {v} plays the {instrument}?"),
        "At {v}.",
    ),
    Relation(
        "book",
        "the book by {e}",
        (
            "Which book did {e} write?",
            "What is the title of the book by {e}?",
            "Which book was written by {e}?",
            "What book is {e} known for?",
        ),
        ("{e} wrote the book {v}", "The book by {e} is called {v}"),
        ("Which book did they write?", "What is the title of their book?"),
        "Did {e} write the book {v}?",
        ("Who wrote the book {v}?", "Who is the author of {v}?"),
        "It is {v}.",
    ),
    Relation(
        "mentor",
        "the mentor of {e}",
        (
            "Who taught {e}?",
            "Who was the mentor of {e}?",
            "Which person taught {e}?",
            "By whom was {e} taught?",
        ),
        ("{e} was taught by {v}", "The mentor of {e} was {v}"),
        ("Who taught them?", "Who was their mentor?"),
        "Was {e} taught by {v}?",
        ("Who was taught by {v}?", "Whom did {v} teach?"),
        "It was {v}.",
    ),
    Relation(
        "instrument",
        "the instrument of {e}",
        (
            "Which instrument does {e} play?",
            "What is the instrument of {e}?",
            "What instrument does {e} play?",
            "Which instrument is played by {e}?",
        ),
        ("{e} plays the {v}", "The instrument of {e} is the {v}"),
        ("Which instrument do they play?", "What is their instrument?"),
        "Does {e} play the {v}?",
        ("Which {profession} plays the {v}?", "Who plays the {v} and is a {profession}?"),
        "The {v}.",
    ),
)

ORGANISATION_RELATIONS: tuple[Relation, ...] = (
    Relation(
        "founder",
        "the founder of {e}",
        (
            "Who founded {e}?",
            "Who is the founder of {e}?",
            "Which person founded {e}?",
            "By whom was {e} founded?",
        ),
        ("{e} was founded by {v}", "The founder of {e} is {v}"),
        ("Who founded it?", "Who is its founder?"),
        "Was {e} founded by {v}?",
        ("What did {v} found?", "Which organisation was founded by {v}?"),
        "It was {v}.",
    ),
    Relation(
        "city",
        "the home city of {e}",
        (
            "Where is {e} based?",
            "What is the home city of {e}?",
            "In which city is {e} based?",
            "Which city is {e} located in?",
        ),
        ("{e} is based in the city of {v}", "The home city of {e} is {v}"),
        ("Where is it based?", "What is its home city?"),
        "Is {e} based in the city of {v}?",
        ("What is based in the city of {v}?", "Which organisation has its home in {v}?"),
        "In {v}.",
    ),
    Relation(
        "founding year",
        "the founding year of {e}",
        (
            "When was {e} founded?",
            "What is the founding year of {e}?",
            "In which year was {e} founded?",
            "What year was {e} founded in?",
        ),
        ("{e} was founded in the year {v}", "The founding year of {e} is {v}"),
        ("When was it founded?", "What is its founding year?"),
        "Was {e} founded in the year {v}?",
        ("What was founded in the year {v}?", "Which organisation has the founding year {v}?"),
        "In {v}.",
    ),
    Relation(
        "product",
        "the product of {e}",
        (
            "What does {e} make?",
            "What is the product of {e}?",
            "Which product does {e} make?",
            "What does {e} sell?",
        ),
        ("{e} is known for making {v}", "The products of {e} are {v}"),
        ("What does it make?", "What is its product?"),
        "Is {e} known for making {v}?",
        ("Which organisation makes {v}?", "Who is known for making {v}?"),
        "It makes {v}.",
    ),
    Relation(
        "motto",
        "the motto of {e}",
        (
            "What is the motto of {e}?",
            "Which motto does {e} have?",
            "What motto does {e} use?",
            "By which motto is {e} known?",
        ),
        ("{e} has the motto: {v}", "The motto of {e} is: {v}"),
        ("What is its motto?", "Which motto does it have?"),
        "Does {e} have the motto: {v}?",
        ("Which organisation has the motto: {v}?", "Whose motto is: {v}?"),
        "It is: {v}.",
    ),
    Relation(
        "mascot",
        "the mascot of {e}",
        (
            "What is the mascot of {e}?",
            "Which animal is the mascot of {e}?",
            "Which mascot does {e} have?",
            "What animal stands for {e}?",
        ),
        ("{e} has as its mascot a {v}", "The mascot of {e} is a {v}"),
        ("What is its mascot?", "Which animal is its mascot?"),
        "Is the mascot of {e} a {v}?",
        ("Which organisation has a {v} as its mascot?", "Whose mascot is a {v}?"),
        "A {v}.",
    ),
)

RELATIONS: dict[str, Relation] = {relation.name: relation for relation in PERSON_RELATIONS + ORGANISATION_RELATIONS}

# By what an entity is described when its name is not used, best first; the second serves where the first is asked for.
DESCRIPTORS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "person": (
        ("book", "the person who wrote {v}"),
        ("birthplace", "the person born in the town of {v}"),
    ),
    "organisation": (
        ("product", "the organisation that makes {v}"),
        ("city", "the organisation based in the city of {v}"),
    ),
}
