"""From raw rows to the figures of a method."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from guard.compile import fluency
from server.evaluation.metrics import entities, forgetting_rate, retention_rate
from server.evaluation.tofu import metrics
from server.evaluation.tofu.data import Question
from server.evaluation.tofu.methods import REFUSAL
from server.evaluation.tofu.metrics import Array
from server.evaluation.tofu.rouge import rouge_l_recall
from server.evaluation.tofu.rows import Ask, Rows

Parts = Mapping[str, Sequence[Question]]

#: The parts whose nine figures make up model utility.
KEPT = ("retain", "real_authors", "world_facts")


def asks(parts: Parts) -> list[Ask]:
    """Everything that has to be measured of a method."""
    wanted: list[Ask] = []
    for row in (row for rows in parts.values() for row in rows):
        wanted.append((row.question, None))
        wanted += [(row.question, answer) for answer in (row.answer, row.paraphrase, *row.perturbed)]
    return wanted


def fluency_asks(parts: Parts, judge: Rows, measured: Iterable[Rows]) -> list[Ask]:
    """What the untouched model has to be asked to tell how fluent the answers on the forget rows are.

    Args:
        parts: the questions, by part.
        judge: what was measured of the untouched model; its own answers calibrate it.
        measured: whose answers are judged. Empty ones and those that were not measured yet are left out.
    """
    pairs = [_misplaced(parts, judge, mixed=True), *(_misplaced(parts, rows) for rows in measured)]
    return [pair for some in pairs for pair in some if pair[1]]


def plausibility_bar(parts: Parts, judge: Rows) -> float:
    """:func:`guard.compile.fluency.plausibility_bar` of the untouched model, whose rows ``judge`` are."""
    own, mixed = (_plausibility(judge, _misplaced(parts, judge, mixed=mixed)) for mixed in (False, True))
    return fluency.plausibility_bar(own, mixed)


def ratios(rows: Rows, questions: Sequence[Question]) -> Array:
    """The truth ratio of each question: ``(n,)``."""
    return metrics.truth_ratios(_paraphrase_nll(rows, questions), _perturbed_nll(rows, questions))


def figures(parts: Parts, rows: Rows, reference: Rows, judge: Rows) -> dict[str, float]:
    """The figures of a method, all from 0 to 1 but for the deviation score (0 to 141, less is better).

    ``kfr`` and ``krr`` are ReLearn's rates (:mod:`server.evaluation.metrics`) on the forget and the retain part, if any
    answer names something that its question does not.

    Args:
        parts: the questions, by part.
        rows: what was measured of the method.
        reference: what was measured of the model that never learnt the forget rows.
        judge: what was measured of the untouched model, :func:`fluency_asks` about ``rows`` included.
    """
    forget = parts["forget"]
    kept = {name: value for part in KEPT for name, value in _kept(part, rows, parts[part]).items()}
    forget_rouge = _rouge(rows, forget)
    own = ratios(rows, forget)
    said = [rows.said[row.question] for row in forget]
    plausibility = _plausibility(judge, _misplaced(parts, rows))
    relearn = {
        "kfr": forgetting_rate(_entities(rows, forget)),
        "krr": retention_rate(_entities(rows, parts["retain"])),
    }
    return {
        "forget_quality": metrics.forget_quality(own, ratios(reference, forget)),
        "forget_rouge": forget_rouge,
        "retain_rouge": kept["retain_rouge"],
        "model_utility": metrics.model_utility(list(kept.values())),
        "deviation_score": metrics.deviation_score(forget_rouge, kept["retain_rouge"]),
        "fluency": fluency.fluency(said, plausibility, plausibility_bar(parts, judge), REFUSAL),
        "forget_probability": metrics.probability(_answer_nll(rows, forget)),
        "forget_truth_ratio": metrics.indifference(own),
        **{name: rate for name, rate in relearn.items() if rate is not None},
        **kept,
    }


def differences(
    found: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]]
) -> dict[str, tuple[str, float]]:
    """Of each method in both of two runs, the figure that differs most and by how much.

    The deviation score is taken in hundredths, as the other figures are. Forget quality, which runs over hundreds of
    powers of ten, is left out; it is a test of the truth ratios, whose mean is among the figures.
    """
    worst = {}
    for method in sorted(found.keys() & other.keys()):
        apart = {
            name: abs(found[method][name] - other[method][name]) / (100 if name == "deviation_score" else 1)
            for name in found[method].keys() & other[method].keys() - {"forget_quality"}
        }
        name = max(apart, key=lambda name: apart[name])
        worst[method] = (name, apart[name])
    return worst


def _kept(part: str, rows: Rows, questions: Sequence[Question]) -> dict[str, float]:
    answer_nll = _answer_nll(rows, questions)
    if part == "retain":
        probability = metrics.probability(answer_nll)
    else:
        probability = metrics.choice_probability(answer_nll, _perturbed_nll(rows, questions))
    return {
        f"{part}_rouge": _rouge(rows, questions),
        f"{part}_probability": probability,
        f"{part}_truth_ratio": metrics.truthfulness(ratios(rows, questions)),
    }


def _rouge(rows: Rows, questions: Sequence[Question]) -> float:
    return float(np.mean([rouge_l_recall(row.answer, rows.said[row.question]) for row in questions]))


def _entities(rows: Rows, questions: Sequence[Question]) -> list[tuple[Collection[str], str]]:
    """What the right answer to each question names, and what was said."""
    return [(entities(row.question, row.answer), rows.said[row.question]) for row in questions]


def _answer_nll(rows: Rows, questions: Sequence[Question]) -> Array:
    return np.array([rows.nll[row.question, row.answer] for row in questions])


def _paraphrase_nll(rows: Rows, questions: Sequence[Question]) -> Array:
    return np.array([rows.nll[row.question, row.paraphrase] for row in questions])


def _perturbed_nll(rows: Rows, questions: Sequence[Question]) -> Array:
    return np.array([[rows.nll[row.question, answer] for answer in row.perturbed] for row in questions])


def _misplaced(parts: Parts, rows: Rows, *, mixed: bool = False) -> list[tuple[str, str]]:
    """Each answer on the forget rows behind a question that it does not answer; "" where nothing was said.

    Args:
        parts: the questions, by part.
        rows: whose answers.
        mixed: with their words shuffled.
    """
    other = [row.question for row in parts["retain"]]
    said = [rows.said.get(row.question, "") for row in parts["forget"]]
    if mixed:
        said = [fluency.shuffled(answer) for answer in said]
    return [(other[number % len(other)], answer) for number, answer in enumerate(said)]


def _plausibility(judge: Rows, pairs: Sequence[tuple[str, str]]) -> Array:
    """Mean negative log-probability per token of each answer under the untouched model; infinite for an empty one."""
    return np.array([judge.nll[pair] if pair[1] else np.inf for pair in pairs])
