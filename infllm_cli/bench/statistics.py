"""How sure a mean over samples is: bootstrap intervals (Efron 1979), seeded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Mean:
    """A mean over `n` samples, with the interval that holds it with 95% confidence."""

    mean: float
    low: float
    high: float
    n: int


def mean_score(scores: Sequence[float]) -> Mean:
    """The mean of scores from 0 to 1; never of none.

    Where all are 0 or all are 1 there is nothing to resample: the bound is then the exact one for
    a share (Clopper and Pearson 1934), as wide as few samples deserve.
    """
    n = len(scores)
    if set(scores) == {0.0}:
        return Mean(0.0, 0.0, 1 - ((1 - LEVEL) / 2) ** (1 / n), n)
    if set(scores) == {1.0}:
        return Mean(1.0, ((1 - LEVEL) / 2) ** (1 / n), 1.0, n)
    return _interval(float(np.mean(scores)), resampled(scores), n)


def mean_difference(ours: Sequence[float], theirs: Sequence[float]) -> Mean:
    """The mean of ours - theirs over the same samples, one by one."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return _interval(float(np.mean(differences)), resampled(differences), len(differences))


def mean_of_means(groups: Sequence[Sequence[float]]) -> Mean:
    """The mean over tasks of each task's mean; samples are drawn within their task."""
    mean = float(np.mean([np.mean(scores) for scores in groups]))
    draws = np.mean([resampled(scores, seed=i) for i, scores in enumerate(groups)], axis=0)
    return _interval(mean, draws, sum(map(len, groups)))


def resampled(values: Sequence[float], seed: int = SEED) -> np.ndarray:
    """Means of as many values drawn with replacement, float64 [RESAMPLES].

    How often each distinct value is drawn is multinomial, which for scores of right and wrong
    is far faster than drawing one by one, and the same.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), counts / len(values), size=RESAMPLES)
    return drawn @ distinct / len(values)


def _interval(mean: float, draws: np.ndarray, n: int) -> Mean:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    # Equal scores leave the three apart by rounding.
    return Mean(mean, min(float(low), mean), max(float(high), mean), n)
