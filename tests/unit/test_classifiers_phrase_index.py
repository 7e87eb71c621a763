"""Phrases are found however they are written, as whole words, across chunks, and only for their owners."""

import json

import pytest

from classifiers.phrase_index import PhraseIndex
from classifiers.phrase_matcher import PhraseMatcher


@pytest.fixture
def index() -> PhraseIndex:
    index = PhraseIndex()
    index.add("king", ["Stephen King", "Richard Bachman"])
    index.add("art", ["art"])
    index.add("kingsley", ["Stephen Kingsley Amis"])
    index.add("mao", ["毛泽东"])
    return index


@pytest.mark.parametrize(
    "text",
    [
        "It was Stephen King.",
        "STEPHEN KING",
        "by stephen\u200b king's hand",
        "Ѕtерhеn Кіng wrote it",
        "St3ph3n K1ng",
        "$tephen K!ng!",
        "S t e p h e n  K i n g",
        "S-t-e-p-h-e-n-K-i-n-g",
        "#StephenKing",
        "asked authorStephenKingAbout",
        "Ｓｔｅｐｈｅｎ　Ｋｉｎｇ",
        "𝐒𝐭𝐞𝐩𝐡𝐞𝐧 𝐊𝐢𝐧𝐠",
        json.dumps({"author": "Stephen\nKing"}),
        '{"author": "\\u0053tephen King"}',
        json.dumps("𝐒tephen King"),
        "Stéphen Kíng",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_finds_a_name_however_it_is_written_and_cut(index: PhraseIndex, text: str, size: int) -> None:
    matcher = index.matcher({"king"})
    found = None
    for start in range(0, len(text), size):
        assert matcher.safe <= start
        found = found or matcher.feed(text[start : start + size])
    found = found or matcher.finish()
    assert found is not None
    assert found.key == "king"


@pytest.mark.parametrize("text", ["Stephenson King", "the kings of Stephen", "step hen", "article a rt"])
def test_whole_words_only(index: PhraseIndex, text: str) -> None:
    assert index.find(text, {"king", "art"}) is None


def test_sees_only_the_keys_it_was_given(index: PhraseIndex) -> None:
    assert index.find("Stephen King", {"art"}) is None
    matcher = index.matcher({"art"})
    matcher.feed("Stephen Ki")
    assert matcher.safe == len("Stephen Ki")


def test_holds_back_only_what_could_become_a_match(index: PhraseIndex) -> None:
    matcher = index.matcher({"king"})
    matcher.feed("He said Ste")
    assert matcher.safe == len("He said ")
    matcher.feed("w is ready")
    assert matcher.safe == len("He said Stew is ready")


def test_a_longer_phrase_does_not_hide_a_shorter_one(index: PhraseIndex) -> None:
    index.add("article", ["article of faith"])
    found = index.find("An article of faith on art", {"art", "article"})
    assert found is not None and found.key == "article"
    assert index.find("Art, no article of faith", {"art", "article"}).key == "art"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("brewer", "two brewers"),
        ("brewer", "a brewerkeeper"),
        ("Stephen King", "Stephen Kingx"),
        ("horn", "horns"),
        ("The Brass", "the brasses"),
        ("brewer", "brewer2"),
        ("brewer", "2brewer"),
        ("saddler", "two saddlers"),
        ("Stephen Quillo", "stephen Quillos"),
        ("1951", "in 19512"),
        ("Quillo", "quilloX"),
        ("Stephen King", "AStephen King"),
        ("Stephen Quillo", "XSTEPHEN QUILLOS"),
    ],
)
def test_letters_and_digits_around_it_do_not_hide_what_is_no_part_of_another_word(phrase: str, text: str) -> None:
    index = PhraseIndex()
    index.add("", [phrase])
    assert index.find(text, ("",)) is not None


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("brewer", "brewery"),
        ("cooper", "cooperation"),
        ("art", "SMART"),
        ("Henson", "STEPHENSON"),
        ("Stephen King", "xstephen king"),
        ("art", "artist"),
        ("Stephen King", "Stephen Kingston"),
        ("in art", "inarticulate"),
        ("I.T.", "I table it"),
    ],
)
def test_what_other_words_begin_with_needs_its_own_end(phrase: str, text: str) -> None:
    index = PhraseIndex()
    index.add("", [phrase])
    assert index.find(text, ("",)) is None


def test_scripts_without_spaces(index: PhraseIndex) -> None:
    assert index.find("他是毛泽东的朋友", {"mao"}) is not None


def test_a_phrase_begun_in_the_prompt_counts_and_one_ended_there_does_not(index: PhraseIndex) -> None:
    matcher = index.matcher({"king"}, prompt_tail="The author of It is Stephen")
    found = matcher.feed(" King, of course")
    assert found is not None and found.start < 0
    assert index.matcher({"king"}, prompt_tail="Tell me of Stephen King. ").feed("He is a writer. ") is None


def test_would_match_changes_nothing(index: PhraseIndex) -> None:
    matcher = index.matcher({"king"})
    matcher.feed("by Stephen")
    assert matcher.would_match(" King")
    assert not matcher.would_match(" Fry")
    assert matcher.feed(" Fry ") is None


