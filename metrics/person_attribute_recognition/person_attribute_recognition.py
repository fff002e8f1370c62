"""Person attribute recognition metrics: label-based mean accuracy and instance-based scores.

Source: the definitions of the field's public code, https://github.com/valencebond/Rethinking_of_PAR.
`evaluate` reads the imports below line by line: one per line, and none from this project.
"""

import datasets
import evaluate
import numpy as np

EPSILON = 1e-20  # in denominators only: 0 / 0 counts as 0
UNKNOWN = -100  # the label that the losses of this project ignore as well

_DESCRIPTION = """
Scores multi-label person attribute recognition by attribute (mean accuracy) and by image (accuracy,
precision, recall, F1). Unknown labels (-100) are ignored.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: probabilities in [0, 1], (images, attributes).
    references: labels 0, 1 or -100 (unknown), (images, attributes).
    threshold: a probability strictly above it predicts the attribute; one number, or one for each
        attribute. Default: 0.5.
    per_label: also return the values of each attribute alone. Default: False.

Returns:
    mean_accuracy: mean over attributes of `label_mean_accuracy`.
    instance_accuracy: mean over images of |true and predicted| / |true or predicted|.
    instance_precision: mean over images of |true and predicted| / |predicted|.
    instance_recall: mean over images of |true and predicted| / |true|.
    instance_f1: harmonic mean of `instance_precision` and `instance_recall`.
    label_mean_accuracy: list of (true-positive rate + true-negative rate) / 2, one per attribute;
        nan for an attribute without a single known label.
    With `per_label` as well, lists with one value per attribute: label_known, label_positives,
    label_accuracy, label_precision, label_recall, label_f1, label_average_precision.

Examples:
    >>> metric = evaluate.load("./metrics/person_attribute_recognition")
    >>> result = metric.compute(predictions=[[0.9, 0.2], [0.6, 0.7]], references=[[1, 0], [0, 1]])
    >>> result["mean_accuracy"], result["label_mean_accuracy"]
    (0.75, [0.5, 1.0])
"""

_CITATION = """
@article{jia2021rethinking,
  title={Rethinking of Pedestrian Attribute Recognition: A Reliable Evaluation under Zero-Shot
    Pedestrian Identity Setting},
  author={Jia, Jian and Huang, Houjing and Chen, Xiaotang and Huang, Kaiqi},
  journal={arXiv preprint arXiv:2107.03576},
  year={2021}
}
"""


def recognition_metrics(probabilities, labels, threshold=0.5):
    """Score predicted attribute probabilities against labels, by attribute and by image.

    Args:
        probabilities: (images, attributes), in [0, 1].
        labels: (images, attributes), each 0, 1 or -100. An unknown cell counts neither as positive
            nor as negative, whatever is predicted for it.
        threshold: in [0, 1); a probability strictly above it predicts the attribute. One number,
            or (attributes,).

    Returns:
        `mean_accuracy`, `instance_accuracy`, `instance_precision`, `instance_recall`,
        `instance_f1`: floats in [0, 1]; `label_mean_accuracy`: list of floats, one per attribute.
        An attribute without positives (or negatives) has 0 for that half. An attribute or an image
        without any known label is left out of the means; such an attribute's entry is nan.

    Raises:
        ValueError: if shapes, ranges or label values are not as above, or no label is known.

    >>> result = recognition_metrics([[0.9, 0.2], [0.6, 0.7]], [[1, 0], [0, 1]])
    >>> result["mean_accuracy"], result["instance_precision"], result["label_mean_accuracy"]
    (0.75, 0.75, [0.5, 1.0])
    """
    probabilities, labels, threshold = _checked(probabilities, labels, threshold)
    is_positive, is_negative = labels == 1, labels == 0
    is_predicted = probabilities > threshold
    label_mean_accuracy = _label_mean_accuracy(is_predicted, is_positive, is_negative)
    return {
        "mean_accuracy": float(np.nanmean(label_mean_accuracy)),
        **_instance_metrics(is_predicted, is_positive, is_negative),
        "label_mean_accuracy": label_mean_accuracy.tolist(),
    }


def label_metrics(probabilities, labels, threshold=0.5):
    """Score each attribute by itself, as a binary decision about every image that is known.

    Args:
        probabilities, labels, threshold: as for `recognition_metrics`.

    Returns:
        Arrays (attributes,). `label_known`, `label_positives`: numbers of images.
        `label_mean_accuracy`: as in `recognition_metrics`. `label_accuracy`: share of right
        decisions. `label_precision`: TP / predicted, `label_recall`: TP / positives, `label_f1`:
        their harmonic mean; 0 / 0 counts as 0. `label_average_precision`: sum of precision x gain
        of recall over all thresholds, equal probabilities taken together; nan without positives.
        All are in [0, 1], and nan without a known label.

    Raises:
        ValueError: as `recognition_metrics`.

    >>> result = label_metrics([[0.9, 0.2], [0.6, 0.7]], [[1, 0], [0, 1]])
    >>> result["label_precision"].tolist(), result["label_average_precision"].tolist()
    ([0.5, 1.0], [1.0, 1.0])
    """
    probabilities, labels, threshold = _checked(probabilities, labels, threshold)
    is_positive, is_negative = labels == 1, labels == 0
    is_known, is_predicted = is_positive | is_negative, probabilities > threshold
    num_known, num_positive = is_known.sum(axis=0), is_positive.sum(axis=0)
    num_both = (is_predicted & is_positive).sum(axis=0)
    num_right = num_both + (~is_predicted & is_negative).sum(axis=0)
    precision = num_both / ((is_predicted & is_known).sum(axis=0) + EPSILON)
    recall = num_both / (num_positive + EPSILON)
    scores = {
        "label_accuracy": num_right / (num_known + EPSILON),
        "label_precision": precision,
        "label_recall": recall,
        "label_f1": 2 * precision * recall / (precision + recall + EPSILON),
    }
    return {
        "label_known": num_known,
        "label_positives": num_positive,
        "label_mean_accuracy": _label_mean_accuracy(is_predicted, is_positive, is_negative),
        **{name: np.where(num_known > 0, values, np.nan) for name, values in scores.items()},
        "label_average_precision": np.array(
            [
                _average_precision(column[known], positive[known])
                for column, positive, known in zip(
                    probabilities.T, is_positive.T, is_known.T, strict=True
                )
            ]
        ),
    }


