"""Thresholds chosen on data, and how far probabilities can be taken at their word.

Choose thresholds on a split that is not the one reported: on the same they flatter.
"""

import numpy as np

CRITERIA = ("balanced_accuracy", "f1")
NUM_BINS = 10  # of equal width in [0, 1]


def calibrated_thresholds(
    probabilities: np.ndarray, labels: np.ndarray, criterion: str = "balanced_accuracy"
) -> np.ndarray:
    """Choose the best threshold of each attribute, over all that decide differently.

    Between two neighbouring probabilities all thresholds decide alike; of them 0.5 is taken where
    it is one, else the middle. Of equally good decisions the threshold nearest to 0.5 is taken, and
    of two equally near the lower one.

    Args:
        probabilities: (images, attributes), in [0, 1].
        labels: (images, attributes) of 1, 0 and -100; what is unknown has no influence.
        criterion: "balanced_accuracy": (TP / positives + TN / negatives) / 2; "f1": 2 TP / (2 TP +
            FP + FN) of the attribute. The largest is wanted.

    Returns:
        (attributes,) in [0, 1); a probability strictly above it predicts the attribute. 0.5 for an
        attribute without a positive or without a negative label.

    Raises:
        ValueError: for another criterion, shapes that differ, or numbers outside [0, 1].

    >>> calibrated_thresholds([[0.1], [0.2], [0.4]], [[0], [1], [1]]).round(3).tolist()
    [0.15]
    """
    probabilities, labels = _checked(probabilities, labels)
    if criterion not in CRITERIA:
        raise ValueError(f"`criterion` must be one of {CRITERIA}, got {criterion!r}.")
    known = np.where(labels >= 0, probabilities, np.nan)
    order = np.argsort(known, axis=0)  # ascending, unknown last
    ordered = np.take_along_axis(known, order, axis=0)
    ranked = np.take_along_axis(labels, order, axis=0)
    thresholds, decides = _cuts(ordered)
    scores = _scores(_counts_below(ranked == 1), _counts_below(ranked == 0), criterion)
    scores = np.where(decides, scores, -1)
    distance = np.where(scores == scores.max(axis=0), np.abs(thresholds - 0.5), np.inf)
    best = np.take_along_axis(thresholds, distance.argmin(axis=0)[None], axis=0)[0]
    has_both = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return np.where(has_both, best, 0.5)


def _cuts(ordered):
    """One threshold below the first, after each of the ordered probabilities, and if it decides.

    Shape: (images, attributes) -> two of (images + 1, attributes). None decides between equal
    probabilities, below 0, above 1, or after an unknown one.
    """
    lower = np.concatenate([np.zeros_like(ordered[:1]), ordered])
    upper = np.concatenate([ordered, np.ones_like(ordered[:1])])
    upper = np.where(np.isnan(upper), 1.0, upper)
    middle = lower + (upper - lower) / 2
    middle = np.where(middle < upper, middle, lower)  # rounding must not cross the next one
    return np.where((lower <= 0.5) & (upper > 0.5), 0.5, middle), lower < upper


def _counts_below(is_class):
    """How many of the class lie below each cut: (images + 1, attributes)."""
    return np.concatenate([np.zeros_like(is_class[:1], dtype=np.int64), is_class.cumsum(axis=0)])


def _scores(positives_below, negatives_below, criterion):
    """The criterion at each cut, up to a factor; without rounding, so that ties are ties."""
    num_positive, num_negative = positives_below[-1], negatives_below[-1]
    true_positive = num_positive - positives_below
    if criterion == "balanced_accuracy":
        return true_positive * num_negative + negatives_below * num_positive
    num_predicted = true_positive + num_negative - negatives_below
    # One division of integers: equal ratios give equal floats.
    return 2 * true_positive / np.maximum(num_positive + num_predicted, 1)


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS
) -> dict[str, np.ndarray]:
    """Compare what was predicted with what is there, in bins of equal width.

    Args:
        probabilities: (images, attributes), in [0, 1].
        labels: (images, attributes) of 1, 0 and -100; only known cells count.
        num_bins: bin b holds the cells with floor(probability num_bins) = b; the last has 1 too.

    Returns:
        Arrays (num_bins, attributes) of sums over the cells of a bin: `count`, `probability` and
        `positives`. Summed over attributes, they describe the attributes together.

    Raises:
        ValueError: for shapes that differ, or numbers outside [0, 1].
    """
    probabilities, labels = _checked(probabilities, labels)
    if num_bins < 1:
        raise ValueError(f"`num_bins` must be at least 1, got {num_bins}.")
    num_attributes = labels.shape[1]
    known = labels >= 0
    bins = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    cells = (bins * num_attributes + np.arange(num_attributes))[known]

    def total(weights):
        sums = np.bincount(cells, weights, minlength=num_bins * num_attributes)
        return sums.reshape(num_bins, num_attributes)

    return {
        "count": total(None),
        "probability": total(probabilities[known]),
        "positives": total(labels[known] == 1),
    }


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS
) -> np.ndarray:
    """Mean distance between predicted probability and share of positives, for each attribute.

    sum over bins of (cells of the bin / cells) |mean probability - share of positives|, the
    probability being that the attribute is present, and the bins those of `reliability`.

    Args and Raises: as for `reliability`.

    Returns: (attributes,) in [0, 1]; nan without a known label.

    >>> expected_calibration_error([[0.8], [0.8], [0.1]], [[1], [0], [0]]).round(3).tolist()
    [0.233]
    """
    bins = reliability(probabilities, labels, num_bins)
    num_known = bins["count"].sum(axis=0)
    distance = np.abs(bins["probability"] - bins["positives"]).sum(axis=0)
    return np.where(num_known > 0, distance / np.maximum(num_known, 1), np.nan)


def _checked(probabilities, labels):
    """Both as arrays, or a ValueError that names what is wrong."""
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or probabilities.shape != labels.shape or not len(labels):
        raise ValueError(
            "`probabilities` and `labels` must both be (images, attributes), got "
            f"{probabilities.shape} and {labels.shape}."
        )
    # Negated, so that nan is refused as well.
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError(
            "`probabilities` must be in [0, 1], got "
            f"{probabilities.min()} to {probabilities.max()}; apply the sigmoid to logits."
        )
    return probabilities, labels


__all__ = [
    "CRITERIA",
    "NUM_BINS",
    "calibrated_thresholds",
    "expected_calibration_error",
    "reliability",
]
