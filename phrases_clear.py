"""The words of an attribute schema: phrases, choices and flags, and how a sentence is made of them.

Everything here is data and small functions; `AttributeSchema` in attributes_clear.py holds the data
of one data set. In JSON an entry is an object whose keys are the fields below, defaults left out.
"""

import difflib
import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace

PRESENT, ABSENT, UNKNOWN = 1, 0, -100  # -100: the label that losses and metrics ignore
ROLES = ("adjective", "noun", "plural", "after", "item", "items")


# ---- data -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrase:
    """How one attribute is said, and recognised in text.

    Args:
        text: the words of the pseudo-description; empty: never said.
        role: "adjective" before the noun of its part; "noun", or "plural" (no article), in its
            place; "after" it; "item", or "items" (no article), of a list.
        part: name of the sentence part; empty: the part of the entry's section.
        lead: words before an item ("pushing"); None: those of its part.
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
        name: its name; `sections`: the sections of the schema that it speaks of.
        lead: words before it ("wearing"); parts with the same lead share it.
        noun: said when only adjectives are known ("top"); `plural`: it takes no article.
        nouns: other words for the same thing in free text.
        approximate: nouns of free text that mean more than the schema knows ("dress"): their
            adjectives are understood, they themselves are reported.
    """

    name: str
    sections: tuple[str, ...] = ()
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
        phrases: value -> Phrase, for the options and for `otherwise`.
        exclusive: choosing one value says that the others are absent.
        otherwise: the value meant when all other options are absent; it may be an option too.
    """

    name: str
    section: str
    options: dict[str, str]
    phrases: dict[str, Phrase] = field(default_factory=dict)
    exclusive: bool = False
    otherwise: str | None = None

    def chosen(self, labels: Mapping[str, int]) -> list[str]:
        """Return the values that `labels` (attribute -> 1, 0, -100) states, `otherwise` too."""
        others = [labels[a] for value, a in self.options.items() if value != self.otherwise]
        own = labels.get(self.options.get(self.otherwise), UNKNOWN)
        if self.otherwise and others and own == UNKNOWN and set(others) == {ABSENT}:
            return [self.otherwise]
        return [value for value, a in self.options.items() if labels[a] == PRESENT]

    def decode(
        self, probabilities: Mapping[str, float], thresholds: Mapping[str, float]
    ) -> tuple[str, float]:
        """Return the chosen value and its probability; see AttributeSchema.decode."""
        options = {value: probabilities[a] for value, a in self.options.items()}
        candidates = options
        if self.otherwise is not None and self.otherwise not in options:
            candidates = {v: p for v, p in options.items() if p > thresholds[self.options[v]]}
        if not candidates:
            return self.otherwise, math.prod(1 - p for p in options.values())
        best = max(candidates, key=candidates.get)
        return best, candidates[best]

    def value_of(self, word: str) -> str | None:
        """Return the value that a word means, by its name, phrase or synonyms."""
        for value, phrase in self.phrases.items():
            words = (value, phrase.text, phrase.adjective, *phrase.synonyms, *phrase.alone)
            if fold(word) in map(fold, words):
                return value
        return None

    @classmethod
    def from_dict(cls, d: Mapping) -> "AttributeGroup":
        """Read {"name": ..., "options": [{"value": ..., "attribute": ..., phrase fields}], ...}.

        A `role` beside the options is the default of their phrases. A value without an attribute
        is that of `otherwise`.
        """
        options, phrases = {}, {}
        for option in map(dict, d.get("options", [])):
            value = option.pop("value")
            if attribute := option.pop("attribute", None):
                options[value] = attribute
            defaults = {"text": value, "role": d.get("role", "adjective")}
            phrases[value] = build(Phrase, {**defaults, **option})
        rest = {key: value for key, value in d.items() if key not in ("options", "role")}
        return build(cls, {**rest, "options": options, "phrases": phrases})

    def to_dict(self) -> dict:
        """Return the JSON form; see `from_dict`."""
        roles = Counter(phrase.role for phrase in self.phrases.values())
        role = roles.most_common(1)[0][0]
        own = differences(self, AttributeGroup("", "", self.options, self.phrases))
        return {
            **own,
            **({} if role == "adjective" else {"role": role}),
            "options": [
                {
                    "value": value,
                    **({"attribute": self.options[value]} if value in self.options else {}),
                    **differences(phrase, Phrase(value, role)),
                }
                for value, phrase in self.phrases.items()
            ],
        }


@dataclass(frozen=True)
class AttributeFlag:
    """An attribute that stands for itself: it is there or not."""

    name: str
    attribute: str
    section: str
    phrase: Phrase = Phrase()

    @classmethod
    def from_dict(cls, d: Mapping) -> "AttributeFlag":
        """Read {"name", "attribute", "section", phrase fields}; `role` is "item" if not given."""
        own = {key: d[key] for key in ("name", "attribute", "section") if key in d}
        words = {key: value for key, value in d.items() if key not in own}
        phrase = build(Phrase, {"text": d.get("name", ""), "role": "item", **words})
        return build(cls, {**own, "phrase": phrase})

    def to_dict(self) -> dict:
        """Return the JSON form; see `from_dict`."""
        own = {"name": self.name, "attribute": self.attribute, "section": self.section}
        return own | differences(self.phrase, Phrase(self.name, "item"))


# ---- JSON -----------------------------------------------------------------------------------


def build(cls, d: Mapping):
    """Call a dataclass with JSON values; lists become tuples.

    Raises:
        ValueError: for unknown or missing keys, and for a string in the place of a list.
    """
    known = {f.name: f for f in fields(cls)}
    needed = {n for n, f in known.items() if f.default is f.default_factory is MISSING}
    if wrong := (set(d) - set(known)) | (needed - set(d)):
        raise ValueError(
            f"`{cls.__name__}` must have the keys {sorted(needed)} and may have "
            f"{sorted(set(known) - needed)}, got unknown or missing {sorted(wrong)}."
        )
    for name, value in d.items():
        if isinstance(value, str) and "tuple" in str(known[name].type):
            raise ValueError(f"`{name}` of `{cls.__name__}` must be a list, got {value!r}.")
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in d.items()})


def differences(entry, default) -> dict:
    """Return the fields in which a dataclass differs from another, tuples as lists."""
    values = {f.name: getattr(entry, f.name) for f in fields(entry)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != getattr(default, name)
    }


def json_lines(value, indent: str = "", key: str = "", width: int = 140) -> str:
    """Write JSON with every object or list that fits on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or (indent and len(indent + key + flat) < width):
        return indent + key + flat
    deeper = indent + "  "
    if isinstance(value, list) and not re.search(r"[\s{\[]", "".join(map(str, value))):
        layout = {"initial_indent": deeper, "subsequent_indent": deeper, "break_on_hyphens": False}
        return f"{indent}{key}[\n{textwrap.fill(flat[1:-1], width, **layout)}\n{indent}]"
    if isinstance(value, list):
        rows, ends = [json_lines(item, deeper) for item in value], "[]"
    else:
        rows = [json_lines(item, deeper, f"{json.dumps(k)}: ") for k, item in value.items()]
        ends = "{}"
    return f"{indent}{key}{ends[0]}\n" + ",\n".join(rows) + f"\n{indent}{ends[1]}"


