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

    Where all are 0 or all are 1 there is nothing to resample: the other end is then what as many
    samples may have missed.
    """
    if set(scores) == {0.0}:
        return Mean(0.0, 0.0, unseen(len(scores)), len(scores))
    if set(scores) == {1.0}:
        return Mean(1.0, 1 - unseen(len(scores)), 1.0, len(scores))
    return _interval(float(np.mean(scores)), resampled(scores), len(scores))


def mean_difference(ours: Sequence[float], theirs: Sequence[float]) -> Mean:
    """The mean of ours - theirs over the same samples, one by one.

    Where all differ by the same, samples that differ otherwise may have been missed.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    n = len(differences)
    if len(set(differences)) == 1 and differences[0] in (-1.0, 0.0, 1.0):
        (same,) = set(differences)
        return Mean(same, max(-1.0, same - unseen(n)), min(1.0, same + unseen(n)), n)
    return _interval(float(np.mean(differences)), resampled(differences), n)


def mean_of_means(groups: Sequence[Sequence[float]]) -> Mean:
    """The mean over tasks of each task's mean; samples are drawn within their task."""
    scores = [score for group in groups for score in group]
    if len(set(scores)) == 1:
        return mean_score(scores)
    mean = float(np.mean([np.mean(group) for group in groups]))
    draws = np.mean([resampled(group, seed=i) for i, group in enumerate(groups)], axis=0)
    return _interval(mean, draws, len(scores))


def unseen(n: int) -> float:
    """The largest share of what `n` samples never showed (Clopper and Pearson 1934), two-sided."""
    return float(1 - ((1 - LEVEL) / 2) ** (1 / n))


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
