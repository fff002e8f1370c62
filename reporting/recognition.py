"""The recognition report: metrics over sets of attributes, and each attribute alone."""

import numpy as np

from ..attributes_clear import AttributeSchema
from ..metrics.bootstrap import recognition_intervals
from ..metrics.calibration import expected_calibration_error, reliability
from ..metrics.challenge import upar_track1_score
from ..metrics.person_attribute_recognition.person_attribute_recognition import (
    label_metrics,
    recognition_metrics,
)


def attribute_sets(schema: AttributeSchema) -> dict[str, list[int]]:
    """Columns of the sets that are reported apart; a set without attributes is left out.

    evaluated: the subset that papers evaluate. colours: every option of a colour group. other: the
    rest.
    """
    colours = {a for g in schema.groups if "colour" in g.name for a in g.options.values()}
    evaluated = set(schema.evaluated)
    sets = {
        "evaluated": [a for a in schema.attributes if a in evaluated],
        "colours": [a for a in schema.attributes if a in colours - evaluated],
        "other": [a for a in schema.attributes if a not in evaluated | colours],
    }
    return {name: [schema.index(a) for a in members] for name, members in sets.items() if members}


def recognition_report(
    probabilities: np.ndarray,
    labels: np.ndarray,
    schema: AttributeSchema,
    thresholds: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict:
    """Metrics of each attribute set with their intervals, and a row for each attribute.

    Args:
        probabilities: (images, attributes). labels: the same shape, of 1, 0 and -100.
        thresholds: (attributes,), calibrated ones, whose metrics then stand beside those at 0.5.
        groups: (images,), the person of each image: intervals over persons instead of images.
    """
    report = {
        "sets": {},
        "attributes": attribute_rows(probabilities, labels, schema, thresholds),
        "reliability": {},
    }
    for name, columns in attribute_sets(schema).items():
        cells = probabilities[:, columns], labels[:, columns]
        if (cells[1] >= 0).any():
            scores = {"num_attributes": len(columns), **set_scores(*cells, 0.5, groups)}
            errors = expected_calibration_error(*cells)
            scores["expected_calibration_error"] = float(np.nanmean(errors))
            if thresholds is not None:
                scores["calibrated"] = set_scores(*cells, thresholds[columns], groups)
            report["sets"][name] = scores
            report["reliability"][name] = reliability_of_all(*cells)
    if schema.name.startswith("upar") and "evaluated" in report["sets"]:
        report["upar_track1"] = upar_track1_score(report["sets"]["evaluated"])
    return report


def set_scores(
    probabilities: np.ndarray,
    labels: np.ndarray,
    threshold: float | np.ndarray,
    groups: np.ndarray | None = None,
) -> dict:
    """The five means of `recognition_metrics` and, under `intervals`, [low, high] of each."""
    scores = recognition_metrics(probabilities, labels, threshold)
    scores.pop("label_mean_accuracy")
    intervals = recognition_intervals(probabilities, labels, threshold, groups)
    return {**scores, "intervals": {name: list(bounds) for name, bounds in intervals.items()}}


def reliability_of_all(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, list]:
    """The bins of `reliability` over all attributes: count, and two means, None in an empty bin."""
    bins = {name: sums.sum(axis=1) for name, sums in reliability(probabilities, labels).items()}
    count = bins["count"]
    means = {
        name: [
            s / n if n else None for s, n in zip(bins[key].tolist(), count.tolist(), strict=True)
        ]
        for name, key in (("mean_probability", "probability"), ("positive_share", "positives"))
    }
    return {"count": count.astype(int).tolist(), **means}


def attribute_rows(
    probabilities: np.ndarray,
    labels: np.ndarray,
    schema: AttributeSchema,
    thresholds: np.ndarray | None = None,
) -> list[dict]:
    """Counts and metrics of each attribute, in label order; at `thresholds` as well, if given.

    A recall of which the labels hold no example is None, and so is the mean then.
    """
    set_of = {c: name for name, columns in attribute_sets(schema).items() for c in columns}
    usual = attribute_scores(probabilities, labels, 0.5)
    calibrated = [None] * len(usual)
    if thresholds is not None:
        calibrated = attribute_scores(probabilities, labels, thresholds)
    rows = []
    for column, name in enumerate(schema.attributes):
        row = {"attribute": name, "set": set_of[column], "evaluated": name in schema.evaluated}
        row |= usual[column]
        if thresholds is not None:
            row["threshold"] = float(thresholds[column])
            names = ("positive_recall", "negative_recall", "mean_accuracy", "precision", "f1")
            row["calibrated"] = {name: calibrated[column][name] for name in names}
        rows.append(row)
    return rows


def attribute_scores(
    probabilities: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray
) -> list[dict]:
    """Counts and metrics of each column; None where the labels hold no example to count."""
    scores = label_metrics(probabilities, labels, threshold)
    absent = scores["label_known"] - scores["label_positives"]
    rejected = ((probabilities <= threshold) & (labels == 0)).sum(axis=0)
    errors = expected_calibration_error(probabilities, labels)
    rows = []
    for column, num_absent in enumerate(absent.tolist()):
        row = {name.removeprefix("label_"): v[column].item() for name, v in scores.items()}
        num_positives, num_known = row.pop("positives"), row.pop("known")
        found, mean = row.pop("recall"), row.pop("mean_accuracy")
        both = num_positives and num_absent
        rows.append(
            {
                "positives": num_positives,
                "known": num_known,
                "positive_recall": found if num_positives else None,
                "negative_recall": rejected[column].item() / num_absent if num_absent else None,
                "mean_accuracy": mean if both else None,
                **{name: None if np.isnan(value) else value for name, value in row.items()},
                "expected_calibration_error": None if not num_known else errors[column].item(),
            }
        )
    return rows
