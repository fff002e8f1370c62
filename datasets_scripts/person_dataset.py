"""What all person data sets share: the columns of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets import Features, Image, List, Value

if TYPE_CHECKING:
    from ..attributes_clear import AttributeSchema

UNKNOWN_LABEL = -100
UNKNOWN_CAMERA = -1


def person_features(schema: AttributeSchema, **extra: object) -> Features:
    """Columns of one person crop, equal for every data set.

    Args:
        schema: Its `attributes` fix the length and order of `labels`.
        **extra: Further columns of one data set, appended after the common ones.

    Returns:
        image; labels (1 present, 0 absent, -100 unknown); person_id; camera (-1 unknown);
        image_name; category_id (number of the full label vector, in order of first appearance
        over the whole data set, hence equal across splits); then `extra`.
    """
    return Features(
        {
            "image": Image(),
            "labels": List(Value("int8"), length=len(schema.attributes)),
            "person_id": Value("int32"),
            "camera": Value("int32"),
            "image_name": Value("string"),
            "category_id": Value("int32"),
            **extra,
        }
    )


__all__ = ["UNKNOWN_CAMERA", "UNKNOWN_LABEL", "person_features"]
