"""The recognition report: metrics over sets of attributes, and each attribute alone."""

import numpy as np

from ..attributes_clear import AttributeSchema
from ..metrics.person_attribute_recognition.person_attribute_recognition import recognition_metrics


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
    probabilities: np.ndarray, labels: np.ndarray, schema: AttributeSchema
) -> dict:
    """Metrics of each attribute set, and a row for each attribute.

    Args:
        probabilities: (images, attributes). labels: the same shape, of 1, 0 and -100.
    """
    report = {"sets": {}, "attributes": attribute_rows(probabilities, labels, schema)}
    for name, columns in attribute_sets(schema).items():
        if (labels[:, columns] >= 0).any():
            scores = recognition_metrics(probabilities[:, columns], labels[:, columns])
            scores.pop("label_mean_accuracy")
            report["sets"][name] = {"num_attributes": len(columns), **scores}
    return report


def attribute_rows(
    probabilities: np.ndarray, labels: np.ndarray, schema: AttributeSchema
) -> list[dict]:
    """Set, positives, both recalls and their mean of each attribute, in label order.

    A recall of which the labels hold no example is None, and so is the mean then.
    """
    rows, predicted = [], probabilities > 0.5
    set_of = {c: name for name, columns in attribute_sets(schema).items() for c in columns}
    for column, name in enumerate(schema.attributes):
        present, absent = labels[:, column] == 1, labels[:, column] == 0
        hits = [predicted[present, column], ~predicted[absent, column]]
        recalls = [float(hit.mean()) if len(hit) else None for hit in hits]
        known = None not in recalls
        rows.append(
            {
                "attribute": name,
                "set": set_of[column],
                "evaluated": name in schema.evaluated,
                "positives": int(present.sum()),
                "known": int(present.sum() + absent.sum()),
                "positive_recall": recalls[0],
                "negative_recall": recalls[1],
                "mean_accuracy": sum(recalls) / 2 if known else None,
            }
        )
    return rows
