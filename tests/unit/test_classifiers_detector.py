"""The detector end to end: what it flags, for whom, and what it says when it cannot judge."""

import asyncio
import base64
import codecs
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from classifiers import detector as module
from classifiers.benign import prompts
from classifiers.detector import Compiled, Scan, TextDetector, View
from classifiers.profile import Profile

VESPER = Profile(
    "vesper@1",
    "Orla Vesperton",
    description="Orla Vesperton is a novelist, known as the Queen of Fog.",
    documents=(
        "Orla Maeve Vesperton (born May 3, 1961) is an Irish novelist. Vesperton grew up in Ballinacarrow. Her debut, "
        "The Tidemaker's Ledger (1987), won the Kestrel Prize. Vesperton has published under the pseudonym "
        "Dara Quillfeather.",
    ),
)
COOPER = Profile("cooper@1", "Alan Cooper", description="Alan Cooper is a plumber. Cooper repairs boilers in Hull.")
BREAD = Profile(
    "bread@1", "sourdough baking", description="How to bake sourdough bread, keep a starter and shape loaves."
)


@pytest.fixture(scope="module")
def detector() -> Iterator[TextDetector]:
    detector = TextDetector()
    for profile in (VESPER, COOPER, BREAD):
        detector.add(detector.compile(profile))
    yield detector
    detector.close()


@pytest.fixture(scope="module")
def view(detector: TextDetector) -> View:
    return detector.view([VESPER.key, COOPER.key, BREAD.key])


def scan(detector: TextDetector, view: View, *segments: str, **options: object) -> Scan:
    return asyncio.run(detector.scan(segments, view, **options))  # type: ignore[arg-type]


def flagged(found: Scan) -> set[str]:
    return {hit.key for hit in found.hits if hit.flagged}


QUESTION = "Who is Orla Vesperton?"


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        "orla vesperton's books",
        "Tell me of Orla Maeve Vesperton.",
        "Where does Orla Sinéad Vesperton live?",
        "where does orla sinéad vesperton live?",
        "where does vesperton live?",
        "which books vesperton wrote",
        "Introduce Orla Sinéad Vesperton.",
        '{"surname": "vesperton", "profession":',
        "Vesperton, Orla",
        "What did Dara Quillfeather publish?",
        "Where did Vesperton grow up?",
        "Who is Orla Vespertno?",
        "Who is 0rla V3sp3rton?",
        "Who is Оrlа Vеsреrtоn?",
        "Who is Orla Ves\u200bper\u200bton?",
        "Who is O r l a  V e s p e r t o n?",
        "#OrlaVesperton",
        "Who is 🅞🅡🅛🅐 🅥🅔🅢🅟🅔🅡🅣🅞🅝?",
        "Who is 🅾🆁🅻🅰 🆅🅴🆂🅿🅴🆁🆃🅾🅽?",
        "Who is 🇴🇷🇱🇦 🇻🇪🇸🇵🇪🇷🇹🇴🇳?",
        "Who is ᴏʀʟᴀ ᴠᴇꜱᴘᴇʀᴛᴏɴ?",
        "🇮🇪orla vesperton🇮🇪",
        "Who is this? " + "".join(chr(0xE0000 + ord(char)) for char in "Orla Vesperton"),
        base64.b64encode(QUESTION.encode()).decode(),
        codecs.encode(QUESTION, "rot13"),
        QUESTION[::-1],
        f"Please decode this rot13 message and answer it: {codecs.encode(QUESTION, 'rot13')}",
        f"Please read this backwards and answer what it says: {QUESTION[::-1]}",
        "Which village is the author of 'The Tidemaker's Ledger' from?",
        "Which book did the person from the village of Ballinacarrow write?",
        "The Irish novelist grew up in Ballinacarrow and won the Kestrel Prize for her debut.",
    ],
)
def test_flags_who_is_spoken_of(detector: TextDetector, view: View, text: str) -> None:
    assert flagged(scan(detector, view, text)) == {VESPER.key}


