"""Queries of visitors -> label rows -> ranked crops, with what the classifier says to each."""

from dataclasses import dataclass

import torch

PRESENT = 1


@dataclass(frozen=True)
class Hit:
    """One crop of a ranking.

    agreement: (what was asked, probability of it by the classifier, whether it agrees).
    """

    index: int
    score: float
    agreement: tuple[tuple[str, float, bool], ...]


def build_query(schema, chosen: dict, wanted: list[str], unwanted: list[str]) -> dict:
    """The query dict of the form's fields; empty when nothing is chosen.

    Args:
        chosen: group -> value, list of values, or nothing. wanted, unwanted: names of flags.

    Raises:
        ValueError: when a flag is both wanted and not.
    """
    if both := set(wanted) & set(unwanted):
        raise ValueError(f"{', '.join(sorted(both))} cannot be both with and without.")
    query = {name: value for name, value in chosen.items() if value}
    return query | dict.fromkeys(wanted, True) | dict.fromkeys(unwanted, False)


def read_text(schema, text: str) -> tuple[dict, tuple[str, ...]]:
    """(query, words that mean nothing to the schema) of free text.

    Raises:
        ValueError: when nothing is understood.
    """
    parsed = schema.parse(text)
    return parsed.query, parsed.not_understood


def ranking(
    scores: torch.Tensor, count: int, without: int | None = None
) -> list[tuple[int, float]]:
    """(place, score) of the best, equal scores in the given order.

    Args:
        scores: (crops,). without: place of a crop that is left out, as it is the question.
    """
    order = scores.argsort(descending=True, stable=True).tolist()
    return [(i, scores[i].item()) for i in order if i != without][:count]


def agreement(schema, query: dict, decoded: dict, logits: torch.Tensor) -> tuple:
    """What the classifier says to each thing that is asked.

    Args:
        query: as AttributeSchema.query_values takes it. decoded: of the processor, for one crop.
        logits: (attributes,) of the crop.
    """
    chance = dict(zip(schema.attributes, torch.sigmoid(logits).tolist(), strict=True))
    groups = {group.name: group for group in schema.groups}
    told = []
    for name, wanted in query.items():
        if name in groups:
            told += [
                option_agreement(groups[name], value, decoded[name], chance)
                for value in ([wanted] if isinstance(wanted, str) else wanted)
            ]
        elif name in decoded:
            said, probability = decoded[name]
            label = name if wanted else f"no {name}"
            agrees = bool(said) == bool(wanted)
            told.append((label, probability if agrees else 1 - probability, agrees))
        else:  # an attribute by its own name
            probability = chance[name] if wanted else 1 - chance[name]
            told.append((f"{'' if wanted else 'no '}{name}", probability, probability > 0.5))
    return tuple(told)


def option_agreement(group, value: str, said: tuple[str, float], chance: dict) -> tuple:
    """One value of a choice: agrees when it is said, or probable beside another that is."""
    label = short(group, value)
    if said[0] == value:
        return label, said[1], True
    probability = chance.get(group.options.get(value), 1 - said[1])
    return label, probability, not group.exclusive and probability > 0.5


def short(group, value: str) -> str:
    """A value with as much of its choice's name as it needs: "female", "upper red"."""
    if group.name == group.section:
        return value
    name = group.name
    for ending in (" colour", " type", " length"):
        name = name.removesuffix(ending)
    return f"{name} {value}"


def traits(schema, decoded: dict) -> dict:
    """What a crop shows most plainly, as a query: its choices but those of style, and its flags."""
    shown = {
        group.name: decoded[group.name][0]
        for group in schema.groups
        if group.name in ("gender", "upper colour", "lower colour") or len(schema.groups) < 4
    }
    return shown | {flag.name: True for flag in schema.flags if decoded[flag.name][0]}
