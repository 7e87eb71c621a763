"""The dynamic rule: a request is about a target when its tokens say so on average.

In the paper (Dynamic SAE Guardrails, arXiv 2504.08192) a token says 1 if one of the target's features is active and
else 0, and the mean is the share of such tokens, computed once over a sequence of 1024. A token may also say more
or less, see :mod:`sae_features.weighing`. A served request arrives in chunks and goes on token by token, most are far
shorter, and the mean of 12 tokens varies much more than one of 1024; so here the sums run along (:class:`Tally`) and
the threshold depends on how many tokens have been read (:class:`Thresholds`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sae_features.conformal import enough, quantile

#: Token counts at which another threshold begins, while there is enough benign text for each.
EDGES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Tally:
    """The running sum of one request for one target. A value: ``add`` returns the next one.

    The first token of a request is not counted: nearly every feature fires there (the paper zeroes it).

    Attributes:
        total: what the counted tokens said, summed.
        tokens: counted tokens.
        position: of the first token that was not offered yet.
    """

    total: float = 0.0
    tokens: int = 0
    position: int = 0

    def add(self, says: np.ndarray | Sequence[float], start: int) -> Tally:
        """Read the next chunk.

        Args:
            says: of each token of the chunk, whether a feature is active, or its score.
            start: the position in the request of the first of them. Tokens offered before are not counted again (an
                engine that preempted a request computes it anew); tokens that were skipped are not counted at all (a
                hit of the prefix cache), see :attr:`unseen`. Offer no drafted tokens before they are accepted.
        """
        skip = max(self.position, 1) - start
        fresh = np.asarray(says, dtype=np.float64)[max(0, skip) :]
        end = max(self.position, start + len(says))
        return Tally(self.total + float(fresh.sum()), self.tokens + len(fresh), end)

    @property
    def mean(self) -> float:
        """What a counted token said on average; with flags, the share of those that have an active feature."""
        return self.total / self.tokens if self.tokens else 0.0

    @property
    def unseen(self) -> int:
        """How many tokens the request has passed without them being counted, its first one aside."""
        return max(0, self.position - 1) - self.tokens


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which mean on a request is flagged, by how many tokens were counted.

    Attributes:
        edges: ascending; bucket ``i`` ends before ``edges[i]`` counted tokens, the last one is open.
        means: one more than ``edges``; a mean must lie *above* that of its bucket.
        rate: the share of benign requests that may be flagged in a bucket.
    """

    edges: tuple[int, ...]
    means: tuple[float, ...]
    rate: float

    def at(self, tokens: int) -> float:
        """The threshold for a request of so many counted tokens."""
        return self.means[int(np.searchsorted(self.edges, tokens, side="right"))]

    def exceeded(self, tally: Tally) -> bool:
        """Whether a request is about the target, as far as it was read."""
        return tally.tokens > 0 and tally.mean > self.at(tally.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class BenignRun:
    """What the tokens of one benign request said.

    Attributes:
        says: of every token from the first on, whether a feature is active, or its score; the answer's tokens follow
            the prompt's.
        prompt: how many tokens the prompt has. The rule is asked at its end and after every further token.
    """

    says: np.ndarray
    prompt: int


def calibrate(runs: Iterable[BenignRun], rate: float, edges: Sequence[int] = EDGES) -> Thresholds:
    """Thresholds that flag a benign request with probability at most ``rate``, by split conformal prediction.

    The score of a run in a bucket is the largest running mean that the rule would see while the run is in the bucket,
    so that asking again after every token costs no further false alarms there. Each bucket has the conformal quantile
    of the runs that pass through it (Mondrian conformal prediction; Vovk et al., 2005, section 4.5). A request that
    grows through ``b`` buckets is flagged with probability at most ``b * rate``.

    Args:
        runs: ordinary requests on which the features were *not* selected; else the threshold is too low.
        rate: accepted share of false alarms.
        edges: where buckets may begin. One that too few runs pass through for the rate is joined to the one before
            it, the first to the one after it.

    Raises:
        ValueError: there are too few runs for the rate even in one bucket.
    """
    largest = [_largest_means(run, edges) for run in runs]
    buckets: list[list[int]] = []
    for bucket in range(len(edges) + 1):
        first_is_short = len(buckets) == 1 and not enough(len(_scores(largest, buckets[0])), rate)
        if buckets and (first_is_short or not enough(len(_scores(largest, [bucket])), rate)):
            buckets[-1].append(bucket)
        else:
            buckets.append([bucket])
    return Thresholds(
        edges=tuple(edges[bucket[0] - 1] for bucket in buckets[1:]),
        means=tuple(quantile(_scores(largest, bucket), rate) for bucket in buckets),
        rate=rate,
    )


def _largest_means(run: BenignRun, edges: Sequence[int]) -> dict[int, float]:
    """By bucket, the largest running mean that the rule would see in it."""
    counted = np.asarray(run.says, dtype=np.float64)[1:]
    tokens = np.arange(1, len(counted) + 1)
    seen = tokens >= run.prompt - 1
    running = (np.cumsum(counted) / tokens)[seen]
    buckets = np.searchsorted(edges, tokens[seen], side="right")
    return {int(bucket): float(running[buckets == bucket].max()) for bucket in np.unique(buckets)}


def _scores(largest: list[dict[int, float]], buckets: list[int]) -> list[float]:
    """The scores of the runs that pass through any of some buckets."""
    passing = ([run[bucket] for bucket in buckets if bucket in run] for run in largest)
    return [max(scores) for scores in passing if scores]
