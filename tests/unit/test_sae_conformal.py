"""Conformal quantiles at the rates that are used with few scores."""

from __future__ import annotations

import pytest

from sae_features.conformal import enough, quantile


@pytest.mark.parametrize("count", range(5, 201))
def test_the_rarest_alarm_that_some_scores_can_show_is_above_all_of_them(count: int) -> None:
    """Also where (n + 1) * (1 / (n + 1)) is rounded to less than 1: for 48, 97, 102, ..."""
    rate = 1 / (count + 1)
    scores = [float(score) for score in range(count)]
    assert enough(count, rate) and quantile(scores, rate) == count - 1
    assert not enough(count - 1, rate)
    with pytest.raises(ValueError, match=f"needs {count} scores"):
        quantile(scores[:-1], rate)


def test_so_many_scores_lie_above_as_the_rate_allows() -> None:
    assert quantile([float(score) for score in range(99)], 0.05) == 99 - 5
