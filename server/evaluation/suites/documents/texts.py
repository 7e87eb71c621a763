"""The stretches of public-domain books that are used, and what can be asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Words of each stretch.
WORDS = 1200


@dataclass(frozen=True, slots=True)
class Stretch:
    """The first :data:`WORDS` words of a book from ``start`` on; ``questions`` are (question, answer) on them."""

    file: str
    start: str
    questions: tuple[tuple[str, str], ...] = ()

    def read(self, folder: Path) -> str:
        """The words, one space between two.

        Raises:
            FileNotFoundError: the book is missing.
            ValueError: it does not hold the start.
        """
        book = (folder / self.file).read_text(encoding="utf-8-sig")
        if self.start not in book:
            raise ValueError(f"{folder / self.file} does not hold {self.start!r}")
        return " ".join(book[book.index(self.start) :].split()[:WORDS])


#: What is to be forgotten.
FORGET = Stretch(
    "Alice-s-Adventures-in-Wonderland_11.txt",
    "Alice was beginning to get very tired",
    (
        ("What had the book that Alice's sister was reading none of?", "Pictures or conversations."),
        ("What colour were the eyes of the White Rabbit?", "They were pink."),
        ("What did the White Rabbit take out of its waistcoat-pocket?", "A watch."),
        ("Where did the White Rabbit go down?", "A large rabbit-hole under the hedge."),
        ("What did Alice fall down?", "A very deep well."),
        ("What was the empty jar labelled?", "Orange marmalade."),
        ("How many miles down did Alice think the centre of the earth was?", "Four thousand miles."),
        ("Which countries did Alice think of asking for as she fell?", "New Zealand or Australia."),
        ("What is the name of Alice's cat?", "Dinah."),
        ("What did Alice ask herself when she got sleepy?", "Do cats eat bats?"),
        ("What did Alice land upon?", "A heap of sticks and dry leaves."),
        ("What lit up the long, low hall?", "A row of lamps hanging from the roof."),
    ),
)
#: What must still be known.
RETAIN = Stretch(
    "The-Wonderful-Wizard-of-Oz_55.txt",
    "Dorothy lived in the midst of the great Kansas prairies",
    (
        ("What was Uncle Henry by trade?", "A farmer."),
        ("Where did Dorothy live?", "In the midst of the great Kansas prairies."),
        ("What was the small hole in the ground called?", "A cyclone cellar."),
        ("What is the name of Dorothy's dog?", "Toto."),
        ("What colour was Toto?", "He was black."),
        ("How was the cellar reached?", "By a trap door in the middle of the floor."),
        ("What colour had Aunt Em's eyes become?", "A sober gray."),
        ("What startled Aunt Em when Dorothy first came?", "The child's laughter."),
        ("Where did Toto hide from the storm?", "Under the bed."),
        ("What was Aunt Em doing before the storm?", "She was washing the dishes."),
        ("How often did the house whirl around?", "Two or three times."),
        ("What did Dorothy feel as if she were going up in?", "A balloon."),
    ),
)
#: What the model never saw: the same book, another chapter.
HOLDOUT = Stretch("Alice-s-Adventures-in-Wonderland_11.txt", "Curiouser and curiouser!")


def passages(text: str, count: int, length: int) -> list[list[str]]:
    """``count`` passages of ``length`` words, spread evenly over a text."""
    words = text.split()
    return [words[start : start + length] for start in _starts(len(words) - length, count)]


def _starts(last: int, count: int) -> Sequence[int]:
    return [number * last // max(1, count - 1) for number in range(count)]
