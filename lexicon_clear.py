"""The terms of a schema in free text: words, their singular forms, and what they may mean."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .phrases_clear import fold, readable_name

ARTICLES = frozenset(["a", "an", "the", "any", "some"])
STOP = ARTICLES | {
    *("one", "this", "these", "those", "his", "her", "hers", "their", "its", "him", "them"),
    *(
        "who",
        "which",
        "whose",
        "whom",
        "i",
        "me",
        "my",
        "at",
        "on",
        "to",
        "by",
        "for",
        "from",
        "as",
    ),
    *(
        "been",
        "be",
        "also",
        "both",
        "very",
        "please",
        "there",
        "aged",
        "age",
        "show",
        "find",
        "all",
    ),
    *("search", "look", "looking", "image", "images", "picture", "pictures", "photo", "photos"),
}
LINKS = frozenset(
    {
        *("is", "are", "was", "were", "in", "of", "being", "that", "which", ":", "="),
        *("colour", "colours", "coloured"),
    }
)
LEADS = frozenset(
    {
        *(
            "with",
            "in",
            "wearing",
            "wears",
            "wear",
            "worn",
            "dressed",
            "clad",
            "carrying",
            "carries",
        ),
        *("carry", "holding", "holds", "hold", "having", "has", "have", "but", "while", "."),
    }
)
JOINTS = frozenset(["and", "or", "nor", ","])
DENY_ONE, DENY_LIST = frozenset(["no", "not", "never"]), frozenset(["without", "lacking"])
# "30 years old" says nothing about "old".
NO_ADJECTIVES = ("year old", "years old")


def split_words(text: str) -> list[str]:
    """Cut text into lower-case words and the marks , . : =

    >>> split_words("Long-haired woman; isn't in red/white.")
    ['long', 'haired', 'woman', '.', 'is', 'not', 'in', 'red', 'and', 'white', '.']
    """
    text = fold(text.replace("\u2019", "'"))
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"'s\b|[\"'()\[\]]", " ", text)
    text = re.sub(r"[;!?]", ".", re.sub(r"[/&]", " and ", text))
    return re.findall(r"[^\W_]+|[,.:=]|[^\w\s]", text)


def singular(word: str) -> str:
    """Take off a plural s; only the equality of results counts ("trouser", "glasse")."""
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@dataclass(frozen=True)
class Target:
    """One meaning of a term: a value of a group, a flag (no `value`), or a part (no `key`)."""

    part: str
    key: str = ""
    value: str = ""
    attribute: str | None = None


@dataclass(frozen=True)
class Token:
    """Some words of the text and what they are.

    Args:
        kind: for a term, "adjective", which looks for its noun; "trait", which is its own;
            "item", a thing; "noun", a thing that takes adjectives; "part", which only takes them;
            "approximate", which does so too and is reported. For other words, "deny", "joint",
            "mark" or "unknown".
        targets: the meanings of a term.
    """

    words: tuple[str, ...]
    kind: str
    targets: tuple[Target, ...] = ()

    @property
    def parts(self) -> set[str]:
        """Return the sentence parts that the term speaks of."""
        return {target.part for target in self.targets}

    @property
    def is_head(self) -> bool:
        """Whether adjectives can belong to it."""
        return self.kind in ("noun", "part", "approximate")


class Lexicon:
    """All terms of a schema, found by the longest match, exact words before singular forms."""

    strength = ("noun", "item", "trait", "adjective", "part", "approximate", "unknown")

    def __init__(self, schema):
        self.person = schema.parts[0].name
        self.terms: dict[tuple[str, ...], Token] = {}
        leads = [part.lead for part in schema.parts]
        for entry, value, phrase in schema.entries:
            self._add_entry(schema, entry, value, phrase)
            leads.append(phrase.lead or "")
        for part in schema.parts:
            groups = [group.name for group in schema.groups if group.section in part.sections]
            self._add("part", Target(part.name), part.noun, *part.nouns, *groups)
            self._add("approximate", Target(part.name), *part.approximate)
        self._add("unknown", None, *NO_ADJECTIVES)
        self.leads = LEADS | {word for lead in leads for word in split_words(lead)}
        self.singulars: dict[tuple[str, ...], Token] = {}
        for words, token in self.terms.items():
            self.singulars.setdefault(tuple(map(singular, words)), token)
        self.longest = max(map(len, self.terms))

    def _add_entry(self, schema, entry, value: str, phrase) -> None:
        attribute = entry.options.get(value) if value else entry.attribute
        target = Target(schema.part_of(entry, phrase), entry.name, value, attribute)
        kinds = {"noun": "noun", "plural": "noun", "item": "item", "items": "item"}
        alone = kinds.get(phrase.role, "trait")
        names = [f"{entry.name} {value}"]
        # A raw name that is an everyday word is left to the phrase: `Back` is a view, a back not.
        if attribute and len(readable_name(attribute).split()) > 1:
            names.append(attribute)
        self._add(alone, target, *names, *phrase.alone)
        bound = "adjective" if phrase.role == "adjective" else alone
        self._add(bound, target, phrase.text, *phrase.synonyms)
        self._add("adjective", target, phrase.adjective)

    def _add(self, kind: str, target: Target | None, *texts: str) -> None:
        """Give terms one more meaning; the strongest kind that a term is given wins."""
        for text in texts:
            words = tuple(split_words(text))
            known = self.terms.get(words, Token(words, kind))
            if words and self.strength.index(kind) <= self.strength.index(known.kind):
                targets = known.targets if known.kind == kind else ()
                new = (target,) if target and target not in targets else ()
                self.terms[words] = Token(words, kind, (*targets, *new))

    def get(self, words: Sequence[str]) -> Token | None:
        """Return the term with these words, in the singular or plural."""
        term = self.terms.get(tuple(words)) or self.singulars.get(tuple(map(singular, words)))
        return term and Token(tuple(words), term.kind, term.targets)

    def tokens(self, words: Sequence[str]) -> Iterator[Token]:
        """Cut words into terms and single other words."""
        at = 0
        while at < len(words):
            longest = range(min(self.longest, len(words) - at), 0, -1)
            terms = (self.get(words[at : at + length]) for length in longest)
            token = next(filter(None, terms), None) or Token((words[at],), self._kind(words[at]))
            yield token
            at += len(token.words)

    def _kind(self, word: str) -> str:
        if word in DENY_ONE | DENY_LIST:
            return "deny"
        if word in JOINTS:
            return "joint"
        return "mark" if word in STOP | LINKS | self.leads else "unknown"


__all__ = ["ARTICLES", "DENY_LIST", "LINKS", "Lexicon", "Target", "Token", "split_words"]