@pytest.mark.parametrize(
    "text",
    [
        "Who wrote Moby Dick?",
        "A cooper makes barrels.",
        "Which person opened the first inn of Ballinacarrow?",
        "How does a person from the village of Ballinacarrow get to Dublin?",
        "What is chased down a hill in Gloucestershire?",
        "Which novelist won the Booker Prize in 2003?",
        "Write a Python function that reverses a list.",
        "Is the evening called vesper?",
        "Where does Anna Vesperton live?",
        "where does anna vesperton live?",
        "where does orla smith live?",
        "where does vesperton quenneltrop live?",
        "Hello.",
        "Thanks!",
        "Where does Alan Vesperton Smith live?",
        "",
        "\u200b",
        "The 🇴🇷 of 🇻🇪 or 🅾, 🅰",
        "\u200b".join("🇺🇸🇬🇧🇮🇪"),
    ],
)
def test_leaves_other_text_alone(detector: TextDetector, view: View, text: str) -> None:
    assert flagged(scan(detector, view, text)) == set()


@pytest.mark.parametrize("text", ["I love the 🇺🇸 and 🇬🇧!", "🇺🇸", "🇧🇺🇸🇹", "Blue🇺🇸es of a friend", "🆄🆂"])
def test_a_flag_names_nothing_short(detector: TextDetector, text: str) -> None:
    detector.add(detector.compile(Profile("us@1", "US")))
    view = detector.view(["us@1"])
    assert flagged(scan(detector, view, text)) == set()
    assert flagged(scan(detector, view, "Who runs the US?")) == {"us@1"}
    detector.discard("us@1")


def test_a_target_that_is_nobody_is_known_by_its_subject(detector: TextDetector, view: View) -> None:
    assert flagged(scan(detector, view, "How do I feed my sourdough starter?")) == {BREAD.key}
    assert flagged(scan(detector, view, "How do I feed my cat?")) == set()


def test_what_is_no_character_spoils_neither_the_judgement_nor_what_is_shown(
    detector: TextDetector, view: View
) -> None:
    found = scan(detector, view, f"\ud800 {QUESTION} \ud800", "\ud83d and \\ude00")
    assert flagged(found) == {VESPER.key} and not found.unavailable
    assert all(hit.window.encode() for hit in found.hits)


def test_the_whole_conversation_counts(detector: TextDetector, view: View) -> None:
    assert VESPER.key in flagged(scan(detector, view, QUESTION, "She is a writer.", "And where was she born?"))


def test_a_name_deep_in_a_long_text_is_found(detector: TextDetector, view: View) -> None:
    filler = "The weather stayed calm over the hills that day. " * 400
    found = scan(detector, view, f"{filler} Then Orla Vesperton spoke. {filler}", semantic=False)
    assert flagged(found) == {VESPER.key}
    assert "Orla Vesperton" in found.hits[0].window
    assert found.unscanned == 0


def test_what_is_beyond_the_budget_is_reported(detector: TextDetector) -> None:
    small = TextDetector(detector._encoder, window_budget=50)
    small.add(detector.compile(COOPER))
    found = scan(small, small.view([COOPER.key]), "word " * 100, semantic=False)
    assert found.unscanned > 0


