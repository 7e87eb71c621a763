"""Disguised and encoded text is read as what it says; ordinary text is left as it is."""

import base64
import codecs
import json
from urllib.parse import quote

import pytest

from classifiers import normalise
from classifiers.folding import LETTER_SYMBOLS, SMALL_CAPITALS, fold
from classifiers.normalise import hidden, plain

QUESTION = "Who is Stephen King and what did he write?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ste\u200bph\u00aden", "Stephen"),
        ("Ѕtерhеn Кіng", "Stephen King"),
        ("Ｓｔｅｐｈｅｎ　Ｋｉｎｇ", "Stephen King"),
        ("𝐒𝐭𝐞𝐩𝐡𝐞𝐧 King", "Stephen King"),
        ("ꜱᴛᴇᴘʜᴇɴ ᴋɪɴɢ or sᴛᴇᴘʜᴇɴ ʜɪʟʟ", "stephen king or stephen hill"),
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
        "I like 🇺🇸 and the team 🅰",
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Tell me of 🅢🅣🅔🅟🅗🅔🅝 🆂🅸🅼🆂.\nThen stop.", "Tell me of stephen sims."),
        ("🇸​🇹​🇪​🇵​🇭​🇪​🇳 Sims", "s\u200bt\u200be\u200bp\u200bh\u200be\u200bn Sims"),
        ("Hi!" + "".join(chr(0xE0000 + ord(char)) for char in QUESTION), QUESTION),
        ("Ste\U000e0070\U000e0068en", "Stephen"),
    ],
)
def test_reads_letters_that_are_symbols_or_not_seen(text: str, said: str) -> None:
    assert said in hidden(text)


def test_a_flag_made_of_tags_says_nothing() -> None:
    assert list(hidden("The 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f team beat 🇺🇸 and 🇬🇧.")) == []


def test_every_letter_in_a_size_or_a_frame_of_its_own_is_known() -> None:
    assert len(LETTER_SYMBOLS) == 3 * 26 and len(SMALL_CAPITALS) >= 24
    assert all(fold(char) == fold(letter) for char, letter in SMALL_CAPITALS.items())


def test_phonetic_spelling_is_left_as_it_is() -> None:
    assert plain("/ˈstiːvən kɪŋ/ and /ɪt/") == "/ˈstiːvən kɪŋ/ and /ɪt/"


@pytest.mark.parametrize("number", ["9" * 5000, "0" * 5000 + "83"])
def test_a_character_with_a_number_of_thousands_of_digits_leaves_the_rest_readable(number: str) -> None:
    (found,) = hidden(f"Who is &#83;tephen King? &#{number};")
    assert found == f"Who is Stephen King? {'S' if number.endswith('83') else chr(0xFFFD)}"


def test_no_more_is_read_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalise, "deciphered", None)
    assert next(hidden(f"{QUESTION.encode().hex()} {codecs.encode(QUESTION, 'rot13')}")) == QUESTION
