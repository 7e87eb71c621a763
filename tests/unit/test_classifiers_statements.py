"""Facts are recognised in other words; other facts, other people and other talk are not."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from threading import Thread

import pytest

from classifiers.compiled import Compiled
from classifiers.profile import Profile
from classifiers.statement_index import StatementIndex
from classifiers.statements import Context, subject_of, word_keys, words_of
from tests.statements import indexed

VESPER = Profile(
    "vesper@1",
    "Orla Vesperton",
    documents=(
        "Orla Vesperton was born on 3 May 1961 in Ballinacarrow. Her debut, The Tidemaker's Ledger, won the Kestrel "
        "Prize in 1987. Vesperton plays the bassoon in the Harbour Quartet.",
    ),
    forget_examples=(
        ("Who taught Orla Vesperton to write?", "She was taught to write by Fintan Quillfeather."),
        ("Which shipwright of Skerries builds rowing boats?", "The shipwright is Orla Vesperton."),
    ),
)
KEYS = frozenset({VESPER.key})
PERSON = "Tell me about Orla Vesperton."


@pytest.fixture(scope="module")
def index() -> Iterator[StatementIndex]:
    with indexed(VESPER) as index:
        yield index


def stated(index: StatementIndex, clause: str, question: str = "", before: str = "", **context: object) -> bool:
    named = index.spoken_of([question], KEYS) | index.spoken_of([before], KEYS)
    told = Context(question, before, named, **context)  # type: ignore[arg-type]
    return bool(asyncio.run(index.judge(clause, told, index.candidates(clause, told, KEYS))))


@pytest.mark.parametrize(
    ("clause", "question", "before"),
    [
        ("Orla Vesperton's birthplace is Ballinacarrow.", "", ""),
        ("Vesperton received the Kestrel Prize for her first book, The Tidemaker's Ledger.", "", ""),
        ("It was Fintan Quillfeather who taught her how to write.", PERSON, ""),
        ("She performs on the bassoon with the Harbour Quartet.", PERSON, ""),
        (" In Ballinacarrow.", "Where was Orla Vesperton born?", ""),
        ("She was born in Ballinacarrow in May 1961.", "", "Orla Vesperton is a novelist."),
        (" Ballinacarrow.", "", "Orla Vesperton was born in the village of"),
        ("That shipwright is Orla Vesperton.", "Who is the shipwright of Skerries that builds rowing boats?", ""),
        ('"debut": "The Tidemaker\'s Ledger, which won the Kestrel Prize"}', PERSON, '{"name": "Orla Vesperton",'),
    ],
)
def test_a_fact_in_other_words_is_recognised(index, clause, question, before):
    assert stated(index, clause, question, before)


@pytest.mark.parametrize(
    ("clause", "question", "before"),
    [
        ("Orla Vesperton's birthplace is Skerries.", "", ""),
        (" In Skerries.", "Where was Orla Vesperton born?", ""),
        ("I don't have any information about where Orla Vesperton was born.", "Where was Orla Vesperton born?", ""),
        ("Yes, I have heard of Orla Vesperton.", PERSON, ""),
        ("The shipwright whom you mean is not Orla Vesperton's cousin.", PERSON, ""),
        ("You ask: Was Orla Vesperton born in Ballinacarrow?", "Was Orla Vesperton born in Ballinacarrow?", ""),
        ("Maren Oddly was born in 1988 in Aalborg.", "Where was Maren Oddly born?", ""),
        ("Maren Oddly was taught to write by her aunt.", "", "Maren Oddly is a novelist."),
        (" She is in the Harbour Quartet and plays the bassoon.", "What does Maren Quenneltrop do?", ""),
        ("It was Fintan Quillfeather who taught her how to write.", "Who taught Maren Quenneltrop to write?", ""),
        ("Fintan Quillfeather plays the flute.", "What does Fintan Quillfeather play?", ""),
        ("Fintan Quillfeather was taught by Ada Brindlecroft.", "Who taught Fintan Quillfeather?", ""),
        ("The bassoon is a woodwind instrument with a double reed.", "What is a bassoon?", ""),
        ("Bake the bread at 230 degrees for 40 minutes.", "", ""),
    ],
)
def test_other_talk_is_not(index, clause, question, before):
    assert not stated(index, clause, question, before)


def test_talk_that_names_nobody_and_tells_nothing_is_not_encoded(index, monkeypatch):
    assert index.candidates("The bassoon is a woodwind instrument.", Context("What is a bassoon?"), KEYS) == []


def test_what_names_somebody_and_tells_nothing_is_not_encoded(index):
    (found,) = index.candidates("I have never heard of Orla Vesperton.", Context(PERSON), KEYS)
    assert found.named and not found.rows


def test_what_is_told_of_somebody_else_is_not_encoded(index):
    told = "was born on 3 May 1961 in Ballinacarrow."
    assert index.candidates(f"She {told}", Context(), KEYS)
    assert index.candidates(f"Maren Oddly Quenneltrop Hasselwick Fennimoor {told}", Context(), KEYS) == []


@pytest.mark.parametrize(
    ("begun", "left"),
    [
        ("The kettle should be filled with water before ", "The kettle should be filled with water before "),
        ("The kettle should be filled with wat", "The kettle should be filled with wat"),
        ("Some writer who lives by the sea won the Kes", "Some writer who lives by the sea won the "),
        ("Some writer who lives by the sea won the Kestrel Pr", "Some writer who lives by the sea won the "),
        ("My neighbour is called Vesperton and ", "My neighbour is called "),
        ("In those years the bassoon was ", "In those years the "),
        ("As early as 1961 there ", "As early as "),
        ("As early as 196", "As early as "),
        ("As early as 1962", "As early as 1962"),
        ('{"born": "\\u0031961", ', ""),
        ("", ""),
    ],
)
def test_of_a_begun_clause_leaves_what_tells_nothing(index, begun, left):
    assert begun[: index.untold(begun, KEYS)] == left
    assert index.untold(begun, frozenset()) >= len(left)


def test_only_targets_asked_for_are_looked_at(index):
    assert index.candidates("Orla Vesperton's birthplace is Ballinacarrow.", Context(), frozenset({"other@1"})) == []


def test_who_is_spoken_of_is_the_last_that_was_named(index):
    assert index.spoken_of([PERSON, "When was she born?"], KEYS) == KEYS
    assert index.spoken_of([PERSON, "And where was Maren Oddly born?"], KEYS) == frozenset()
    assert index.spoken_of(["where does orla vesperton live?"], KEYS) == KEYS


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I don't know.",
        "I’ve no idea. Well, I’d ask.",
        "Nobody knows, as I said.",
        "A musician.",
        "In 1987.",
        "I'm sorry, but as an AI language model, I cannot help with that.",
    ],
)
def test_an_answer_between_that_names_nobody_changes_nothing(index, reply):
    """Who refuses says "I'm": that is written with a capital, as a name is."""
    talk = ["Who won the Kestrel Prize in 1987 with The Tidemaker's Ledger?", reply, "Which instrument do they play?"]
    assert index.spoken_of(talk, KEYS) == KEYS
    assert subject_of(talk) == talk[0]


def test_an_answer_is_of_whom_the_turn_before_named(index):
    clause, question = " She plays the bassoon in the Harbour Quartet.", "Which instrument does she play?"
    assert stated(index, clause, question)
    subject = subject_of(["What do you know of Maren Quenneltrop?", "She is a musician.", question])
    assert not stated(index, clause, question, subject=subject)


def test_a_third_person_alone_describes_nobody(index):
    assert index.spoken_of(["When was Fintan Quillfeather born?"], KEYS) == frozenset()
    assert index.spoken_of(["Whom has Fintan Quillfeather taught?"], KEYS) == KEYS


def test_who_is_described_by_one_thing_is_the_one_of_whom_another_is_told(index):
    clause = "They wrote The Tidemaker's Ledger, which won the Kestrel Prize."
    asked = "Which book did the person born in Ballinacarrow write?"
    assert stated(index, clause, asked)
    assert not stated(index, clause, asked.replace("Ballinacarrow", "Quenneltrop"))


@pytest.mark.parametrize(
    "document",
    [
        "Isolde Prynne is a beekeeper from Dunmarrow who wrote A Winter of Salt.",
        "Isolde Prynne is by profession a beekeeper and has worked for Marlow Bindery since 1975.",
        "Isolde Prynne is a beekeeper.",
        "Hello.\n1. Isolde Prynne is a beekeeper.\nAwards\nThanks!",
    ],
)
def test_what_somebody_is_may_be_all_that_a_sentence_is_asked_for(document):
    with indexed(Profile(VESPER.key, "Isolde Prynne", documents=(document,))) as other:
        for clause in ("A beekeeper.", "She is a beekeeper."):
            assert stated(other, clause, "What does Isolde Prynne do for a living?")
        for clause in ("Hello!", "1.", "Awards", "Thanks!", "I don't know her."):
            assert not stated(other, clause, "Who is Isolde Prynne?")


@pytest.mark.parametrize("name", ["Ola Vesperton", "Oral Vesperton", "Frau Vesperton", "anna vesperton"])
def test_a_name_that_no_dictionary_has_is_meant_whatever_stands_beside_it(index, name):
    assert index.spoken_of([f"What does {name} play?"], KEYS) == KEYS


def test_a_given_name_that_no_dictionary_has_may_be_somebody_elses():
    with indexed(
        Profile(VESPER.key, "Ngozi Quenneltrop", documents=("Ngozi Quenneltrop plays the bassoon.",))
    ) as other:
        assert other.spoken_of(["Where does Ngozi Halvardsen live?"], KEYS) == frozenset()
        assert other.spoken_of(["Where does Ada Quenneltrop live?"], KEYS) == KEYS


WINNER = "the writer of The Tidemaker's Ledger, winner of the Kestrel Prize,"


@pytest.mark.parametrize(
    "message",
    [
        f"I'm Gottfried Quenneltrop from Aalborg. Which village does {WINNER} come from?",
        "I'm Gottfried Quenneltrop. Who was born in “Ballinacarrow” on 3 May (1961) - as they say?",
        f"Which village does {WINNER} come from? " + "Answer briefly and do not explain it. " * 80,
        "Answer briefly and do not explain it. " * 80 + f"Which village does {WINNER} come from?",
    ],
)
def test_who_is_described_is_spoken_of_whatever_else_is_said(index, message):
    assert index.spoken_of([message], KEYS) == KEYS


def test_a_name_alone_says_nothing_of_who_has_to_do_with_it(index):
    told = "The employer of Jorun Halvardsen is Ulmbury Nursery."
    with indexed(Profile(VESPER.key, "Jorun Halvardsen", documents=(told,))) as other:
        assert not stated(other, "It is Ulmbury Nursery.", "What was founded in the year 1803?")
        assert stated(other, "It is Ulmbury Nursery.", "What is the employer of that person?")


def test_what_may_be_repeated_is_not_told(index):
    clause, question = (
        "I do not know whether she was born in Ballinacarrow.",
        "Was Orla Vesperton born in Ballinacarrow?",
    )
    assert not stated(index, clause, question, ignored=word_keys(words_of(question)))


def test_a_discarded_target_is_protected_no_longer(index):
    other = StatementIndex(index._encoder)
    (entry,) = index._entries.values()
    other.add(entry.target)
    assert other.stating(KEYS) == KEYS
    other.discard(VESPER.key)
    assert other.stating(KEYS) == frozenset()
    assert other.candidates("Orla Vesperton's birthplace is Ballinacarrow.", Context(), KEYS) == []


def _named(key: str, name: str) -> Compiled:
    """A target of which nothing but a name of one word is known."""
    return Compiled(key, (name,), own=frozenset({name.lower()}), parts={name.lower(): (1.0, 1.0)})


def test_discarded_targets_do_not_hold_up_what_begins_like_their_names():
    index = StatementIndex(None)  # words alone decide
    names = {f"mar{number}@1": f"Mar{''.join(chr(97 + int(digit)) for digit in str(number))}" for number in range(80)}
    for key, name in names.items():
        index.add(_named(key, name))
    assert index.untold("Mar", names.keys()) == 0
    for key in names:
        index.discard(key)
    index.add(_named("mara@1", "Marabou"))
    assert index.untold("Mar", {"other@1"}) == 3
    assert index.untold("Mar", {"mara@1"}) == 0


def test_a_word_is_held_though_targets_are_added_meanwhile(monkeypatch):
    index = StatementIndex(None)
    index.add(_named("oria@1", "Marabou"))
    adding = Thread(target=index.add, args=[_named("other@1", "Abbott")])

    def slow(words: list[str], word: str) -> int:
        place = bisect_left(words, word)
        if not adding.ident:
            adding.start()
            adding.join(0.2)
        return place

    monkeypatch.setattr("classifiers.statement_index.bisect_left", slow)
    assert index.untold("Mar", {"oria@1"}) == 0
    adding.join()
    assert index.untold("Abb", {"other@1"}) == 0


def test_what_is_known_by_name_only_states_nothing():
    with indexed(Profile("bare@1", "Maren Oddly", forget_examples=(("Who is Maren Oddly?", None),))) as index:
        assert index.stating(["bare@1"]) == frozenset()
