"""Attribute schemas: what the labels of a data set mean and how they are said.

A schema names the attributes of a data set in label order, gathers them into choices and flags,
turns a label row into a pseudo-description and a query (dict, names or free text) into a label row.
Everything particular to a data set stands in its JSON file, e.g. datasets_scripts/schemas/peta.json.
Source: arXiv 2403.06119 names the templated pseudo-description; the template itself is ours.
"""

import difflib
import json
import math
import os
import re
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .query_parser_clear import Lexicon, ParsedQuery, fold, parse_query

PRESENT, ABSENT, UNKNOWN = 1, 0, -100  # -100: the label that losses and metrics ignore
ROLES = ("adjective", "noun", "plural", "after", "item")


@dataclass(frozen=True)
class Phrase:
    """How one attribute is said and recognised in text.

    Args:
        text: the words of the pseudo-description; empty: never said.
        role: "adjective" before the noun; "noun" or "plural" (no article) in its place; "after"
            it; or an "item" of a list, which brings its own article.
        part: name of the sentence part; empty: the part of the entry's section.
        lead: words before it ("pushing"); None: those of the part.
        adjective: form beside another noun of the same part ("male" in "a male child").
        synonyms: other words, used like `text`.
        alone: words that need no noun beside them ("blonde", "long-haired").
    """

    text: str = ""
    role: str = "adjective"
    part: str = ""
    lead: str | None = None
    adjective: str = ""
    synonyms: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class SentencePart:
    """One part of the sentence, such as the hair or the upper body.

    Args:
        name: its name; `sections`: the schema sections that it speaks of.
        lead: words before it ("wearing"); neighbours with the same lead share it.
        noun: head when only adjectives are known ("top"); `plural`: it takes no article.
        nouns: other words for the same thing in free text.
        approximate: words that mean this part but more than the schema knows ("dress").
    """

    name: str
    sections: tuple[str, ...]
    lead: str = ""
    noun: str = ""
    plural: bool = False
    nouns: tuple[str, ...] = ()
    approximate: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttributeGroup:
    """A choice among values, each of them one attribute.

    Args:
        name, section: how queries and tables call it.
        options: value -> attribute name.
        phrases: value -> Phrase.
        exclusive: choosing one value says that the others are absent.
        otherwise: the value meant when all (other) options are absent; it may be an option too.
    """

    name: str
    section: str
    options: dict[str, str]
    phrases: dict[str, Phrase] = field(default_factory=dict)
    exclusive: bool = False
    otherwise: str | None = None

    def chosen(self, labels: Mapping[str, int]) -> list[str]:
        """Return the values that `labels` (attribute name -> label) states as present."""
        picked = [v for v, attribute in self.options.items() if labels[attribute] == PRESENT]
        others = [labels[a] for v, a in self.options.items() if v != self.otherwise]
        own = labels.get(self.options.get(self.otherwise), UNKNOWN)
        if self.otherwise and others and not any(others) and own == UNKNOWN:
            return [self.otherwise]
        return picked

    def decode(self, probabilities: Mapping[str, float], threshold: float) -> tuple[str, float]:
        """Return the most probable value; see AttributeSchema.decode."""
        options = {value: probabilities[a] for value, a in self.options.items()}
        best = max(options, key=options.get)
        if self.otherwise is None or self.otherwise in options or options[best] > threshold:
            return best, options[best]
        return self.otherwise, math.prod(1 - p for p in options.values())


@dataclass(frozen=True)
class AttributeFlag:
    """An attribute that stands for itself: it is there or not."""

    name: str
    attribute: str
    section: str
    phrase: Phrase = Phrase()


def readable_name(attribute: str) -> str:
    """Split a raw attribute name into lower-case words.

    >>> readable_name("upperBodyThinStripes"), readable_name("AgeOver60")
    ('upper body thin stripes', 'age over 60')
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Za-z])(?=\d)", " ", attribute)
    return fold(re.sub(r"[./]+", " ", spaced))


def join_words(items: Sequence[str]) -> str:
    """Join as English does: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def with_article(noun_phrase: str) -> str:
    """Put "a" or "an" before a singular noun phrase."""
    word = noun_phrase.lower()
    vowel = word[:1] in tuple("aeiou") and not word.startswith(("uni", "use", "eu", "one"))
    return f"{'an' if vowel or word.startswith(('8', '11', '18')) else 'a'} {noun_phrase}"


