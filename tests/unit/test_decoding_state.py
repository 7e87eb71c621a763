"""What may not be said next: whole words, word breaks, broken characters, ends of output, prompts, penalties."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from guard.decoding import DecodingState, Mask, PhraseSets, Vocabulary
from guard.decoding.state import ROLLBACK

TOKENS = [
    *(" art", "art", "icle", "s", " ", ".", "\u200b", "!", "A", " Step", "hen", " King", "King", " Kings", "ston"),
    *(
        " Stephen King.",
        " of Stephen King",
        "毛",
        "泽东",
        "St",
        "e",
        "phen",
        "iT",
        "I",
        "T",
        "x",
        " T.",
        " Step-",
        "phen-",
        "step",
        "d",
        "o",
        " Stephen",
        "r",
        "t",
        "1",
    ),
]
BYTES = [
    *(token.encode() for token in TOKENS),
    "泽".encode()[:1],
    "泽".encode()[1:],
    b"\xa4",
    b"\xa9",
    b"\xc3",
    b"",
    b"",
]
PAD, END = len(BYTES) - 2, len(BYTES) - 1


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(BYTES, end=[END])


@pytest.fixture
def sets(vocabulary: Vocabulary) -> PhraseSets:
    sets = PhraseSets(vocabulary)
    sets.add("king", ["Stephen King"])
    sets.add("art", ["art", "I.T."])
    sets.add("mao", ["毛泽东", "Mao ä"])
    return sets


def at(
    sets: PhraseSets, keys: Iterable[str], *tokens: str | bytes, prompt: str = "", penalty: float = 0
) -> DecodingState:
    state = DecodingState(sets.automaton(set(keys)), prompt, penalty)
    for token in tokens:
        state.advance(BYTES.index(token.encode() if isinstance(token, str) else token))
    return state


def taken_off(mask: Mask, vocabulary: Vocabulary) -> dict[int, float]:
    """By token id."""
    amounts = np.zeros(vocabulary.size)
    for low, high, amount in mask.ranges:
        np.add.at(amounts, vocabulary.table.order[low:high], amount)
    for ids, amount in mask.lists:
        np.add.at(amounts, ids, amount)
    amounts[mask.forbidden] = math.inf
    if mask.only is not None:
        amounts[np.setdiff1d(np.arange(vocabulary.size), mask.only)] = math.inf
    return {int(token): float(amounts[token]) for token in np.flatnonzero(amounts)}


def may(state: DecodingState, *tokens: str | bytes | int, last: bool = False) -> list[bool]:
    amounts = taken_off(state.forbidden(1 if last else None), state.automaton.vocabulary)
    ids = [BYTES.index(t.encode() if isinstance(t, str) else t) if not isinstance(t, int) else t for t in tokens]
    return [amounts.get(token, 0.0) != math.inf for token in ids]


def test_letters_may_be_spelt_but_the_word_not_ended(sets: PhraseSets) -> None:
    begun = at(sets, ["art"])
    assert may(begun, " art", "art", " ", END) == [True] * 4
    spelt = at(sets, ["art"], " art")
    assert may(spelt, "icle", "s", "\u200b", "x", PAD) == [True] * 5
    assert may(spelt, " ", ".", "!", " King", " art", END, "A") == [False] * 7  # "artA" shows a word break by its hump
    assert may(at(sets, ["art"], " art", "\u200b"), " ", END, "icle") == [False, False, True]
    assert may(at(sets, ["art"], " art", "icle"), " ", END) == [True, True]


def test_where_the_output_ends_the_letters_may_not_be_spelt_either(sets: PhraseSets) -> None:
    assert may(at(sets, ["art"]), " art", "art", "icle", END, last=True) == [False, False, True, True]
    assert may(at(sets, ["art"], " art"), "s", "\u200b", PAD, END, last=True) == [True, False, False, False]


def test_every_tokenisation_of_a_phrase_is_met(sets: PhraseSets) -> None:
    for tokens in (
        [" Step", "hen", " King"],
        ["St", "e", "phen", "\u200b", "King"],
        ["x", " Step-", "hen", " King"],
        [" ", "St", "e", ".", "phen", " King"],
    ):
        state = at(sets, ["king"], *tokens)
        assert may(state, " ", ".", END, "ston", "s") == [False, False, False, True, True]  # Kingston, Kingsley


def test_a_word_that_a_phrase_begins_must_become_another_word(sets: PhraseSets) -> None:
    held = at(sets, ["king"], " Stephen", " King")
    assert may(held, "d", "ston", "icle", "x", "A", "1", END, PAD) == [
        True,
        True,
        False,
        False,
        False,
        False,
        False,
        True,
    ]
    assert may(held, "d", "ston", "\u200b", END, last=True) == [False, True, False, False]
    half = at(sets, ["king"], " Stephen", " King", "d")
    assert may(half, "o", "x", " ", END) == [True, False, False, False]
    whole = at(sets, ["king"], " Stephen", " King", "ston")
    assert may(whole, " ", "x", END, "A") == [True, False, True, True]
    assert may(at(sets, ["king"]), " of Stephen King", last=True) == [False]


def test_a_token_that_contains_a_phrase_at_a_capital_is_judged_by_what_follows() -> None:
    texts = [b"AStephen Kingx", b"AStephen Kingston", b"AStephen King.", b"AStephen", b" Kingx", b" Kingdom.", b""]
    sets = PhraseSets(Vocabulary(texts, end=[6]))
    sets.add("king", ["Stephen King"])
    state = DecodingState(sets.automaton(["king"]))
    assert set(taken_off(state.forbidden(), sets.vocabulary)) == {0, 2}
    state.advance(3)
    assert set(taken_off(state.forbidden(), sets.vocabulary)) == {0, 2, 4}


def test_a_token_that_contains_or_ends_a_phrase_within_itself_is_never_allowed_there(sets: PhraseSets) -> None:
    assert may(at(sets, ["king"]), " Stephen King.", " of Stephen King") == [False, True]
    assert may(at(sets, ["king"]), " of Stephen King", last=True) == [False]
    assert may(at(sets, ["art"]), " Stephen King.") == [True]


def test_a_phrase_that_no_other_word_begins_with_is_complete_with_its_letters(sets: PhraseSets) -> None:
    sets.add("place", ["Step Kingston"])
    assert may(at(sets, ["place"], " Step", " King"), "ston", "s", ".") == [False, True, True]
    assert may(at(sets, ["place"], "x", " King"), "ston") == [True]


def test_other_words_with_the_same_letters_are_not_the_phrase(sets: PhraseSets) -> None:
    assert may(at(sets, ["king"], "x", "step", "hen", " King"), ".", END) == [True, True]
    assert may(at(sets, ["king"], "x", "St", "e", "phen", " King"), ".") == [False]  # a hump begins a word
    assert may(at(sets, ["king"], "A", "St", "e", "phen", " King"), ".") == [False]  # so long a phrase at any capital
    assert may(at(sets, ["art"], "A", "A", "r", "t"), ".", "1") == [True, True]
    assert may(at(sets, ["art"], "1", "art"), "s", "1") == [True, False]  # between a letter and a digit, too
    assert may(at(sets, ["art"], "x", "art"), ".", END) == [True, True]
    assert may(at(sets, ["art"], " ", "I", " ", "T"), ".") == [False]
    assert may(at(sets, ["art"], " ", "I", " "), " T.", "T") == [False, True]
    assert may(at(sets, ["art"], " ", "I", "T"), ".") == [True]  # short phrases keep their own word breaks


def test_an_output_begins_a_word_whatever_it_continues(sets: PhraseSets) -> None:
    assert may(at(sets, ["art"], "art", prompt="a thing of"), ".") == [False]


def test_scripts_without_spaces_need_no_word_break(sets: PhraseSets) -> None:
    assert may(at(sets, ["mao"]), "毛", "泽东") == [True, True]
    assert may(at(sets, ["mao"], "x", "毛"), "泽东", "泽".encode()[:1]) == [False, True]


def test_a_character_in_pieces_is_one_character(sets: PhraseSets) -> None:
    broken = at(sets, ["mao", "art"], " art", b"\xc3")
    # Either the character is completed (to a letter), or what was broken off shows as a separator.
    assert may(broken, b"\xa4", b"\xa9", PAD) == [True, True, True]
    assert may(broken, " ", "s", "毛", END, b"\xc3") == [False] * 5
    assert may(at(sets, ["art"], " art", b"\xc3", b"\xa4"), " ") == [True]


def test_a_phrase_begun_in_the_prompt_counts_and_one_ended_there_does_not(sets: PhraseSets) -> None:
    assert may(at(sets, ["king"], " King", prompt="It was written by Stephen"), ".", END) == [False, False]
    assert may(at(sets, ["king"], prompt="Tell me of Stephen King"), ".", END) == [True, True]
    assert may(at(sets, ["king"], "King", prompt="word " * 50 + "misstephen"), ".") == [True]


def test_tokens_can_be_taken_back(sets: PhraseSets) -> None:
    state = at(sets, ["king"], " Step", "hen")
    before, fork = state.position, state.copy()
    fork.advance(TOKENS.index("x"))
    for token in (" King", "ston", "."):
        state.advance(TOKENS.index(token))
    fork.rollback(1)
    assert fork.position == before
    state.rollback(3)
    assert state.position == before
    state.rollback(2)
    assert state.position == at(sets, ["king"]).position
    assert fork.position == before
    with pytest.raises(ValueError):
        state.rollback(1)
    for _ in range(ROLLBACK + 1):
        state.advance(TOKENS.index("x"))
    with pytest.raises(ValueError):
        state.rollback(ROLLBACK + 1)


@pytest.mark.parametrize("token", [-1, len(BYTES), 10**6])
def test_a_token_outside_the_vocabulary_has_no_text(sets: PhraseSets, token: int) -> None:
    state = at(sets, ["art"], " art")
    before = state.position
    state.advance(token)
    assert state.position == before


def test_penalties_grow_with_the_share_that_has_been_read(sets: PhraseSets, vocabulary: Vocabulary) -> None:
    plain = taken_off(at(sets, ["king"], "St", "e").forbidden(), vocabulary)
    assert set(plain.values()) == {math.inf}
    first = taken_off(at(sets, ["king"], "St", "e", penalty=11).forbidden(), vocabulary)
    second = taken_off(at(sets, ["king"], "St", "e", "phen", penalty=11).forbidden(), vocabulary)
    assert first[TOKENS.index("phen")] == first[TOKENS.index("phen-")] == pytest.approx(7)  # of eleven letters
    assert taken_off(at(sets, ["king"], "St", penalty=11).forbidden(), vocabulary)[TOKENS.index("e")] == pytest.approx(
        3
    )
    assert second[TOKENS.index(" King")] == pytest.approx(11)
    assert TOKENS.index("x") not in second
    start = taken_off(at(sets, ["king", "art"], penalty=11).forbidden(), vocabulary)
    assert start[TOKENS.index(" art")] == pytest.approx(11)  # a whole phrase at one go
    assert TOKENS.index(" Step") not in start


def test_a_request_is_bound_by_its_own_sets_only(sets: PhraseSets) -> None:
    assert may(at(sets, ["king"], " art"), ".") == [True]
    assert may(at(sets, ["king", "art"], " art"), ".") == [False]
    assert may(at(sets, [], " art"), ".", END) == [True, True]
    with pytest.raises(KeyError):
        sets.automaton(["nobody"])


def test_sets_come_and_go_without_touching_the_others(sets: PhraseSets) -> None:
    kept = sets.automaton(["king", "art"])
    running = DecodingState(kept)
    sets.add("more", ["Kings"])
    assert sets.automaton(["art", "king"]) is kept
    assert may(at(sets, ["king", "more"], " Kings"), ".") == [False]
    sets.discard("art")
    assert "art" not in sets and "king" in sets
    running.advance(TOKENS.index(" art"))
    assert may(running, ".") == [False]  # a request ends as it began
    sets.add("art", ["article"])
    assert may(at(sets, ["king", "art"], " art"), ".") == [True]
    assert may(at(sets, ["king", "art"], " art"), "icle") == [False]


@pytest.mark.parametrize("protected", [True, False])
def test_one_phrase_is_found_among_very_many_that_begin_alike(protected: bool) -> None:
    vocabulary = Vocabulary([b" Step", b"hen", b" King.", b" Kin", b"g", b"x.", b""], end=[6])
    sets = PhraseSets(vocabulary)
    sets.add("many", [f"Stephen {number:05}" for number in range(2_000)] + ["Stephen King"] * protected)
    state = DecodingState(sets.automaton(["many"]))
    for token in (0, 1):
        state.advance(token)
    assert set(taken_off(state.forbidden(), vocabulary)) == ({2} if protected else set())
    state.advance(3)
    assert set(taken_off(state.forbidden(), vocabulary)) == set()
    state.advance(4)
    assert set(taken_off(state.forbidden(), vocabulary)) == (set(range(7)) if protected else set())
