"""Windows cover everything within the budget, and what lies beyond is counted."""

from classifiers.windows import MAX_CHARS, MAX_WORDS, newest, split


def test_neighbouring_sentences_share_a_window_and_are_judged_alone_too() -> None:
    (window,) = split(["Who wrote it, do you know? The one about the clown in the drain."])
    assert window.passages == (
        window.text,
        "Who wrote it, do you know?",
        "The one about the clown in the drain.",
    )


def test_a_long_text_is_cut_with_overlap_and_nothing_is_lost() -> None:
    words = [f"word{number}" for number in range(1_000)]
    windows = split([" ".join(words)])
    assert {word for window in windows for word in window.text.split()} == set(words)
    assert all(len(window.text.split()) <= MAX_WORDS and len(window.text) <= MAX_CHARS for window in windows)


def test_a_word_without_end_is_cut_too() -> None:
    windows = split(["x" * 5_000])
    assert all(len(window.text) <= MAX_CHARS for window in windows)
    assert len(windows) >= 1


def test_the_newest_text_goes_first_and_the_rest_is_counted() -> None:
    texts, unscanned = newest(["old " * 100, "older " * 10 + "new " * 25], 100)
    assert texts == ["new " * 25]
    assert unscanned == 460
    assert newest(["one", "two"], 100) == (["one", "two"], 0)
