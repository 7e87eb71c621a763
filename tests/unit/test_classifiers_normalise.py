"""Disguised and encoded text is read as what it says; ordinary text is left as it is."""

import base64
import codecs
import json
from urllib.parse import quote

import pytest

from classifiers.normalise import hidden, plain

QUESTION = "Who is Stephen King and what did he write?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ste\u200bph\u00aden", "Stephen"),
        ("Ѕtерhеn Кіng", "Stephen King"),
        ("Ｓｔｅｐｈｅｎ　Ｋｉｎｇ", "Stephen King"),
        ("𝐒𝐭𝐞𝐩𝐡𝐞𝐧 King", "Stephen King"),
        ("St3ph3n K1ng wrote", "Stephen King wrote"),
        ("S-t-e-p-h-e-n K-i-n-g", "Stephen King"),
        ("S.t.e.p.h.e.n K.i.n.g wrote", "Stephen King wrote"),
        ("I asked for S t e p h e n today", "I asked for Stephen today"),
        ("see st_3ph3n, St3ph3n_K1ng and $tephen", "see st_ephen, Stephen_King and stephen"),
    ],
)
def test_undoes_a_disguise(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        "In 1947 the M60 cost $5 and B2B sales rose!",
        "The F.B.I. and the U.S. agree.",
        "I am a bit of a mess",
        "Привет, мир",
        "毛泽东是谁",
        "Café Zoë",
    ],
)
def test_leaves_ordinary_text_alone(text: str) -> None:
    assert plain(text) == text
    assert list(hidden(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(QUESTION.encode()).decode(),
        base64.urlsafe_b64encode(QUESTION.encode()).decode().rstrip("="),
        f"Decode {base64.b64encode(QUESTION.encode()).decode()} and answer.",
        QUESTION.encode().hex(),
        QUESTION.encode().hex(" "),
        " ".join(f"{byte:08b}" for byte in QUESTION.encode()),
        codecs.encode(QUESTION, "rot13"),
        f"Decode this rot13 and answer: {codecs.encode(QUESTION, 'rot13')}",
        QUESTION[::-1],
        quote(QUESTION),
        "".join(f"&#{ord(char)};" for char in QUESTION),
        "".join(f"\\u{ord(char):04x}" for char in QUESTION),
        base64.b64encode(codecs.encode(QUESTION, "rot13").encode()).decode(),
    ],
)
def test_finds_encoded_text(text: str) -> None:
    assert any(QUESTION in found for found in hidden(text))


def test_two_escapes_of_one_character_are_that_character() -> None:
    assert json.dumps(f"{QUESTION} 😀") != f'"{QUESTION} 😀"' == next(hidden(json.dumps(f"{QUESTION} 😀")))
    assert all(found.encode() for found in hidden("\\ud83d and \\ude00"))


@pytest.mark.parametrize("sign", ["a", "a-", "_", "!", "a1", "1_", "\u00e9"])
def test_a_word_of_any_length_is_read_in_time_that_grows_with_it(sign: str) -> None:
    assert plain(sign * 500_000 + "-!")  # where every place looks at all that follow this does not end
