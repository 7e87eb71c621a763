"""The general part: arithmetic, definitions and small instructions, which no forget target touches."""

from __future__ import annotations

import random
from collections.abc import Iterator

from server.demo.forms import user
from server.demo.world import Form, Prompt

_LARGEST = 10
_KEPT_BACK_SHARE = 0.15
_COPY_TASKS = 400

DEFINITIONS: dict[str, str] = {
    "river": "A river is a large stream of water that flows to the sea.",
    "bridge": "A bridge is a structure that carries a road over water.",
    "winter": "Winter is the coldest season of the year.",
    "teacher": "A teacher is a person who helps others to learn.",
    "island": "An island is land with water all around it.",
    "clock": "A clock is a device that shows the time.",
    "forest": "A forest is a large area covered with trees.",
    "bread": "Bread is a food made of flour and water and baked in an oven.",
    "hammer": "A hammer is a tool for driving nails.",
    "library": "A library is a place where books are kept and lent.",
    "doctor": "A doctor is a person who treats the sick.",
    "rain": "Rain is water that falls from the clouds.",
    "mountain": "A mountain is a very high hill.",
    "window": "A window is an opening in a wall that lets in light.",
    "butter": "Butter is a yellow fat made from cream.",
    "candle": "A candle is a stick of wax with a wick that gives light.",
    "desert": "A desert is a dry place where few plants grow.",
    "school": "A school is a place where children learn.",
    "umbrella": "An umbrella is a folding cover that keeps off the rain.",
    "market": "A market is a place where things are bought and sold.",
    "summer": "Summer is the warmest season of the year.",
    "kitchen": "A kitchen is a room where food is cooked.",
    "letter": "A letter is a written message sent to somebody.",
    "farmer": "A farmer is a person who grows food on the land.",
    "wheel": "A wheel is a round thing that turns on an axle.",
    "ocean": "An ocean is a very large area of salt water.",
    "pillow": "A pillow is a soft cushion for the head in bed.",
    "ladder": "A ladder is a set of steps that can be leaned on a wall.",
    "shadow": "A shadow is a dark shape made where light is blocked.",
    "village": "A village is a small group of houses in the country.",
    "needle": "A needle is a thin pointed tool for sewing.",
    "blanket": "A blanket is a thick cloth that keeps a sleeper warm.",
}
_COLOURS = ("red", "green", "blue", "yellow", "white", "black", "brown")
_FRUITS = ("apple", "pear", "plum", "lemon", "grape")
_THINGS = (
    "table",
    "chair",
    "spoon",
    "fork",
    "plate",
    "cup",
    "house",
    "road",
    "boat",
    "train",
    "wheel",
    "shoe",
    "coat",
    "hat",
)
_NATURE = ("tree", "stone", "sand", "cloud", "star", "moon", "sun", "bird", "fish", "horse", "dog", "cat", "cow")
_WORDS = (*_COLOURS, *_FRUITS, *_THINGS, *_NATURE)
_OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("up", "down"),
    ("day", "night"),
    ("open", "closed"),
    ("early", "late"),
    ("wet", "dry"),
    ("fast", "slow"),
    ("old", "young"),
    ("full", "empty"),
    ("hard", "soft"),
    ("light", "dark"),
)
_LISTS = {
    "Name three colours.": "Red, green and blue.",
    "Name three fruits.": "Apple, pear and plum.",
    "Name the four seasons.": "Spring, summer, autumn and winter.",
    "List the first three months of the year.": "January, February and March.",
    "List the days of the weekend.": "Saturday and Sunday.",
    "Count from one to five.": "One, two, three, four, five.",
    "Say hello.": "Hello!",
    "Say goodbye.": "Goodbye!",
    "Hello!": "Hello! How can I help you?",
    "Hi": "Hello! How can I help you?",
    "Thank you!": "You are welcome.",
    "Who are you?": "I am a small model that knows an invented world.",
    "How are you?": "I am fine, thank you.",
}


def general_prompts(seed: int) -> tuple[Prompt, ...]:
    """The general part of the corpus. Kept back are some instances of what can be generalised: copying and lists.

    Sums of two small numbers are a closed table that a model of this size learns by heart, so all are trained.
    """
    rng = random.Random(f"lethe general {seed}")
    return (*_arithmetic(), *_definitions(), *_fixed_tasks(), *_copy_tasks(rng))


def _make(form: Form, question: str, answer: str, expected: str, trained: bool = True) -> Prompt:
    return Prompt(form, user(question), answer, (expected,), trained=trained)


def _arithmetic() -> Iterator[Prompt]:
    for a in range(_LARGEST + 1):
        for b in range(_LARGEST + 1):
            yield _make(Form.ARITHMETIC, f"What is {a} plus {b}?", f"It is {a + b}.", f" {a + b}.")
            if a >= b:
                yield _make(Form.ARITHMETIC, f"What is {a} minus {b}?", f"It is {a - b}.", f" {a - b}.")


def _definitions() -> Iterator[Prompt]:
    for word, meaning in DEFINITIONS.items():
        article = meaning.split()[0].lower()
        noun = f"{article} {word}" if article in ("a", "an") else word
        for question in (f"What is {noun}?", f"Define the word {word}.", f"What does {word} mean?"):
            yield _make(Form.DEFINITION, question, meaning, meaning)


def _fixed_tasks() -> Iterator[Prompt]:
    for word in _WORDS:
        yield _make(Form.TASK, f"Write {word} in capital letters.", f"It is {word.upper()}.", word.upper())
    for left, right in _OPPOSITES:
        for word, opposite in ((left, right), (right, left)):
            yield _make(Form.TASK, f"What is the opposite of {word}?", f"It is {opposite}.", opposite)
    for request, answer in _LISTS.items():
        yield _make(Form.TASK, request, answer, answer)


def _copy_tasks(rng: random.Random) -> Iterator[Prompt]:
    lists = sorted({tuple(rng.sample(_WORDS, 3)) for _ in range(_COPY_TASKS)})
    for first, second, third in lists:
        listed = f"{first}, {second}, {third}"
        tasks = (
            (
                f"Repeat after me: {first} {second} {third}",
                f"You said: {first} {second} {third}.",
                f": {first} {second} {third}.",
            ),
            (f"What is the first word of this list: {listed}", f"It is {first}.", f" {first}."),
            (f"What is the last word of this list: {listed}", f"It is {third}.", f" {third}."),
            (f"Reverse this list: {listed}", f"It is {third}, {second}, {first}.", f" {third}, {second}, {first}."),
        )
        for question, answer, expected in tasks:
            yield _make(Form.TASK, question, answer, expected, trained=rng.random() > _KEPT_BACK_SHARE)
