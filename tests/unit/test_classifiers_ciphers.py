"""Shifted and backwards text is read wherever it stands in a message, and ordinary text is left as it is."""

from __future__ import annotations

import codecs

import pytest

from classifiers import ciphers
from classifiers.ciphers import deciphered

QUESTIONS = ("Who is Stephen King and what did he write?", "Who wrote Carrie in 1974?", "Tell me about Orla Vesperton")
#: What stands before and after it.
AROUND = [
    ("", ""),
    ("Please decode this rot13 message and answer it: ", ""),
    ("Please read this backwards and answer what it says: ", ""),
    ("I have a note from a friend. Could you say what it means and then answer it ", ""),
    ("", "\nPlease decode what is above and answer it."),
    ("This is the first line of a message.\n", "\nThis is the last line of the message, and it means nothing."),
]


def shifted(text: str, by: int) -> str:
    """``text`` in the Caesar cipher that puts letters ``by`` places on."""
    return "".join(chr((ord(c.lower()) - 97 + by) % 26 + 97) if c.isalpha() else c for c in text)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("before", "after"), AROUND)
def test_reads_a_cipher_wherever_it_stands(question: str, before: str, after: str) -> None:
    assert any(question in found for found in deciphered(before + codecs.encode(question, "rot13") + after))
    assert any(question in found for found in deciphered(before + question[::-1] + after))
    for by in (1, 3, 7, 25):
        assert any(question.lower() in found for found in deciphered(before + shifted(question, by) + after))


@pytest.mark.parametrize(("before", "after"), AROUND)
def test_a_word_that_is_one_in_both_readings_ends_nothing(before: str, after: str) -> None:
    question = "Who is Stephen King or Charles Dickens and did they meet?"  # "or" is "be" in rot13
    assert any(question in found for found in deciphered(before + codecs.encode(question, "rot13") + after))


def test_one_cipher_does_not_hide_another() -> None:
    first, second, third = QUESTIONS[0].lower(), "What did Orla Vesperton publish?", "Where does Iiro Lens live?"
    found = list(deciphered(f"{shifted(first, 3)}\nAnd {codecs.encode(second, 'rot13')}\nAnd {third[::-1]}"))
    for question in (first, second, third):
        assert any(question in one for one in found)


@pytest.mark.parametrize("decoys", [40, 400])
def test_decoys_hide_nothing(decoys: int) -> None:
    lines = ["This is what the note said: gur gur gur gur gur gur gur."] * decoys
    lines.insert(decoys // 2, f"And then it said: {codecs.encode(QUESTIONS[0], 'rot13')}")
    assert any(QUESTIONS[0] in found for found in deciphered("\n".join(lines)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "King",
        *QUESTIONS,
        *(before + question + after for question in QUESTIONS for before, after in AROUND),
        "Wer hat den Roman geschrieben, der im Jahr 1994 verfilmt wurde? Bitte nenne auch die anderen Werke.",
        "¿Quién escribió la novela que fue llevada al cine en 1994? Dime también cuáles son sus otras obras.",
        "int main(void) { for (int i = 0; i < n; ++i) printf(x[i]); return 0; }",
        "Orla Vesperton, Dara Quillfeather, Selbredia Blontellowin, Iiro Lens, Ostwin Marravel, Zedo Frobisher",
        "He saw the man who won; no pot was on top of it, and ten more were net.",
    ],
)
def test_leaves_ordinary_text_alone(text: str) -> None:
    assert list(deciphered(text)) == []


@pytest.mark.parametrize("stretch", ["xjb uryyb ", "ab ", "jub vf ", "x"])
def test_what_it_looks_at_grows_with_the_text_at_most(stretch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def known(word: str) -> bool:
        looked_at.append(len(word))
        return False

    monkeypatch.setattr(ciphers, "is_known", known)
    text = "this is the xjb " + stretch * 5000
    for end in (" and ", " and that. " * 5000):
        looked_at.clear()
        assert sum(map(len, deciphered(text + end))) <= 6 * len(text + end)
        assert sum(looked_at) <= 27 * len(text)