def _average_precision(probabilities, is_positive):
    """Of one attribute; both (known images,)."""
    num_positive = is_positive.sum()
    if not num_positive:
        return np.nan
    order = np.argsort(-probabilities)
    ordered, num_found = probabilities[order], np.cumsum(is_positive[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal probabilities
    precision = num_found[last] / (last + 1)
    return float(np.sum(precision * np.diff(num_found[last], prepend=0)) / num_positive)


def _label_mean_accuracy(is_predicted, is_positive, is_negative):
    """Mean of the true-positive and the true-negative rate: (attributes,), nan if none is known."""
    num_positive, num_negative = is_positive.sum(axis=0), is_negative.sum(axis=0)
    positive_rate = (is_positive & is_predicted).sum(axis=0) / (num_positive + EPSILON)
    negative_rate = (is_negative & ~is_predicted).sum(axis=0) / (num_negative + EPSILON)
    return np.where(num_positive + num_negative > 0, (positive_rate + negative_rate) / 2, np.nan)


def _instance_metrics(is_predicted, is_positive, is_negative):
    """Means over the images with a known label; F1 comes from the means, as in the public code."""
    is_known = is_positive | is_negative
    is_counted = is_known.any(axis=1)
    num_true = is_positive.sum(axis=1)[is_counted]
    num_predicted = (is_predicted & is_known).sum(axis=1)[is_counted]
    num_both = (is_predicted & is_positive).sum(axis=1)[is_counted]
    accuracy = np.mean(num_both / (num_true + num_predicted - num_both + EPSILON))
    precision = np.mean(num_both / (num_predicted + EPSILON))
    recall = np.mean(num_both / (num_true + EPSILON))
    return {
        "instance_accuracy": float(accuracy),
        "instance_precision": float(precision),
        "instance_recall": float(recall),
        "instance_f1": float(2 * precision * recall / (precision + recall + EPSILON)),
    }


def _checked(probabilities, labels, threshold):
    """Both matrices and the threshold, or a ValueError that names what is wrong."""
    probabilities, labels = _matrix("predictions", probabilities), _matrix("references", labels)
    if probabilities.ndim != 2 or probabilities.shape != labels.shape:
        raise ValueError(
            "`predictions` and `references` must both be (images, attributes), "
            f"got {probabilities.shape} and {labels.shape}."
        )
    # Negated, so that nan is refused as well.
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError(
            "`predictions` must be probabilities in [0, 1], "
            f"got {probabilities.min()} to {probabilities.max()}; apply the sigmoid to logits."
        )
    other = labels[~np.isin(labels, (0, 1, UNKNOWN))]
    if other.size:
        raise ValueError(f"`references` must be 0, 1 or {UNKNOWN} (unknown), got {other[0]}.")
    if not np.any(labels != UNKNOWN):
        raise ValueError("`references` must hold at least one known label, got none.")
    return probabilities, labels, _checked_threshold(threshold, probabilities.shape[1])


def _checked_threshold(threshold, num_attributes):
    threshold = np.asarray(threshold, dtype=np.float64)
    if threshold.shape not in ((), (num_attributes,)):
        raise ValueError(
            f"`threshold` must be one number or ({num_attributes},), got shape {threshold.shape}."
        )
    # Negated, so that nan is refused as well.
    if not np.all((threshold >= 0) & (threshold < 1)):
        raise ValueError(
            f"`threshold` must be in [0, 1), got {threshold.min()} to {threshold.max()}."
        )
    return threshold


def _matrix(name, values):
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be numbers in rows of one length, got: {error}") from error


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PersonAttributeRecognition(evaluate.Metric):
    """`recognition_metrics` behind the interface of `evaluate`."""

    def _info(self):
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://github.com/valencebond/Rethinking_of_PAR"],
        )

    def _compute(self, predictions, references, threshold=0.5, per_label=False):
        scores = recognition_metrics(predictions, references, threshold)
        if per_label:
            columns = label_metrics(predictions, references, threshold)
            scores |= {name: values.tolist() for name, values in columns.items()}
        return scores


__all__ = ["PersonAttributeRecognition", "label_metrics", "recognition_metrics"]