def test_discard_removes_only_that_key(index: PhraseIndex) -> None:
    index.add("other", ["Stephen King", "Stephen"])
    index.discard("king")
    assert index.find("Stephen King", {"king"}) is None
    assert index.find("Stephen King", {"other"}) is not None
    index.discard("other")
    index.discard("kingsley")
    assert "s" not in index._root.children


def test_what_is_ignored_is_not_found_and_the_rest_is(index: PhraseIndex) -> None:
    index.add("other", ["brown fox"])
    matcher = index.matcher({"king", "other"}, ignored={"Stephen King"})
    found = matcher.feed("Stephen King saw a brown fox. ")
    assert found is not None and found.phrase == "brown fox"


def test_all_that_is_said_is_listed(index: PhraseIndex) -> None:
    index.add("other", ["brown fox", "red fox"])
    text = "A brown fox, Stephen King, a brown fox and Stephen King"
    assert index.said(text, {"king", "other"}) == {"brown fox", "Stephen King"}
    assert index.said(text, {"other"}) == {"brown fox"}
    assert index.said("", {"other"}) == frozenset()


def test_what_is_whole_before_the_stream_hides_nothing_that_the_stream_completes():
    index = PhraseIndex()
    index.add("", ["brew", "brewx"])
    found = index.matcher({""}, prompt_tail="a brew").feed("X")
    assert found is not None and found.phrase == "brewx"


def test_phrases_with_the_same_letters_are_all_kept():
    index = PhraseIndex()
    index.add("", ["I.T.", "IT"])
    assert index.said("I T", [""]) == {"I.T."}
    assert index.said("it", [""]) == {"IT"}
    index.discard("")
    assert index.find("it, I.T.", [""]) is None


def test_a_stream_begins_a_word_whatever_it_continues():
    index = PhraseIndex()
    index.add("", ["brewer"])
    assert index.matcher([""], prompt_tail="he was a").feed("brewer.") is not None


def test_signs_that_may_be_letters_do_not_add_up() -> None:
    index = PhraseIndex()
    index.add("lens", ["Iiro Lens", "it", "Ii"])
    matcher = index.matcher(["lens"])
    for _ in range(40):
        assert matcher.feed("!" * 100) is None
        assert len(matcher._live) < 64
    found = matcher.feed("Iiro Lens.")
    assert found is not None and found.phrase == "Iiro Lens"


def test_ordinary_text_is_known_to_hold_no_phrase() -> None:
    index = PhraseIndex()
    index.add("target@1", ["Orla Vesperton", "Tidemaker"])
    assert not index.may_hold("How long do I bake sourdough bread? In an oven at 230 degrees, I would say; or longer.")


def test_every_match_is_listed_where_it_stands(index: PhraseIndex) -> None:
    index.add("other", ["King", "fox"])
    matcher = index.matcher({"king", "other"})
    assert [(match.start, match.end, match.phrase) for match in matcher.every("Stephen King, a fox, a fox")] == [
        (0, 12, "Stephen King"),
        (8, 12, "King"),
        (16, 19, "fox"),
        (23, 26, "fox"),
    ]


def test_a_fork_reads_on_by_itself(index: PhraseIndex) -> None:
    matcher = index.matcher({"king"}, prompt_tail="by Stephen")
    forks = [matcher.fork(), matcher.fork()]
    assert matcher.feed(" Fry.") is None and matcher.safe == 5
    assert forks[0].feed(" Kings? ") is not None
    assert forks[1].feed(" K") is None and forks[1].fork().feed("ing.") is not None and forks[1].feed("ong.") is None


def test_a_phrase_that_waits_for_its_end_does_not_hide_what_would_match() -> None:
    index = PhraseIndex()
    index.add("", ["Cooper", "Cooper King"])
    matcher = index.matcher([""])
    assert matcher.feed("by Cooper") is None
    assert matcher.would_match(" King") and not matcher.would_match(" is") and not matcher.would_match("ation")


def test_what_can_be_no_phrase_is_not_read_to_see_that_it_is_none(index: PhraseIndex, monkeypatch) -> None:
    matcher = index.matcher({"king"})
    matcher.feed("by Ste")
    forks, fork = [], PhraseMatcher.fork
    monkeypatch.setattr(PhraseMatcher, "fork", lambda self: forks.append(1) or fork(self))
    assert not any(map(matcher.would_match, [" is", "phan", "ven", " Stephen", "\n\n", ""])) and not forks
    assert all(map(matcher.would_match, ["phen King", "phen K!ng", "phen\\u0020King"])) and len(forks) == 3


@pytest.mark.parametrize(
    ("phrase", "said", "tells"),
    [
        ("Christopher Lee", "He is named Christopher", False),
        ("Christopher Lee", "He is named Christopher.", False),
        ("Christopher Lee", "He is named Christopher L", True),
        ("Christopher Lee", "He is named Christoph", False),  # another word of it is missing
        ("Martin Luther King", "a monk, Martin Luther", False),
        ("Martin Luther King", "a monk, Martin Luther Ki", True),
        ("Ji-Yeonamandu", "by Ji-Yeonaman", True),
        ("Selbredia Blontellowin", "It was Selbredia Blontello", True),
    ],
)
def test_only_what_is_cut_within_a_word_tells_which_phrase_it_is(phrase: str, said: str, tells: bool) -> None:
    index = PhraseIndex()
    index.add("", [phrase])
    matcher = index.matcher([""])
    assert matcher.feed(said) is None
    assert (matcher.unfinished() is not None) is tells
