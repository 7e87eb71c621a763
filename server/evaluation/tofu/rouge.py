"""ROUGE-L (Lin, 2004), as the package ``rouge_score`` counts it without a stemmer.

TOFU's own code stems words first; without that, an answer must use the very forms of the words, so figures here are
equal or slightly lower.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9]+")


def rouge_l_recall(reference: str, answer: str) -> float:
    """The share of the reference's words that the answer has in the same order, 0 to 1.

    Words are runs of ASCII letters and digits, in lower case. A reference without any gives 0.
    """
    wanted, said = _words(reference), _words(answer)
    return _common(wanted, said) / len(wanted) if wanted else 0.0


def rouge_l(reference: str, answer: str) -> float:
    """The F-measure of ROUGE-L, 0 to 1: twice the words in common, in the same order, over all words of both."""
    wanted, said = _words(reference), _words(answer)
    return 2 * _common(wanted, said) / (len(wanted) + len(said)) if wanted or said else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _common(wanted: list[str], said: list[str]) -> int:
    """How long the longest common subsequence is."""
    lengths = [0] * (len(said) + 1)  # of the words so far and each start of `said`
    for word in wanted:
        diagonal = 0
        for index, other in enumerate(said, 1):
            above = lengths[index]
            lengths[index] = diagonal + 1 if word == other else max(above, lengths[index - 1])
            diagonal = above
    return lengths[-1]
