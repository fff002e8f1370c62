"""Labels of one data set said in the attributes of another, by explicit files in mappings/.

An expression is the name of a source attribute, {"not": e}, {"any": [e, ...]}, {"all": [e, ...]}
or null, which is unknown. Unknown labels follow Kleene's three-valued logic: "any" is true as soon
as one is true, false only if all are false, else unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..attributes_clear import UNKNOWN, AttributeSchema
from ..phrases_clear import unknown_name

MAPPINGS = Path(__file__).parent / "mappings"
_KEYS = {"source", "target", "about", "attributes"}

Expression = str | Mapping | None


@dataclass(frozen=True)
class LabelMapping:
    """How the labels of one schema are said in another.

    Args:
        source, target: The schemas.
        expressions: Target attribute -> expression over source attributes; one that is not here is
            unknown.

    Raises:
        ValueError: a name is in neither schema, or an expression has another form.
    """

    source: AttributeSchema
    target: AttributeSchema
    expressions: Mapping[str, Expression]

    def __post_init__(self):
        for name, expression in self.expressions.items():
            if name not in self.target.attributes:
                wanted = f"an attribute of {self.target.name!r}"
                raise unknown_name("attributes", name, wanted, self.target.attributes)
            _check(expression, self.source)

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Say label rows in the target's attributes.

        Args: labels: (images, source attributes) of 1, 0 and -100.
        Returns: (images, target attributes) int8 of 1, 0 and -100.
        """
        truth = np.where(labels < 0, 0, np.where(labels > 0, 1, -1)).astype(np.int8)
        columns = dict(zip(self.source.attributes, truth.T, strict=True))
        mapped = np.zeros((len(labels), self.target.num_attributes), np.int8)
        for name, expression in self.expressions.items():
            mapped[:, self.target.index(name)] = _evaluate(expression, columns, len(labels))
        return np.where(mapped == 0, UNKNOWN, mapped > 0).astype(np.int8)


def _evaluate(expression: Expression, columns: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Truth of each image: 1 true, 0 unknown, -1 false, so that any is max and all is min."""
    if expression is None:
        return np.zeros(count, np.int8)
    if isinstance(expression, str):
        return columns[expression]
    ((operator, operand),) = expression.items()
    if operator == "not":
        return -_evaluate(operand, columns, count)
    parts = [_evaluate(part, columns, count) for part in operand]
    return (np.maximum if operator == "any" else np.minimum).reduce(parts)


def _check(expression: Expression, source: AttributeSchema) -> None:
    if expression is None:
        return
    if isinstance(expression, str):
        if expression not in source.attributes:
            wanted = f"an attribute of {source.name!r}"
            raise unknown_name("attributes", expression, wanted, source.attributes)
        return
    operator, operand = next(iter(expression.items())) if _has_one_key(expression) else (None, None)
    is_list = isinstance(operand, list) and len(operand) > 0
    if operator not in ("not", "any", "all") or (operator != "not" and not is_list):
        raise ValueError(
            '`attributes` must be given by a name, null, {"not": ...}, {"any": [...]} or '
            f'{{"all": [...]}}, got {expression!r}.'
        )
    for part in operand if is_list and operator != "not" else [operand]:
        _check(part, source)


def _has_one_key(expression: object) -> bool:
    return isinstance(expression, Mapping) and len(expression) == 1


def same_names(source: AttributeSchema, target: AttributeSchema) -> LabelMapping:
    """The mapping between schemas that use the same names."""
    shared = [name for name in target.attributes if name in source.attributes]
    return LabelMapping(source, target, {name: name for name in shared})


def read_mapping(path: Path, source: AttributeSchema, target: AttributeSchema) -> LabelMapping:
    """Read a mapping file.

    Raises: ValueError: it is no mapping between these schemas; the message names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if wrong := set(content) - _KEYS:
            raise ValueError(f"keys must be of {sorted(_KEYS)}, got {sorted(wrong)}.")
        for key, schema in (("source", source), ("target", target)):
            if content[key] != schema.name:
                raise ValueError(f"`{key}` must be {schema.name!r}, got {content[key]!r}.")
        return LabelMapping(source, target, content["attributes"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"`mapping` must be a mapping file, got {str(path)!r}: {error}") from error


def find_mapping(
    source: AttributeSchema, target: AttributeSchema, path: Path | None = None
) -> LabelMapping:
    """The mapping of a file, of equal names, or of the project.

    Args: path: A mapping file of your own.
    Raises: ValueError: there is none; the message says what to write.
    """
    if path is not None:
        return read_mapping(path, source, target)
    if set(source.attributes) == set(target.attributes):
        return same_names(source, target)
    file = MAPPINGS / f"{source.name}_to_{target.name}.json"
    if not file.is_file():
        known = sorted(mapping.stem for mapping in MAPPINGS.glob("*.json"))
        raise ValueError(
            f"`mapping` must say {source.name!r} in the attributes of {target.name!r}, got none. "
            f"There are {', '.join(known)}; write one like these and name it as `mapping`."
        )
    return read_mapping(file, source, target)


__all__ = ["MAPPINGS", "LabelMapping", "find_mapping", "read_mapping", "same_names"]