def noun_phrase(part: SentencePart, phrases: Sequence[tuple[str, Phrase]]) -> str:
    """Say the adjectives, nouns and what comes after them of one part; empty if there are none.

    Args:
        phrases: (name of group or flag, Phrase); adjectives of one group are joined by "and".
    """
    nouns = [phrase for _, phrase in phrases if phrase.role in ("noun", "plural")]
    heads = [n for n in nouns if not n.adjective] or nouns[:1]
    adjectives: dict[str, list[str]] = {}
    for name, phrase in phrases:
        if phrase.role == "adjective" or (phrase in nouns and phrase not in heads):
            adjectives.setdefault(name, []).append(phrase.adjective or phrase.text)
    first = heads[0] if heads else Phrase(part.noun, "plural" if part.plural else "noun")
    words = [*map(join_words, adjectives.values()), first.text]
    named = [replace(first, text=" ".join(words)), *heads[1:]]
    after = [phrase.text for _, phrase in phrases if phrase.role == "after"]
    head = join_words([n.text if n.role == "plural" else with_article(n.text) for n in named])
    return " ".join([head, *after])


def part_texts(
    part: SentencePart, phrases: Sequence[tuple[str, Phrase]]
) -> Iterator[tuple[str, str]]:
    """Yield (lead, text) for the noun phrase and for every item of one part."""
    body = [(name, phrase) for name, phrase in phrases if phrase.role != "item"]
    if body:
        yield part.lead, noun_phrase(part, body)
    for _, phrase in phrases:
        if phrase.role == "item":
            yield part.lead if phrase.lead is None else phrase.lead, phrase.text


def sentence(subject: str, clauses: Mapping[str, Sequence[str]]) -> str:
    """Join "a woman" and {"with": ["long hair"], ...} to a sentence; the first clause adheres."""
    said = [" ".join(filter(None, [lead, join_words(t)])) for lead, t in clauses.items()]
    text = ", ".join([" ".join([subject, *said[:1]]), *said[1:]])
    return f"{text[0].upper()}{text[1:]}."


def _build(cls, d: Mapping):
    """Call a dataclass with JSON values: lists become tuples, unknown keys are refused."""
    known = {f.name for f in fields(cls)}
    if not set(d) <= known:
        raise ValueError(
            f"{cls.__name__} keys must be among {sorted(known)}, got {sorted(set(d) - known)}."
        )
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in d.items()})


def _group(name: str, d: Mapping) -> AttributeGroup:
    """Read a group; an option is an attribute name, or {"attribute": ..., phrase fields}."""
    options, phrases = {}, {}
    role = d.get("role", "adjective")
    for value, option in d["options"].items():
        option = {"attribute": option} if isinstance(option, str) else dict(option)
        attribute = option.pop("attribute", None)
        if attribute is not None:
            options[value] = attribute
        phrases[value] = _build(Phrase, {"text": value, "role": role, **option})
    rest = {k: v for k, v in d.items() if k not in ("options", "role")}
    return _build(AttributeGroup, {"name": name, **rest, "options": options, "phrases": phrases})


def _flag(name: str, d: Mapping) -> AttributeFlag:
    own = {k: d[k] for k in ("attribute", "section") if k in d}
    phrase = _build(Phrase, {"text": name, **{k: v for k, v in d.items() if k not in own}})
    return AttributeFlag(name, **own, phrase=phrase)


def _plain(entry, without: Sequence[str] = ()) -> dict:
    """Return the fields of a dataclass that differ from their defaults, as JSON types."""
    result = {}
    for f in fields(entry):
        value = getattr(entry, f.name)
        if f.name not in without and value != f.default:
            result[f.name] = list(value) if isinstance(value, tuple) else value
    return result


def _plain_phrase(phrase: Phrase, name: str) -> dict:
    plain = _plain(phrase, without=("text",))
    return plain if phrase.text == name else {"text": phrase.text, **plain}