# ---- names ------------------------------------------------------------------------------------


def fold(name: str) -> str:
    """Lower-case a name, with single spaces, so that "Upper-Color" finds "upper colour".

    >>> fold("Upper-Color")
    'upper colour'
    """
    words = re.sub(r"[\s_\-]+", " ", str(name)).strip().lower()
    return re.sub(r"\bcolor", "colour", words)


def readable_name(attribute: str) -> str:
    """Split a raw attribute name into lower-case words.

    >>> readable_name("upperBodyThinStripes"), readable_name("AgeOver60")
    ('upper body thin stripes', 'age over 60')
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=\d)|[./]", " ", attribute)
    return fold(spaced)


def require_each_once(what: str, found: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise unless `found` has every wanted name exactly once and no other."""
    wrong = {name for name in found if found.count(name) > 1} | (set(found) ^ set(wanted))
    if wrong:
        raise ValueError(
            f"`{what}` must have every name exactly once, got none or several of {sorted(wrong)}."
        )


def unknown_name(argument: str, got, rule: str, names: Iterable[str]) -> ValueError:
    """Return the error for a name that is not among `names`, with the closest of them."""
    folded = {fold(name): name for name in names}
    close = difflib.get_close_matches(fold(got), folded, n=3, cutoff=0.5)
    shown = [folded[name] for name in close] or list(folded.values())[:12]
    return ValueError(
        f"`{argument}` must name {rule}, got {got!r}; "
        f"{'closest' if close else 'for example'}: {', '.join(shown)}."
    )


