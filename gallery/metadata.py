"""Free metadata: the types of its columns, the names they may have, and their values."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

import pyarrow as pa

from .filters import utc

RESERVED = ("id", "source", "image", "jpeg", "embedding", "attributes")
CAMERA, TIME = "camera", "time"
# "007" is a name, and so is a number of more digits than any count has.
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?P<fraction>\.\d+)?")
TYPED = {CAMERA: pa.string(), TIME: pa.timestamp("us")}


def column_name(name: str) -> str:
    """The column that keeps a metadata field: its own name, unless the gallery needs that.

    >>> column_name("id"), column_name("shot.no"), column_name("camera")
    ('metadata_id', 'shot_no', 'camera')
    """
    name = name.strip().replace(".", "_").replace("`", "_").replace('"', "_")
    is_reserved = name.casefold() in RESERVED or name.startswith("_") or not name
    return f"metadata_{name}" if is_reserved else name


def column_types(rows: Iterable[Mapping]) -> dict[str, pa.DataType]:
    """The narrowest type that holds every value of a field; text that is all numbers is numbers.

    >>> column_types([{"n": "1", "x": 0.5}, {"n": "2", "x": None}])
    {'n': DataType(int64), 'x': DataType(double)}
    """
    types = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and not isinstance(value, (list, dict)):
                types[name] = _wider(types.get(name), _type_of(value))
    return types


def union_types(left: Mapping, right: Mapping) -> dict[str, pa.DataType]:
    """The columns of two tables."""
    return {**left, **{name: _wider(left.get(name), kind) for name, kind in right.items()}}


def normal_type(name: str, kind: pa.DataType) -> pa.DataType:
    """The type that a gallery gives a column of some other type."""
    if name in TYPED:
        return TYPED[name]
    for check, normal in (
        (pa.types.is_boolean, pa.bool_()),
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (pa.types.is_timestamp, pa.timestamp("us")),
    ):
        if check(kind):
            return normal
    return pa.string()


def convert(value: object, name: str, kind: pa.DataType):
    """A value as its column holds it.

    Raises:
        ValueError: when the column cannot hold it.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if pa.types.is_timestamp(kind):
            return utc(value)
        if pa.types.is_boolean(kind):
            return {"true": True, "false": False}[str(value).strip().lower()]
        if pa.types.is_integer(kind):
            return whole_number(value)
        return float(value) if pa.types.is_floating(kind) else str(value)
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"`metadata` column {name!r} must hold {kind}, got {value!r}. Use the type of the "
            "first crops, or another column name."
        ) from None


def whole_number(value: object) -> int:
    """An integer; a fraction is not rounded but refused."""
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _type_of(value: object) -> pa.DataType:
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, datetime):
        return pa.timestamp("us")
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return pa.bool_()
    number = NUMBER.fullmatch(text)
    if number is None:
        return pa.string()
    return pa.float64() if number["fraction"] else pa.int64()


def _wider(left: pa.DataType | None, right: pa.DataType) -> pa.DataType:
    if left is None or left == right:
        return right
    return pa.float64() if {left, right} == {pa.int64(), pa.float64()} else pa.string()


__all__ = ["column_name", "column_types", "convert", "normal_type", "union_types"]
