"""What crops show: probabilities gathered by section, for the page and for downloads."""

import csv
import io
import json
from dataclasses import dataclass

import numpy as np
import torch

OTHERS = 2  # further options of a choice that are shown,
LEAST = 0.1  # when they have at least this probability
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\n")  # with which a spreadsheet begins to calculate


@dataclass(frozen=True)
class Bar:
    """One attribute, or one value of a choice, of one crop."""

    name: str
    probability: float
    threshold: float | None  # None: the most probable of a choice is taken, whatever it has
    is_said: bool


@dataclass(frozen=True)
class Finding:
    """A choice with its best values, or a flag with its one bar."""

    name: str
    bars: tuple[Bar, ...]
    is_choice: bool


def sections(schema) -> list[str]:
    """The sections of a schema in reading order."""
    order = {name: None for part in schema.parts for name in part.sections}
    used = {entry.section for entry in (*schema.groups, *schema.flags)}
    return [name for name in order if name in used]


def probabilities(logits: torch.Tensor) -> np.ndarray:
    """Shape: (attributes,) -> the same, in [0, 1]."""
    return torch.sigmoid(logits.float()).numpy()


def findings(schema, logits, thresholds, decoded: dict) -> dict[str, list[Finding]]:
    """Section -> what one crop shows: choices first, then flags, the most probable first.

    Args:
        logits, thresholds: (attributes,). decoded: of the processor, by the same thresholds.
    """
    chance = dict(zip(schema.attributes, probabilities(logits).tolist(), strict=True))
    limit = dict(zip(schema.attributes, np.asarray(thresholds).tolist(), strict=True))
    found = {name: [] for name in sections(schema)}
    for group in schema.groups:
        bars = choice_bars(group, decoded[group.name], chance)
        found[group.section].append(Finding(group.name, bars, is_choice=True))
    flags = sorted(schema.flags, key=lambda flag: -chance[flag.attribute])
    for flag in flags:
        is_said = bool(decoded[flag.name][0])
        bar = Bar(flag.name, chance[flag.attribute], limit[flag.attribute], is_said)
        found[flag.section].append(Finding(flag.name, (bar,), is_choice=False))
    return found


def choice_bars(group, said: tuple[str, float], chance: dict[str, float]) -> tuple[Bar, ...]:
    """The value that is said, then the next best."""
    value, probability = said
    others = [(v, chance[a]) for v, a in group.options.items() if v != value]
    others = sorted((o for o in others if o[1] >= LEAST), key=lambda o: -o[1])[:OTHERS]
    return (Bar(value, probability, None, True), *(Bar(v, p, None, False) for v, p in others))


# ---- downloads --------------------------------------------------------------------------------


def rows(schema, names, decoded: list[dict]) -> list[dict]:
    """One row for each crop and each group or flag: what is said and how probable it is."""
    return [
        {
            "crop": name,
            "section": entry.section,
            "attribute": entry.name,
            "value": one[entry.name][0],
            "probability": round(float(one[entry.name][1]), 4),
        }
        for name, one in zip(names, decoded, strict=True)
        for entry in (*schema.groups, *schema.flags)
    ]


def to_csv(table: list[dict]) -> str:
    """The rows as CSV; a name that a spreadsheet would run as a formula is marked as text."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, table[0], lineterminator="\n")
    writer.writeheader()
    for row in table:
        name = row["crop"].replace("\r", " ")  # csv leaves it unquoted, and it would end the row
        writer.writerow(row | {"crop": f"'{name}" if name.startswith(FORMULA_SIGNS) else name})
    return stream.getvalue()


def to_json(schema, names, logits, decoded: list[dict]) -> str:
    """For each crop the decisions and the probability of every attribute by its own name."""
    crops = [
        {
            "crop": name,
            "decisions": {
                key: {"value": value, "probability": round(float(p), 4)}
                for key, (value, p) in one.items()
            },
            "probabilities": dict(
                zip(schema.attributes, probabilities(row).round(4).tolist(), strict=True)
            ),
        }
        for name, one, row in zip(names, decoded, logits, strict=True)
    ]
    return json.dumps(crops, indent=1, ensure_ascii=False)


def looked_at(schema) -> list[tuple[str, str]]:
    """(label, attribute) of everything that a heat map can be drawn of."""
    choices = [
        (f"{group.name}: {value}", attribute)
        for group in schema.groups
        for value, attribute in group.options.items()
    ]
    return choices + [(flag.name, flag.attribute) for flag in schema.flags]
