"""A small schema.json of a user's own data, completed to an AttributeSchema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..attributes_clear import AttributeSchema

_SECTION = "attributes"


def declared_schema(path: Path, columns: Sequence[str], name: str) -> AttributeSchema:
    """Read a schema file in which all but the groups may be left out.

    Left out, `attributes` are the columns, `evaluated` is all of them, an attribute in no group is
    a flag, and a choice is said as "long hair" from its value and the name of its group.

    Args:
        columns: Attribute columns in the order of the table. name: Of the data set.

    Raises:
        ValueError: the file is no schema; it names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return AttributeSchema.from_dict(_completed(content, list(columns), name))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"`{path.name}` must be a schema, got {str(path)!r}: {error}") from error


def _completed(content: Mapping, columns: list[str], name: str) -> dict:
    if "parts" in content:  # whole, as the project's own files
        return {"name": name, **content}
    attributes = content.get("attributes", columns)
    groups = [_group(group) for group in content.get("groups", [])]
    flags = [{"section": _SECTION, "role": "items", **flag} for flag in content.get("flags", [])]
    declared = {option.get("attribute") for group in groups for option in group["options"]}
    declared |= {flag.get("attribute") for flag in flags}
    plain = AttributeSchema.from_names([a for a in attributes if a not in declared]).to_dict()
    return {
        "name": name,
        "attributes": attributes,
        "evaluated": attributes,
        **content,
        "parts": plain["parts"],
        "groups": groups,
        "flags": [*flags, *plain["flags"]],
    }


def _group(group: Mapping) -> dict:
    """A group of short form: {"name", "options": {value: attribute}} or the full one."""
    options = group.get("options", [])
    if isinstance(options, Mapping):
        options = [{"value": value, "attribute": a} for value, a in options.items()]
    options = [{"text": f"{o['value']} {group['name']}", **o} for o in options]
    return {"section": _SECTION, "role": "items", "exclusive": True, **group, "options": options}


__all__ = ["declared_schema"]
