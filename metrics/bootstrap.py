"""Confidence intervals of both kinds of metrics: the percentile bootstrap, seeded.

A resample draws as many units (images, persons or queries) as there are, with replacement. Instead
of repeating rows, each row counts as often as it was drawn: every metric is made of sums over rows,
and the sums of many resamples are one matrix product.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

BLOCK_CELLS = 2**22  # counts held at once: 32 MB

RECOGNITION_MEANS = (
    "mean_accuracy",
    "instance_accuracy",
    "instance_precision",
    "instance_recall",
    "instance_f1",
)


@dataclass(frozen=True)
class Bootstrap:
    """How resamples are drawn and how wide the interval is.

    level: share of the resamples inside the interval; as much is left out below as above.
    """

    num_draws: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self):
        if self.num_draws < 1:
            raise ValueError(f"`num_draws` must be at least 1, got {self.num_draws}.")
        if not 0 < self.level < 1:
            raise ValueError(f"`level` must lie between 0 and 1, got {self.level}.")

    def counts(self, num_units: int) -> Iterator[np.ndarray]:
        """Yield how often each unit was drawn: blocks (draws of this block, num_units), float64."""
        rng = np.random.default_rng(self.seed)
        block = max(1, BLOCK_CELLS // num_units)
        for start in range(0, self.num_draws, block):
            draws = range(start, min(start + block, self.num_draws))
            drawn = [np.bincount(rng.integers(num_units, size=num_units)) for _ in draws]
            yield np.stack([np.pad(row, (0, num_units - len(row))) for row in drawn]).astype(float)

    def sums(self, contributions: np.ndarray) -> np.ndarray:
        """Sum the drawn rows. Shape: (units, columns) -> (num_draws, columns)."""
        return np.concatenate([c @ contributions for c in self.counts(len(contributions))])

    def interval(self, values: np.ndarray) -> tuple[float, float]:
        """Bound the middle `level` of the resamples' values; those that are nan are left out."""
        tail = (1 - self.level) / 2
        low, high = np.quantile(values[~np.isnan(values)], [tail, 1 - tail])
        return float(low), float(high)


def recognition_intervals(
    probabilities: np.ndarray,
    labels: np.ndarray,
    threshold: float | np.ndarray = 0.5,
    groups: np.ndarray | None = None,
    bootstrap: Bootstrap | None = None,
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of `recognition_metrics` over images, or over persons.

    Args:
        probabilities, labels, threshold: as for `recognition_metrics`, and already accepted by it.
        groups: (images,), such as the person of each image: whole groups are drawn, because
            images of one person are no independent samples. None: each image is drawn alone.
        bootstrap: None: 1,000 draws, seed 0, 95 %.

    Returns:
        (low, high) of `mean_accuracy`, `instance_accuracy`, `instance_precision`,
        `instance_recall`, `instance_f1`. A resample counts as the metric counts: an attribute that
        lost its last positive image has 0 for that half, so rare attributes lower the interval.
    """
    bootstrap = bootstrap or Bootstrap()
    labels = np.asarray(labels)
    contributions = _recognition_contributions(np.asarray(probabilities), labels, threshold)
    if groups is not None:
        contributions = _sum_by_group(contributions, groups)
    means = _recognition_means(bootstrap.sums(contributions), labels.shape[1])
    return {
        name: bootstrap.interval(values)
        for name, values in zip(RECOGNITION_MEANS, means, strict=True)
    }


def _recognition_contributions(probabilities, labels, threshold):
    """What each image adds to each sum: (images, 4 attributes + 4)."""
    present, absent, predicted = labels == 1, labels == 0, probabilities > threshold
    both = (present & predicted).sum(axis=1)
    num_true, num_predicted = present.sum(axis=1), ((present | absent) & predicted).sum(axis=1)
    wholes = (num_true + num_predicted - both, num_predicted, num_true)
    shares = [both / np.maximum(whole, 1) for whole in wholes]  # 0 / 0 counts as 0
    is_counted = (present | absent).any(axis=1)
    of_labels = (present & predicted, present, absent & ~predicted, absent)
    return np.column_stack([*of_labels, *shares, is_counted]).astype(np.float64)


def _recognition_means(sums, num_attributes):
    """The five means of each resample, from its sums; each (draws,)."""
    *of_labels, of_images = np.split(sums, np.arange(1, 5) * num_attributes, axis=1)
    true_positive, positive, true_negative, negative = of_labels
    rates = true_positive / np.maximum(positive, 1) + true_negative / np.maximum(negative, 1)
    num_known = (positive + negative > 0).sum(axis=1)
    with np.errstate(invalid="ignore"):  # a resample without a known label has no mean: nan
        mean_accuracy = rates.sum(axis=1) / 2 / num_known
        accuracy, precision, recall = of_images[:, :3].T / of_images[:, 3]
    f1 = 2 * precision * recall / np.where(precision + recall == 0, 1, precision + recall)
    return mean_accuracy, accuracy, precision, recall, f1


def _sum_by_group(contributions, groups):
    """Shape: (images, columns), (images,) -> (groups, columns)."""
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    if number.shape != (len(contributions),):
        raise ValueError(f"`groups` must be ({len(contributions)},), got {number.shape}.")
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(names)))
    return np.add.reduceat(contributions[order], starts, axis=0)


def retrieval_intervals(
    per_query: Mapping[str, np.ndarray], bootstrap: Bootstrap | None = None
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of `mean_over_queries` over queries.

    Args:
        per_query: the arrays of `query_metrics`, all indexed alike where only a part is wanted.
        bootstrap: None: 1,000 draws, seed 0, 95 %.

    Returns:
        (low, high) under the names of `mean_over_queries`: `mean_average_precision`, `rank_1`, ...
        Drawn are the queries that have a relevant image, over which the means are taken.

    Raises:
        ValueError: if no query has a relevant image.
    """
    bootstrap = bootstrap or Bootstrap()
    rows = np.column_stack(list(per_query.values()))
    rows = rows[~np.isnan(rows).any(axis=1)]
    if not len(rows):
        raise ValueError("`per_query` must hold a query with a relevant image, got none.")
    means = bootstrap.sums(rows) / len(rows)
    return {
        name if name.startswith("rank_") else f"mean_{name}": bootstrap.interval(values)
        for name, values in zip(per_query, means.T, strict=True)
    }


__all__ = ["Bootstrap", "recognition_intervals", "retrieval_intervals"]
