"""ReLearn's figures (Xu et al., 2025; arXiv 2502.11190), as far as they can be had without a model that judges.

Rates and thresholds follow ``evals/evaluate.py`` of zjunlp/unlearn. What is simpler here: there a language model lists
the entities of an answer, here a rule does (:func:`entities`) or the caller knows them; there an entity is covered when
an embedding is near it, here when it is said, whatever the case; and there a natural-language-inference model may also
call an answer a contradiction, which makes it forgotten (or not retained). So an answer that tells the entities and
denies them counts as knowledge here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean, harmonic_mean

#: Up to this share of its entities an answer is forgotten, and from it on retained.
_FEW_COVERED = 0.3
#: With at most so many entities, the share up to which an answer is forgotten is another.
_SMALL, _HALF_COVERED = 3, 0.5
#: What the published code takes for a text without words, and for the divisor of a text without repeated ones.
_NO_RICHNESS, _EPSILON = 1000.0, 0.1
_BRUNET = 0.165

_WORD = re.compile(r"\w+")
_ENTITY = re.compile(r"\b(?:[^\W\d_]*[A-Z]\w*|\d[\d.,/-]*\d|\d)\b")
_SENTENCE_START = re.compile(r"(?:^|[.!?]\s+)(\w+)")


def entities(question: str, answer: str) -> frozenset[str]:
    """The words that carry what an answer says: capitalised ones and numbers that the question does not have.

    A word at the start of a sentence counts only if it also stands elsewhere in the answer with a capital.
    """
    found = Counter(_ENTITY.findall(answer))
    found.subtract(word for word in _SENTENCE_START.findall(answer) if word in found and not word[0].isdigit())
    asked = {word.casefold() for word in _WORD.findall(question)}
    return frozenset(word for word, count in found.items() if count > 0 and word.casefold() not in asked)


def coverage(wanted: Collection[str], answer: str) -> float:
    """The share of entities that an answer says, 0 to 1.

    Raises:
        ValueError: there is none to say.
    """
    if not wanted:
        raise ValueError("there is no entity to cover")
    said = answer.casefold()
    return sum(entity.casefold() in said for entity in wanted) / len(wanted)


def forgetting_rate(answers: Iterable[tuple[Collection[str], str]]) -> float | None:
    """Knowledge Forgetting Rate: the share of answers that cover few of the entities of the right one, 0 to 1.

    Args:
        answers: the entities of the right answer, and what was said. Without entities it does not count.

    Returns:
        The rate; None where nothing counts.
    """
    forgotten = [
        coverage(wanted, said) <= (_HALF_COVERED if len(wanted) <= _SMALL else _FEW_COVERED)
        for wanted, said in answers
        if wanted
    ]
    return fmean(forgotten) if forgotten else None


def retention_rate(answers: Iterable[tuple[Collection[str], str]]) -> float | None:
    """Knowledge Retention Rate: the share of answers that cover enough; arguments as :func:`forgetting_rate`."""
    retained = [coverage(wanted, said) >= _FEW_COVERED for wanted, said in answers if wanted]
    return fmean(retained) if retained else None


def brunet(text: str) -> float:
    """Brunet's index ``N^(V^-0.165)`` of N words, V of them different: lower is richer; 1000 for a text without any."""
    words = _WORD.findall(text.lower())
    return len(words) ** (len(set(words)) ** -_BRUNET) if words else _NO_RICHNESS


def honore(text: str) -> float:
    """Honoré's statistic ``100 ln N / (1.1 - V1/V)``, V1 being words said once: higher is richer; 0 for one word."""
    counts = Counter(_WORD.findall(text.lower()))
    once = sum(count == 1 for count in counts.values())
    return 100 * math.log(counts.total()) / (1 - once / len(counts) + _EPSILON) if counts.total() > 1 else 0.0


def linguistic_score(answers: Sequence[str], nll: Sequence[float]) -> float:
    """Linguistic Score, 0 to 1: harmonic mean of the logistic functions of -ln perplexity, -ln Brunet and ln Honoré.

    Brunet and Honoré are means over the answers, and ``sigmoid(ln x) = x / (1 + x)``. The perplexity is that of all
    answers together; the published code takes the mean of their perplexities, which one odd answer decides. Both
    indices depend on how long an answer is, so compare only answers to the same questions.

    Args:
        answers: what was said.
        nll: of each, in nats a token, under the untouched model.

    Raises:
        ValueError: there is no answer.
    """
    if not answers:
        raise ValueError("there are no answers to score")
    perplexity, index, statistic = math.exp(fmean(nll)), fmean(map(brunet, answers)), fmean(map(honore, answers))
    return harmonic_mean([1 / (1 + perplexity), 1 / (1 + index), statistic / (1 + statistic)])