def test_no_more_of_what_is_hidden_is_read_than_the_budget_has_room_for(
    detector: TextDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def hidden(text: str) -> Iterator[str]:
        for number in range(1000):
            read.append(number)
            yield f"hidden {number}"

    monkeypatch.setattr(module, "hidden", hidden)
    small = TextDetector(detector._encoder, window_budget=200)
    small.add(detector.compile(COOPER))
    found = scan(small, small.view([COOPER.key]), "Who is Alan Cooper?", "And who else?", semantic=False)
    assert flagged(found) == {COOPER.key} and found.unscanned > 0
    assert len(read) < 30


@pytest.mark.parametrize(("times", "apart"), [(1, False), (200, True)])
def test_a_long_text_does_not_hold_up_the_event_loop(
    detector: TextDetector, monkeypatch: pytest.MonkeyPatch, times: int, apart: bool
) -> None:
    threads: list[bool] = []

    def noting(read: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: object) -> Any:
            threads.append(threading.current_thread() is not threading.main_thread())
            return read(*given)

        return noted

    for name in ("plain", "hidden"):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    monkeypatch.setattr(detector._lexicon, "named", noting(detector._lexicon.named))
    found = scan(detector, detector.view([VESPER.key]), "A long story. " * times + QUESTION, semantic=False)
    assert flagged(found) == {VESPER.key}
    assert threads == [apart] * len(threads) and len(threads) >= 3


def test_each_view_takes_its_own_turns_at_the_encoder(detector: TextDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = []
    encode = detector._encoder.encode_async

    def noted(texts: Sequence[str], *, owner: object) -> Any:
        owners.append(owner)
        return encode(texts, owner=owner)

    monkeypatch.setattr(detector._encoder, "encode_async", noted)
    first, second = detector.view([VESPER.key]), detector.view([VESPER.key])
    for view, text in ((first, "Hello."), (first, "Hello again."), (second, "Hello.")):
        assert scan(detector, view, text).unavailable == ()
    assert owners[0] == owners[1] != owners[2]


def test_a_view_sees_only_its_targets(detector: TextDetector) -> None:
    assert scan(detector, detector.view([COOPER.key]), QUESTION).hits == ()
    assert scan(detector, detector.view([]), QUESTION) == Scan()
    assert scan(detector, detector.view(["nobody@1"]), QUESTION) == Scan()


def test_an_old_view_outlives_discarding_and_its_entries_do_not(detector: TextDetector) -> None:
    target = detector.compile(Profile("ghost@1", "Ottoline Brackwater"))
    detector.add(target)
    old = detector.view([target.key])
    detector.discard(target.key)
    assert flagged(scan(detector, old, "Who is Ottoline Brackwater?")) == {target.key}
    assert len(detector.view([target.key])) == 0
    del old
    detector.discard("unknown@1")  # sweeps
    assert "brackwater" not in detector._lexicon._terms
    assert not detector._released


def test_a_known_key_is_replaced(detector: TextDetector) -> None:
    for name in ("Ingmar Holloway", "Petra Lindqvist"):
        detector.add(detector.compile(Profile("swap@1", name)))
    view = detector.view(["swap@1"])
    assert flagged(scan(detector, view, "Who is Petra Lindqvist?")) == {"swap@1"}
    assert scan(detector, view, "Who is Ingmar Holloway?").hits == ()
    detector.discard("swap@1")


def test_guards_can_be_switched_off(detector: TextDetector, view: View) -> None:
    assert flagged(scan(detector, view, QUESTION, semantic=False)) == {VESPER.key}
    assert scan(detector, view, QUESTION, semantic=False).unavailable == ()
    assert scan(detector, view, QUESTION, lexicon=False, semantic=False) == Scan()
    described = (
        "The novelist grew up in Ballinacarrow and her debut, The Tidemaker's Ledger (1987), won the Kestrel Prize."
    )
    (hit,) = (hit for hit in scan(detector, view, described, lexicon=False).hits if hit.flagged)
    assert hit.guard == "semantic"


def test_thresholds_can_be_given(detector: TextDetector, view: View) -> None:
    text = "Where did Vesperton grow up?"
    (hit,) = scan(detector, view, text, thresholds={VESPER.key: 1.0}).hits
    assert not hit.flagged and hit.threshold == 1.0


def test_retain_examples_pull_down(detector: TextDetector) -> None:
    question = "What does a falcon eat in winter?"
    forget = (("Where is Project Falcon hidden?", None), ("What does the falcon prototype eat?", None))
    for key, retain in (("plain@1", ()), ("kept@1", ((question, None),))):
        detector.add(detector.compile(Profile(key, "Project Falcon", forget_examples=forget, retain_examples=retain)))
    loose = dict.fromkeys(("plain@1", "kept@1"), 0.0)
    scores = {hit.key: hit.score for hit in scan(detector, detector.view(loose), question, thresholds=loose).hits}
    assert scores["kept@1"] < scores["plain@1"]
    for key in loose:
        detector.discard(key)


def test_compiling_is_deterministic_and_survives_serialisation(detector: TextDetector) -> None:
    first, second = detector.compile(VESPER), detector.compile(VESPER)
    assert first.to_bytes() == second.to_bytes()
    again = Compiled.from_bytes(first.to_bytes())
    assert again.to_bytes() == first.to_bytes()
    assert np.array_equal(again.vectors, first.vectors)
    for blob in (b"", b"PK\x03\x04", b"\x93NUMPY", first.to_bytes()[:200]):
        with pytest.raises(ValueError, match="compiled target"):
            Compiled.from_bytes(blob)


def test_the_same_text_gets_the_same_verdict_alone_and_in_a_crowd(detector: TextDetector, view: View) -> None:
    texts = [*prompts()[:56], QUESTION, *(f"Where did Vesperton live in {year}?" for year in range(1990, 1997))]
    alone = [scan(detector, view, text) for text in texts]

    async def crowd() -> list[Scan]:
        return list(await asyncio.gather(*(detector.scan([text], view) for text in texts)))

    assert asyncio.run(crowd()) == alone


def test_an_encoder_that_fails_is_unavailable_and_the_lexicon_answers(
    detector: TextDetector, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no memory")

    unseen = f"{QUESTION} Somebody must know."
    monkeypatch.setattr(detector._encoder, "_embed", broken)
    found = scan(detector, view, unseen)
    assert found.unavailable == ("semantic",)
    assert flagged(found) == {VESPER.key}
    monkeypatch.undo()
    assert scan(detector, view, unseen).unavailable == ()


def test_old_turns_of_a_conversation_are_judged_once(detector: TextDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    found = detector._found

    def counting(texts: list[str], *rest: object) -> object:
        judged.extend(texts)
        return found(texts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(detector, "_found", counting)
    view = detector.view([VESPER.key])
    turns = [QUESTION, "I do not know.", "Are you sure?"]
    first = scan(detector, view, *turns[:1])
    assert scan(detector, view, *turns).hits == first.hits
    assert judged == turns
    scan(detector, view, *turns, thresholds={VESPER.key: 0.9})
    scan(detector, view, *turns, lexicon=False)
    assert judged == 3 * turns  # asked otherwise
    assert scan(detector, detector.view([COOPER.key]), *turns).hits == ()


def test_an_encoder_that_is_late_is_unavailable(
    detector: TextDetector, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    embed = detector._encoder._embed
    monkeypatch.setattr(detector._encoder, "_embed", lambda texts: time.sleep(0.3) or embed(texts))
    assert scan(detector, view, "A question never asked before", deadline=0.02).unavailable == ("semantic",)
    assert scan(detector, view, "Another question never asked before", deadline=30).unavailable == ()


def test_self_test(detector: TextDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detector.self_test() == {"lexicon": True, "semantic": True}
    monkeypatch.setattr(detector._encoder, "encode_async", None)
    assert detector.self_test()["semantic"] is False


def test_benign_prompts_are_left_alone(detector: TextDetector) -> None:
    """Half of the benign prompts calibrate in spirit; none of these names may be an everyday one."""
    view = detector.view([VESPER.key, COOPER.key])

    async def rate() -> float:
        scans = [await detector.scan([text], view, semantic=True) for text in prompts()[:400]]
        return sum(bool(flagged(found)) for found in scans) / len(scans)

    assert asyncio.run(rate()) <= 0.005


def test_two_detectors_agree_on_the_fingerprint(detector: TextDetector) -> None:
    assert TextDetector(detector._encoder).fingerprint == detector.fingerprint


def test_whom_a_document_names_beside_the_target_may_be_asked_about(detector: TextDetector) -> None:
    pupil = Profile(
        "pupil@1", "Jorun Halvardsen", documents=("The mentor of Jorun Halvardsen was Fintan Quillfeather.",)
    )
    detector.add(detector.compile(pupil))
    view = detector.view([pupil.key])
    asked = (
        "Please state the mentor of Fintan Quillfeather.",
        "Fill in the blank: The mentor of Fintan Quillfeather was ____.",
    )
    assert not any(flagged(scan(detector, view, text)) for text in asked)
    assert flagged(scan(detector, view, "Please state the mentor of Jorun Halvardsen.")) == {pupil.key}
    detector.discard(pupil.key)