def _plain_group(group: AttributeGroup) -> dict:
    options: dict[str, str | dict] = {}
    for value, phrase in group.phrases.items():
        attribute, plain = group.options.get(value), _plain_phrase(phrase, value)
        named = {"attribute": attribute} if attribute else {}
        options[value] = {**named, **plain} if plain or not attribute else attribute
    return {**_plain(group, without=("name", "options", "phrases")), "options": options}


def _json_lines(value, indent: str = "", width: int = 100) -> str:
    """Write JSON with every object or list on one line that fits into it."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or (indent and len(indent + flat) <= width - 30):
        return flat
    deeper = indent + "  "
    if isinstance(value, list):
        text = textwrap.fill(flat[1:-1], width, initial_indent=deeper, subsequent_indent=deeper)
        return f"[\n{text}\n{indent}]"
    rows = [f"{deeper}{json.dumps(k)}: {_json_lines(v, deeper)}" for k, v in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def _require_each_once(what: str, found: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise unless `found` holds every wanted name exactly once and nothing else."""
    if sorted(found) != sorted(set(wanted)):
        wrong = sorted({n for n in found if found.count(n) > 1} | set(found) ^ set(wanted))
        raise ValueError(f"{what} must each occur exactly once, got none or several of {wrong}.")


@dataclass(frozen=True)
class AttributeSchema:
    """The attributes of one data set, their meaning and their words.

    Args:
        name: of the data set.
        attributes: the data set's own names in label order, which is the order of the logits.
        evaluated: names of the subset that papers evaluate, in label order.
        groups, flags: every attribute is exactly one option of one group, or one flag.
        parts: the parts of the pseudo-description in order; the first is its subject.
        about: source, terms and what was measured, for the reader.

    Raises:
        ValueError: if an attribute is reachable never or twice, or a name is used twice.

    >>> schema = AttributeSchema.from_names(["hat", "carryingBackpack"])
    >>> schema.query_values({"hat": True})
    [1, -100]
    >>> schema.describe([1, 1])
    'A person with hat and carrying backpack.'
    """

    name: str
    attributes: tuple[str, ...]
    evaluated: tuple[str, ...]
    groups: tuple[AttributeGroup, ...] = ()
    flags: tuple[AttributeFlag, ...] = ()
    parts: tuple[SentencePart, ...] = (SentencePart("person", (), noun="person"),)
    about: str = ""

    # ---- building -------------------------------------------------------------------------

    def __post_init__(self):
        reached = [a for group in self.groups for a in group.options.values()]
        reached += [flag.attribute for flag in self.flags]
        _require_each_once("`attributes` in `groups` and `flags`", reached, self.attributes)
        _require_each_once("`attributes`", self.attributes, self.attributes)
        keys = [fold(entry.name) for entry in (*self.groups, *self.flags)]
        _require_each_once("names of `groups` and `flags`", keys, set(keys))
        order = [a for a in self.attributes if a in self.evaluated]
        if list(self.evaluated) != order:
            raise ValueError(
                f"`evaluated` must list some of `attributes` in their order, got {self.evaluated}."
            )
        sections = {s for part in self.parts for s in part.sections}
        names = {part.name for part in self.parts}
        for entry in (*self.groups, *self.flags):
            if entry.section not in sections:
                raise ValueError(
                    f"`section` of {entry.name!r} must be one of {sorted(sections)}, got "
                    f"{entry.section!r}; add it to a part of the sentence."
                )
        for _, _, phrase in self.entries:
            if phrase.role not in ROLES or (phrase.part and phrase.part not in names):
                raise ValueError(
                    f"`role` must be one of {ROLES} and `part` one of {sorted(names)}, got {phrase}."
                )

    @classmethod
    def from_names(cls, names: Iterable[str], name: str = "custom") -> "AttributeSchema":
        """Make a schema of flags from any attribute names."""
        names = tuple(names)
        flags = tuple(
            AttributeFlag(readable_name(n), n, "attributes", Phrase(readable_name(n), "item"))
            for n in names
        )
        person = SentencePart("person", (), noun="person")
        rest = SentencePart("attributes", ("attributes",), lead="with")
        return cls(name, names, names, (), flags, (person, rest))

    def subset(self, names: Iterable[str]) -> "AttributeSchema":
        """Return the schema of some of the attributes, in the order given."""
        names = tuple(names)
        for unknown in set(names) - set(self.attributes):
            self.index(unknown)
        groups = []
        for group in self.groups:
            options = {v: a for v, a in group.options.items() if a in names}
            phrases = {v: p for v, p in group.phrases.items() if v in (*options, group.otherwise)}
            groups.append(replace(group, options=options, phrases=phrases))
        return replace(
            self,
            attributes=names,
            evaluated=tuple(a for a in names if a in self.evaluated),
            groups=tuple(group for group in groups if group.options),
            flags=tuple(flag for flag in self.flags if flag.attribute in names),
        )

    @classmethod
    def from_dict(cls, d: Mapping) -> "AttributeSchema":
        """Build from plain JSON types; see `to_dict`."""
        d = dict(d)
        groups = tuple(_group(name, g) for name, g in d.pop("groups", {}).items())
        flags = tuple(_flag(name, f) for name, f in d.pop("flags", {}).items())
        parts = tuple(_build(SentencePart, {"name": n, **p}) for n, p in d.pop("parts").items())
        return _build(cls, {**d, "groups": groups, "flags": flags, "parts": parts})

    def to_dict(self) -> dict:
        """Return plain JSON types, defaults left out."""
        return {
            **_plain(self, without=("groups", "flags", "parts")),
            "parts": {part.name: _plain(part, without=("name",)) for part in self.parts},
            "groups": {group.name: _plain_group(group) for group in self.groups},
            "flags": {
                flag.name: {
                    "attribute": flag.attribute,
                    "section": flag.section,
                    **_plain_phrase(flag.phrase, flag.name),
                }
                for flag in self.flags
            },
        }

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> "AttributeSchema":
        """Read a schema file."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (json.JSONDecodeError, KeyError) as error:
            raise ValueError(
                f"`path` must be a schema file, got {str(path)!r}: {error}."
            ) from error

    def to_json(self, path: str | os.PathLike) -> None:
        """Write a schema file that is pleasant to read: an entry a line, whole or not at all."""
        path = Path(path)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=path.name, suffix=".tmp", delete=False
        ) as file:
            file.write(_json_lines(self.to_dict()) + "\n")
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)

    # ---- looking up -----------------------------------------------------------------------

    @property
    def num_attributes(self) -> int:
        return len(self.attributes)

    @property
    def evaluated_indices(self) -> list[int]:
        return [self.index(name) for name in self.evaluated]

    def index(self, name: str) -> int:
        """Return the place of an attribute in the label row.

        Raises:
            ValueError: if the schema has no such attribute.
        """
        if name not in self._indices:
            raise self._unknown("name", name, "an attribute", self.attributes)
        return self._indices[name]

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.attributes)}

    @cached_property
    def _groups(self) -> dict[str, AttributeGroup]:
        return {fold(group.name): group for group in self.groups}

    @cached_property
    def _attribute_of(self) -> dict[str, str]:
        """Folded flag name, raw name or "group value" -> attribute."""
        names = {fold(name): name for name in self.attributes}
        for group in self.groups:
            names.update({fold(f"{group.name} {v}"): a for v, a in group.options.items()})
        return names | {fold(flag.name): flag.attribute for flag in self.flags}

    @cached_property
    def entries(self) -> tuple[tuple[AttributeGroup | AttributeFlag, str, Phrase], ...]:
        """Every (group, value, phrase) and (flag, "", phrase), in the order of the schema."""
        options = [(g, v, p) for g in self.groups for v, p in g.phrases.items()]
        return (*options, *((flag, "", flag.phrase) for flag in self.flags))

    def part_of(self, entry: AttributeGroup | AttributeFlag, phrase: Phrase) -> str:
        """Return the name of the sentence part that an entry's phrase belongs to."""
        return phrase.part or next(p.name for p in self.parts if entry.section in p.sections)

    def _unknown(self, argument: str, got, rule: str, names: Iterable[str]) -> ValueError:
        names = list(names)
        folded = {fold(name): name for name in names}
        close = [folded[n] for n in difflib.get_close_matches(fold(got), folded, 3, 0.5)]
        return ValueError(
            f"`{argument}` must name {rule} of the schema {self.name!r}, got {got!r}; "
            f"{'closest: ' if close else 'one of: '}{', '.join(close or names[:12])}."
        )

    # ---- queries --------------------------------------------------------------------------

    def query_values(self, query: Mapping | Iterable[str]) -> list[int]:
        """Turn a query into one label per attribute.

        Args:
            query: {group: value or values, flag or attribute: bool}, or a list of names of
                attributes, flags and values. Text goes through `parse` first.

        Returns:
            (attributes,) 1 named as present, 0 stated absent, -100 unsaid. One value of an
            exclusive group makes its other options 0.

        Raises:
            ValueError: for an unknown name or value, a contradiction, or an empty query.
        """
        if isinstance(query, str):
            raise ValueError(
                f"`query` must be a dict or a list of names, got text {query!r}; call `parse` first."
            )
        items = query.items() if isinstance(query, Mapping) else map(self._named, query)
        said: dict[str, int] = {}
        for key, wanted in items:
            for attribute, label in self._labels_of(key, wanted):
                if said.setdefault(attribute, label) != label:
                    raise ValueError(f"`query` must not contradict itself, got {attribute} twice.")
        if not said:
            raise ValueError("`query` must name at least one attribute, got an empty query.")
        for group in self.groups:
            options = group.options.values()
            if group.exclusive and any(said.get(a) == PRESENT for a in options):
                said = dict.fromkeys(options, ABSENT) | said
        return [said.get(name, UNKNOWN) for name in self.attributes]

    def _labels_of(self, key: str, wanted) -> Iterator[tuple[str, int]]:
        group = self._groups.get(fold(key))
        if group is None:
            if fold(key) not in self._attribute_of:
                names = [*(e.name for e in (*self.groups, *self.flags)), *self.attributes]
                raise self._unknown("query", key, "a group, flag or attribute", names)
            if wanted not in (True, False):
                raise ValueError(f"`query[{key!r}]` must be True or False, got {wanted!r}.")
            yield self._attribute_of[fold(key)], int(wanted)
            return
        for value in [wanted] if isinstance(wanted, str) else self._several(key, wanted):
            value = self._value_in(group, value)
            if value in group.options:
                yield group.options[value], PRESENT
            else:
                yield from ((attribute, ABSENT) for attribute in group.options.values())

    def _several(self, key: str, wanted) -> Iterable[str]:
        if isinstance(wanted, (list, tuple, set)):
            return wanted
        values = ", ".join(self._groups[fold(key)].phrases)
        raise ValueError(f"`query[{key!r}]` must be among {values}, got {wanted!r}.")

    def _value_in(self, group: AttributeGroup, value: str) -> str:
        for name, phrase in group.phrases.items():
            words = (name, phrase.text, phrase.adjective, *phrase.synonyms, *phrase.alone)
            if fold(value) in map(fold, words):
                return name
        raise self._unknown("query", value, f"a value of {group.name!r}", group.phrases)

    def _named(self, name: str) -> tuple[str, str | bool]:
        """Find the query item that a single name stands for."""
        if fold(name) in self._attribute_of:
            return name, True
        found = [(g, v) for g in self.groups for v in g.phrases if fold(v) == fold(name)]
        if len(found) == 1:
            return found[0][0].name, found[0][1]
        if found:
            full = ", ".join(f"{group.name} {value}" for group, value in found)
            raise ValueError(f"`query` must say which {name!r} it means, got one of: {full}.")
        values = [v for g in self.groups for v in g.phrases]
        names = [*(f.name for f in self.flags), *values, *self.attributes]
        raise self._unknown("query", name, "a flag, value or attribute", names)

    def parse(self, text: str) -> ParsedQuery:
        """Match free text to the schema.

        Returns:
            ParsedQuery; what means nothing to the schema is in its `not_understood`.

        Raises:
            ValueError: if nothing is understood.
        """
        return parse_query(self._lexicon, self.parts[0].name, text)

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon(self)

    # ---- label rows -----------------------------------------------------------------------

    def _labels(self, values: Sequence[int]) -> dict[str, int]:
        values = np.asarray(values)
        if values.shape != (self.num_attributes,):
            raise ValueError(
                f"`values` must hold {self.num_attributes} labels, got shape {values.shape}."
            )
        if not np.isin(values, (PRESENT, ABSENT, UNKNOWN)).all():
            raise ValueError(f"`values` must be 1, 0 or -100, got {np.unique(values).tolist()}.")
        return dict(zip(self.attributes, values.astype(int).tolist(), strict=True))

    def _present(self, values) -> list[tuple[AttributeGroup | AttributeFlag, str, Phrase]]:
        labels = self._labels(values)
        chosen = {group.name: group.chosen(labels) for group in self.groups}
        return [
            (entry, value, phrase)
            for entry, value, phrase in self.entries
            if (value in chosen[entry.name] if value else labels[entry.attribute] == PRESENT)
        ]

    def describe(self, values: Sequence[int]) -> str:
        """Say a label row as one sentence; absent and unknown attributes are not mentioned.

        Raises:
            ValueError: if there is nothing to say (an empty query).
        """
        said = [
            (self.part_of(entry, phrase), entry.name, phrase)
            for entry, _, phrase in self._present(values)
            if phrase.text
        ]
        if not said:
            raise ValueError("`values` must have a present attribute to describe, got none.")
        clauses: dict[str, list[str]] = {}
        for part in self.parts[1:]:
            phrases = [(name, phrase) for where, name, phrase in said if where == part.name]
            for lead, text in part_texts(part, phrases):
                clauses.setdefault(lead, []).append(text)
        subject = [(name, phrase) for where, name, phrase in said if where == self.parts[0].name]
        return sentence(noun_phrase(self.parts[0], subject), clauses)

    def words(self, values: Sequence[int]) -> str:
        """Name the present attributes, comma separated (query kind "words")."""
        present = self._present(values)
        if not present:
            raise ValueError("`values` must have a present attribute to name, got none.")
        return ", ".join(f"{entry.name} {value}".strip() for entry, value, _ in present)

    def readable(self, values: Sequence[int]) -> dict[str, str | list[str] | bool]:
        """Return what a label row states as present, in the form of a query dict."""
        result: dict[str, str | list[str] | bool] = {}
        for entry, value, _ in self._present(values):
            if value:
                result.setdefault(entry.name, []).append(value)
            else:
                result[entry.name] = True
        for group in self.groups:
            if group.exclusive and len(result.get(group.name, ())) == 1:
                result[group.name] = result[group.name][0]
        return result

    def decode(self, probabilities: Sequence[float], threshold: float = 0.5) -> dict:
        """Turn one row of probabilities into named decisions.

        Args:
            probabilities: (attributes,) in [0, 1].
            threshold: a flag is present when its probability is strictly above it.

        Returns:
            {group: (value, probability), flag: (bool, probability)}. A group gives its most
            probable option, however low; one with an `otherwise` outside its options gives that
            when no option is above the threshold, with the probability that none is present,
            the product of 1 - p. A flag gives the probability of what is stated.
        """
        row = np.asarray(probabilities, dtype=float)
        if row.shape != (self.num_attributes,) or not ((row >= 0) & (row <= 1)).all():
            raise ValueError(
                f"`probabilities` must be {self.num_attributes} numbers in [0, 1], got shape "
                f"{row.shape}, {row.min(initial=1):.3g} to {row.max(initial=0):.3g}; apply a "
                "sigmoid to logits first."
            )
        p = dict(zip(self.attributes, row.tolist(), strict=True))
        result = {group.name: group.decode(p, threshold) for group in self.groups}
        for flag in self.flags:
            there = p[flag.attribute] > threshold
            result[flag.name] = (there, p[flag.attribute] if there else 1 - p[flag.attribute])
        return result


__all__ = [
    "AttributeFlag",
    "AttributeGroup",
    "AttributeSchema",
    "ParsedQuery",
    "Phrase",
    "SentencePart",
]
