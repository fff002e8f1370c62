"""Attribute schemas: what the labels of a data set mean, how they are queried and how said.

A schema names the attributes of a data set in label order, gathers them into choices and flags,
turns a query (dict, names or free text) into a label row, and a label row into a sentence.
All that is particular to a data set stands in its JSON file, as datasets_scripts/schemas/peta.json.
Source: arXiv 2403.06119 has a templated pseudo-description; this template is our own.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .lexicon_clear import Lexicon
from .phrases_clear import (
    ABSENT,
    PRESENT,
    ROLES,
    UNKNOWN,
    AttributeFlag,
    AttributeGroup,
    Phrase,
    SentencePart,
    build,
    differences,
    fold,
    json_lines,
    noun_phrase,
    part_texts,
    readable_name,
    require_each_once,
    sentence,
    unknown_name,
)
from .queries_clear import ParsedQuery, QueryNames, parse_query

QUERY_KINDS = ("hard", "words", "soft", "soft+hard")  # what a query is turned into for the model

Entry = tuple[AttributeGroup | AttributeFlag, str, Phrase]


@dataclass(frozen=True)
class AttributeSchema:
    """The attributes of one data set, their meaning and their words.

    Args:
        name: of the data set.
        attributes: the data set's own names in label order, which is the order of the logits.
        evaluated: names of the subset that papers evaluate, in label order.
        groups, flags: every attribute is an option of one group, or one flag, exactly once.
        parts: the parts of the pseudo-description in order; the first is its subject.
        about: source, terms and what was measured, for the reader.

    Raises:
        ValueError: if an attribute is reachable never or twice, or a name is used twice.

    >>> schema = AttributeSchema.from_names(["hat", "carryingBackpack"])
    >>> schema.query_values({"hat": True})
    [1, -100]
    >>> schema.describe([0, 1])
    'A person with carrying backpack.'
    """

    name: str
    attributes: tuple[str, ...]
    evaluated: tuple[str, ...]
    groups: tuple[AttributeGroup, ...] = ()
    flags: tuple[AttributeFlag, ...] = ()
    parts: tuple[SentencePart, ...] = (SentencePart("person", noun="person"),)
    about: tuple[str, ...] = ()

    # ---- building ---------------------------------------------------------------------------

    def __post_init__(self):
        named = (*self.groups, *self.flags)
        reached = [a for group in self.groups for a in group.options.values()]
        reached += [flag.attribute for flag in self.flags]
        require_each_once("attributes", self.attributes, self.attributes)
        require_each_once("options and flags", reached, self.attributes)
        keys = [fold(entry.name) for entry in named]
        require_each_once("names of groups and flags", keys, keys)
        if self.evaluated != tuple(a for a in self.attributes if a in self.evaluated):
            raise ValueError(
                f"`evaluated` must list some of `attributes` in their order, got {self.evaluated}."
            )
        self._check_words()

    def _check_words(self) -> None:
        sections = {section for part in self.parts for section in part.sections}
        names = {"", *(part.name for part in self.parts)}
        for entry, value, phrase in self.entries:
            label = f"{entry.name} {value}".strip()
            for field, got, allowed in (
                ("section", entry.section, sections),
                ("role", phrase.role, ROLES),
                ("part", phrase.part, names),
            ):
                if got not in allowed:
                    raise ValueError(
                        f"`{field}` of {label!r} must be one of {sorted(allowed)}, got {got!r}."
                    )

    @classmethod
    def from_names(cls, names: Iterable[str], name: str = "custom") -> "AttributeSchema":
        """Make a schema of flags from any attribute names; what they say is the name itself."""
        names = tuple(names)
        words = map(readable_name, names)
        flags = tuple(
            AttributeFlag(word, attribute, "attributes", Phrase(word, "items"))
            for word, attribute in zip(words, names, strict=True)
        )
        rest = SentencePart("attributes", ("attributes",), lead="with")
        return cls(name, names, names, (), flags, (SentencePart("person", noun="person"), rest))

    def subset(self, names: Iterable[str]) -> "AttributeSchema":
        """Return the schema of some of the attributes, in the order given.

        Raises:
            ValueError: for a name that the schema does not have, or has been given twice.
        """
        names = tuple(names)
        for name in names:
            self.index(name)
        groups = []
        for group in self.groups:
            options = {value: a for value, a in group.options.items() if a in names}
            kept = {*options, group.otherwise}
            phrases = {value: p for value, p in group.phrases.items() if value in kept}
            groups.append(replace(group, options=options, phrases=phrases))
        return replace(
            self,
            attributes=names,
            evaluated=tuple(name for name in names if name in self.evaluated),
            groups=tuple(group for group in groups if group.options),
            flags=tuple(flag for flag in self.flags if flag.attribute in names),
        )

    @classmethod
    def from_dict(cls, d: Mapping) -> "AttributeSchema":
        """Build from plain JSON types; see `to_dict`.

        Raises:
            ValueError: for unknown or missing keys, and as the constructor does.
        """
        made = {
            "parts": lambda part: build(SentencePart, part),
            "groups": AttributeGroup.from_dict,
            "flags": AttributeFlag.from_dict,
        }
        return build(
            cls, {**d, **{key: [*map(make, d[key])] for key, make in made.items() if key in d}}
        )

    def to_dict(self) -> dict:
        """Return plain JSON types: lists wherever the order counts, so that keys may be sorted."""
        return {
            "name": self.name,
            "about": list(self.about),
            "parts": [differences(part, SentencePart("")) for part in self.parts],
            "groups": [group.to_dict() for group in self.groups],
            "flags": [flag.to_dict() for flag in self.flags],
            "attributes": list(self.attributes),
            "evaluated": list(self.evaluated),
        }

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> "AttributeSchema":
        """Read a schema file.

        Raises:
            ValueError: if the file is not JSON or not a schema; it names the file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            message = f"`path` must be the JSON file of a schema, got {str(path)!r}: {error}"
            raise ValueError(message) from error

    def to_json(self, path: str | os.PathLike) -> None:
        """Write a schema file, one entry a line where it fits; whole or not at all."""
        path = Path(path)
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_text(json_lines(self.to_dict()) + "\n", encoding="utf-8")
        unfinished.replace(path)

    # ---- looking up -------------------------------------------------------------------------

    @property
    def num_attributes(self) -> int:
        """Return the length of a label row."""
        return len(self.attributes)

    @property
    def evaluated_indices(self) -> list[int]:
        """Return the places of the evaluated attributes in the label row."""
        return [self.index(name) for name in self.evaluated]

    def index(self, name: str) -> int:
        """Return the place of an attribute in the label row.

        Raises:
            ValueError: if the schema has no such attribute.
        """
        if name not in self._indices:
            raise unknown_name("name", name, f"an attribute of {self.name!r}", self.attributes)
        return self._indices[name]

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.attributes)}

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every (group, value, phrase) and (flag, "", phrase), in the order of the sentence."""
        options = [(group, v, p) for group in self.groups for v, p in group.phrases.items()]
        return (*options, *((flag, "", flag.phrase) for flag in self.flags))

    def part_of(self, entry: AttributeGroup | AttributeFlag, phrase: Phrase) -> str:
        """Return the name of the sentence part that an entry's phrase belongs to."""
        return phrase.part or next(p.name for p in self.parts if entry.section in p.sections)

    # ---- queries ----------------------------------------------------------------------------

    def query_values(self, query: Mapping | Iterable[str]) -> list[int]:
        """Turn a query into a label row.

        Args:
            query: {group: value or list of values, flag or attribute: bool}, or a list of names
                of attributes, flags and values. Text goes through `parse` first.

        Returns:
            (attributes,) 1 named as present, 0 stated absent, -100 unsaid. One value of an
            exclusive group says that its other options are absent.

        Raises:
            ValueError: for an unknown name or value, a contradiction, or an empty query.
        """
        labels = self._names.labels(query)
        return [labels.get(name, UNKNOWN) for name in self.attributes]

    @cached_property
    def _names(self) -> QueryNames:
        return QueryNames(self)

    def parse(self, text: str) -> ParsedQuery:
        """Match free text to the schema.

        Returns:
            ParsedQuery; words without a meaning here are in its `not_understood`.

        Raises:
            ValueError: if nothing is understood.
        """
        return parse_query(self._lexicon, text)

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon(self)

    # ---- label rows -------------------------------------------------------------------------

    def _present(self, values: Sequence[int]) -> list[Entry]:
        """Return the entries that a label row states as present."""
        row = np.asarray(values)
        if row.shape != (self.num_attributes,) or not np.isin(row, (1, 0, UNKNOWN)).all():
            raise ValueError(
                f"`values` must be {self.num_attributes} labels 1, 0 or -100, got shape "
                f"{row.shape} with {np.unique(row)[:5].tolist()}."
            )
        labels = dict(zip(self.attributes, row.astype(int).tolist(), strict=True))
        chosen = {group.name: group.chosen(labels) for group in self.groups}
        return [
            (entry, value, phrase)
            for entry, value, phrase in self.entries
            if (value in chosen[entry.name] if value else labels[entry.attribute] == PRESENT)
        ]

    def describe(self, values: Sequence[int]) -> str:
        """Say a label row as one sentence; absent and unknown attributes are not mentioned.

        Args:
            values: (attributes,) 1 present, 0 absent, -100 unknown.

        Raises:
            ValueError: if there is nothing to say.
        """
        said: dict[str, list[tuple[str, Phrase]]] = {}
        for entry, _, phrase in self._present(values):
            if phrase.text:
                said.setdefault(self.part_of(entry, phrase), []).append((entry.name, phrase))
        if not said:
            raise ValueError("`values` must state a present attribute, got none: an empty query.")
        clauses: dict[str, list[str]] = {}
        subject, *parts = self.parts
        for part in parts:
            for lead, text in part_texts(part, said.get(part.name, [])):
                clauses.setdefault(lead, []).append(text)
        return sentence(noun_phrase(subject, said.get(subject.name, [])), clauses)

    def words(self, values: Sequence[int]) -> str:
        """Name the present attributes, comma separated: the query kind "words".

        Raises:
            ValueError: if there are none.
        """
        names = [f"{entry.name} {value}".strip() for entry, value, _ in self._present(values)]
        if not names:
            raise ValueError("`values` must state a present attribute, got none: an empty query.")
        return ", ".join(names)

    def readable(self, values: Sequence[int]) -> dict[str, str | list[str] | bool]:
        """Return what a label row states as present, as a query dict.

        A non-exclusive group gives a list, and so does an exclusive one labelled twice.
        """
        result: dict[str, str | list[str] | bool] = {}
        for entry, value, _ in self._present(values):
            if not value:
                result[entry.name] = True
            elif entry.exclusive and entry.name not in result:
                result[entry.name] = value
            else:
                known = result.get(entry.name, [])
                result[entry.name] = [*([known] if isinstance(known, str) else known), value]
        return result

    def decode(
        self, probabilities: Sequence[float], threshold: float | Sequence[float] = 0.5
    ) -> dict:
        """Turn one row of probabilities into named decisions.

        Args:
            probabilities: (attributes,) in [0, 1].
            threshold: a flag is present when its probability is strictly above it. One number,
                or (attributes,).

        Returns:
            {group: (value, probability), flag: (bool, probability)}. A group gives its most
            probable option, however improbable. If its `otherwise` is no option, it gives the most
            probable of the options that are above their threshold; where none is, it gives
            `otherwise` with the probability that none is present, the product of 1 - p. A flag
            gives the probability of what it states.

        Raises:
            ValueError: for another length, or numbers that are no probabilities.
        """
        row = np.asarray(probabilities, dtype=float)
        if row.shape != (self.num_attributes,) or not ((row >= 0) & (row <= 1)).all():
            raise ValueError(
                f"`probabilities` must be {self.num_attributes} numbers in [0, 1], got shape "
                f"{row.shape} with {np.unique(row)[:5].tolist()}; apply a sigmoid to logits."
            )
        p = dict(zip(self.attributes, row.tolist(), strict=True))
        limits = np.broadcast_to(np.asarray(threshold, dtype=float), row.shape).tolist()
        t = dict(zip(self.attributes, limits, strict=True))
        result = {group.name: group.decode(p, t) for group in self.groups}
        for flag in self.flags:
            there = p[flag.attribute] > t[flag.attribute]
            result[flag.name] = (there, p[flag.attribute] if there else 1 - p[flag.attribute])
        return result


__all__ = [
    "ABSENT",
    "PRESENT",
    "QUERY_KINDS",
    "UNKNOWN",
    "AttributeFlag",
    "AttributeGroup",
    "AttributeSchema",
    "ParsedQuery",
    "Phrase",
    "SentencePart",
]
