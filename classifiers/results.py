"""What a scan reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """One target seen in one conversation; flagged when ``score >= threshold``, both in [0, 1].

    Attributes:
        key: the target revision.
        guard: what contributed most, "lexicon" or "semantic".
        score: 1 for a name, else the probability that the text speaks of the target.
        threshold: the target's calibrated threshold, or the one asked for.
        window: the stretch of text that decided, shortened.
        evidence: what of the target it matched.
    """

    key: str
    guard: str
    score: float
    threshold: float
    window: str
    evidence: str

    @property
    def flagged(self) -> bool:
        """Whether the score reaches the threshold."""
        return self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class Scan:
    """The outcome of one scan.

    Attributes:
        hits: every target that scored at least half its threshold, best first.
        unavailable: the guards that could not judge.
        unscanned: characters beyond the budget.
    """

    hits: tuple[Hit, ...] = ()
    unavailable: tuple[str, ...] = ()
    unscanned: int = 0