# ---- sentences ------------------------------------------------------------------------------


def join_words(items: Sequence[str]) -> str:
    """Join as English does.

    >>> join_words(["a hat"]), join_words(["red", "white"]), join_words(["a", "b", "c"])
    ('a hat', 'red and white', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def with_article(noun_phrase: str) -> str:
    """Put "a" or "an" before a singular noun phrase, by its sound.

    >>> with_article("umbrella"), with_article("uniform"), with_article("red top")
    ('an umbrella', 'a uniform', 'a red top')
    """
    word = noun_phrase.lower()
    vowel = word.startswith(tuple("aeiou")) and not word.startswith(("uni", "use", "eu", "one"))
    return f"{'an' if vowel else 'a'} {noun_phrase}"


def noun_phrase(part: SentencePart, phrases: Sequence[tuple[str, Phrase]]) -> str:
    """Say the adjectives and nouns of one part and what comes after them.

    Args:
        phrases: (name of group or flag, Phrase); adjectives of one group are joined by "and".
    """
    nouns = [phrase for _, phrase in phrases if phrase.role in ("noun", "plural")]
    heads = [noun for noun in nouns if not noun.adjective] or nouns[:1]
    adjectives: dict[str, list[str]] = {}
    for name, phrase in phrases:
        if phrase.role == "adjective" or (phrase in nouns and phrase not in heads):
            adjectives.setdefault(name, []).append(phrase.adjective or phrase.text)
    first, *more = heads or [Phrase(part.noun, "plural" if part.plural else "noun")]
    words = " ".join([*map(join_words, adjectives.values()), first.text])
    named = [replace(first, text=words), *more]
    head = join_words([n.text if n.role == "plural" else with_article(n.text) for n in named])
    return " ".join([head, *(phrase.text for _, phrase in phrases if phrase.role == "after")])


def part_texts(
    part: SentencePart, phrases: Sequence[tuple[str, Phrase]]
) -> Iterator[tuple[str, str]]:
    """Yield (lead, text) for the noun phrase of one part and for each of its items."""
    body = [(name, phrase) for name, phrase in phrases if phrase.role not in ("item", "items")]
    if body:
        yield part.lead, noun_phrase(part, body)
    for _, phrase in phrases:
        if phrase.role in ("item", "items"):
            text = with_article(phrase.text) if phrase.role == "item" else phrase.text
            yield part.lead if phrase.lead is None else phrase.lead, text


def sentence(subject: str, clauses: Mapping[str, Sequence[str]]) -> str:
    """Join a subject and its clauses; the first clause takes no comma.

    >>> sentence("a woman", {"with": ["long hair"], "wearing": ["a red top", "jeans"]})
    'A woman with long hair, wearing a red top and jeans.'
    """
    said = [f"{lead} {join_words(texts)}".strip() for lead, texts in clauses.items()]
    text = ", ".join([" ".join([subject, *said[:1]]), *said[1:]])
    return f"{text[0].upper()}{text[1:]}."


__all__ = [
    "ABSENT",
    "PRESENT",
    "UNKNOWN",
    "AttributeFlag",
    "AttributeGroup",
    "Phrase",
    "SentencePart",
]
