"""Free text -> a query in the terms of a schema; what means nothing to the schema is reported.

The grammar is small: adjectives belong to the noun that follows them ("a red and white top") or,
when none follows, to the noun right before them ("hair is black"); nouns and things set themselves;
"no" and "without" deny what follows.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .phrases_clear import fold

STOP = frozenset(
    "a an the some one this that these those his her their its him them who which whose whom i me "
    "and or nor of at on to by for is are was were be been being also both as very please there "
    "show find search look looking image images picture photo all any has have".split()
)
LINKS = frozenset("is are was were in of colour coloured : = being looks".split())
LEADS = frozenset(
    "with wearing wears wear worn dressed clad in carrying carries carry holding holds hold having "
    "has have but while using pushing pulling".split()
)
JOINTS = frozenset(["and", "or", "nor", ","])
DENY_ONE, DENY_LIST = frozenset(["no"]), frozenset(["without", "not", "never", "lacking"])


@dataclass(frozen=True)
class ParsedQuery:
    """What free text says in the terms of a schema, and the words that say nothing to it.

    Args:
        query: as AttributeSchema.query_values takes it.
        not_understood: words of the text that the schema has no meaning for, in reading order.
    """

    query: dict[str, str | list[str] | bool]
    not_understood: tuple[str, ...] = ()


def split_words(text: str) -> list[str]:
    """Cut text into lower-case words and the marks , . : =

    >>> split_words("Long-haired woman; isn't in red/white.")
    ['long', 'haired', 'woman', '.', 'is', 'not', 'in', 'red', 'and', 'white', '.']
    """
    text = fold(text.replace("\u2019", "'"))
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"'s\b|[\"'()\[\]!?]", " ", text).replace("/", " and ").replace(";", ".")
    return re.findall(r"[^\W_]+|&|[,.:=]|[^\w\s]", text)


def singular(word: str) -> str:
    """Take off a plural s; only equality of results matters ("trouser", "glasse")."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@dataclass(frozen=True)
class Target:
    """What a term may mean: a value of a group (`value`) or a flag, said in a sentence part."""

    part: str
    key: str = ""
    value: str = ""
    attribute: str | None = None


@dataclass
class Term:
    """A known word or words.

    Args:
        kind: "adjective" looks for its noun; "trait" stands alone; "item" stands alone and is no
            adjective; "noun" is an attribute and takes adjectives; "part" only takes adjectives;
            "approximate" does, but is reported. Ordered by strength where kinds meet.
        targets: its meanings.
    """

    kind: str
    targets: tuple[Target, ...]


KINDS = ("noun", "item", "trait", "adjective", "part", "approximate")


class Lexicon:
    """All terms of a schema, found by the longest match, exact words before singular forms."""

    def __init__(self, schema):
        self.person = schema.parts[0].name
        self.exact: dict[tuple[str, ...], Term] = {}
        for part in schema.parts:
            for kind, words in (
                ("part", (part.noun, *part.nouns)),
                ("approximate", part.approximate),
            ):
                for word in words:
                    self._add(word, kind, Target(part.name))
        for group in schema.groups:
            part = next(p for p in schema.parts if group.section in p.sections)
            self._add(group.name, "part", Target(part.name))
        for entry, value, phrase in schema.entries:
            self._add_entry(schema, entry, value, phrase)
        self.folded: dict[tuple[str, ...], Term] = {}
        for words, term in self.exact.items():
            self.folded.setdefault(tuple(map(singular, words)), term)
        self.longest = max(map(len, self.exact))

    def _add_entry(self, schema, entry, value: str, phrase) -> None:
        attribute = entry.options.get(value) if value else entry.attribute
        target = Target(schema.part_of(entry, phrase), entry.name, value, attribute)
        alone = {"noun": "noun", "plural": "noun", "item": "item"}.get(phrase.role, "trait")
        bound = "adjective" if phrase.role == "adjective" else alone
        names = [f"{entry.name} {value}", *([attribute] if attribute else [])]
        for words in (*names, *phrase.alone):
            self._add(words, alone, target)
        for words in (re.sub(r"^(an?|the) ", "", phrase.text), *phrase.synonyms):
            self._add(words, bound, target)
        self._add(phrase.adjective, "adjective", target)

    def _add(self, text: str, kind: str, target: Target) -> None:
        words = tuple(split_words(text))
        known = self.exact.get(words)
        if not words or (known and KINDS.index(known.kind) < KINDS.index(kind)):
            return
        old = known.targets if known and known.kind == kind else ()
        self.exact[words] = Term(kind, (*old, *([] if target in old else [target])))

    def get(self, words: Sequence[str]) -> Term | None:
        words = tuple(words)
        return self.exact.get(words) or self.folded.get(tuple(map(singular, words)))

    def match(self, words: list[str]) -> Iterator["Token"]:
        at = 0
        while at < len(words):
            for length in range(min(self.longest, len(words) - at), 0, -1):
                if term := self.get(words[at : at + length]):
                    break
            else:
                length, term = 1, None
            yield Token(tuple(words[at : at + length]), term)
            at += length


@dataclass(frozen=True)
class Token:
    """Some words of the text and the term they are, if any."""

    words: tuple[str, ...]
    term: Term | None = None

    @property
    def kind(self) -> str:
        if self.term:
            return self.term.kind
        word = self.words[0]
        if word in DENY_ONE | DENY_LIST:
            return "deny"
        if word in JOINTS:
            return "joint"
        return "mark" if word in STOP | LINKS | LEADS | {"."} else "unknown"

    @property
    def parts(self) -> set[str]:
        return {target.part for target in self.term.targets}

    def fits(self, head: "Token") -> bool:
        return bool(self.parts & head.parts)

    @property
    def is_head(self) -> bool:
        return self.kind in ("noun", "part", "approximate")


@dataclass
class Reader:
    """Reads tokens from left to right and collects what they say.

    Args:
        lexicon: of the schema; `person`: the part that an adjective without a noun describes.
    """

    lexicon: Lexicon
    person: str
    said: list[tuple[Target, bool]] = field(default_factory=list)
    unknown: list[tuple[int, str]] = field(default_factory=list)
    run: list[tuple[int, Token]] = field(default_factory=list)  # adjectives without a noun as yet
    head: Token | None = None  # the last noun
    anchor: Token | None = None  # the noun right before the run
    joined: bool = False  # a comma or "and" is the last word of the run
    near: bool = False  # only links lie between the last noun and here
    denied: str = ""  # the denying word in force
    spent: bool = False  # it has denied something

    def read(self, tokens: list[Token]) -> None:
        for at, token in enumerate(tokens):
            rest = tokens[at + 1 :]
            if token.kind in ("adjective", "trait"):
                self._adjective(at, token)
            elif token.is_head:
                self._noun(at, token)
            elif token.kind == "item":
                self._close()
                self._say(token.term.targets)
            elif token.kind == "joint":
                self._joint(token, rest)
            elif token.kind == "deny":
                self._close()
                self.denied = token.words[0]
            elif token.kind == "mark":
                self._mark(token, tokens[at - 1] if at else None)
            else:
                self._unknown(at, token, rest)
        self._close()

    def _adjective(self, at: int, token: Token) -> None:
        targets = token.term.targets
        if token.kind == "trait":
            here = [t for t in targets if self.head and t.part in self.head.parts]
            if len(targets) == 1 or here:
                self._say(targets if len(targets) == 1 else here)
                return
        if not self.run:
            self.anchor = self.head if self.near else None
        self.run.append((at, token))
        self.joined = self.near = False

    def _noun(self, at: int, token: Token) -> None:
        if self.joined:
            self._close()
        for pair in self.run:  # "long red skirt": the noun is "long skirt"
            whole = self.lexicon.get(pair[1].words + token.words)
            if whole and whole.kind == "noun":
                token = Token(pair[1].words + token.words, whole)
                self.run.remove(pair)
                break
        self._bind(token, deny_attributes=token.kind != "noun")
        if token.kind == "noun":
            self._say(token.term.targets)
        elif token.kind == "approximate":
            self._report(at, token)
        self.head, self.near = token, True

    def _bind(self, head: Token | None, deny_attributes: bool = True) -> None:
        """Give the run of adjectives to a noun; what does not fit is reported."""
        parts = head.parts if head else ()
        for at, token in self.run:
            fitting = [t for t in token.term.targets if t.part in parts]
            fitting = fitting or [t for t in token.term.targets if t.part == self.person]
            if fitting and (deny_attributes or not self.denied):
                self._say(fitting)
            else:  # "no red hat" does not say that there is no hat, nor that nothing is red
                self._report(at, token)
        self.run, self.anchor, self.joined = [], None, False

    def _close(self) -> None:
        self._bind(self.anchor)
        self.near = False

    def _joint(self, token: Token, rest: list[Token]) -> None:
        word = token.words[0]
        fits = self.anchor and all(t.fits(self.anchor) for _, t in self.run)
        if not self.run or (word == "," and fits):
            self._close()
        self.joined = bool(self.run)
        if word in ("or", "nor"):
            self.spent = False
        elif (self.spent and self.denied in DENY_ONE) or (word == "," and not _or_follows(rest)):
            self.denied = ""

    def _mark(self, token: Token, previous: Token | None) -> None:
        word = token.words[0]
        if not (self.run and word in ("colour", "coloured")):
            near = self.near and word in LINKS
            self._close()
            self.near = near
        if word in LEADS | {"."} and not (previous and previous.kind == "deny"):
            self.denied = ""

    def _unknown(self, at: int, token: Token, rest: list[Token]) -> None:
        if self.joined or not (rest and rest[0].is_head):
            self._close()  # otherwise one strange adjective: "a red woollen top"
        self.near = False
        self._report(at, token)

    def _say(self, targets: Sequence[Target]) -> None:
        for target in targets:
            self.said.append((target, not self.denied))
        self.spent = True

    def _report(self, at: int, token: Token) -> None:
        self.unknown.append((at, " ".join(filter(None, [self.denied, *token.words]))))


def _or_follows(tokens: list[Token]) -> bool:
    """Whether the list goes on to an "or": "without a hat, bag or umbrella"."""
    for token in tokens:
        if token.words[0] in ("or", "nor"):
            return True
        if token.words[0] in LEADS | {"."} and token.term is None:
            return False
    return False


def parse_query(lexicon: Lexicon, text: str) -> ParsedQuery:
    """Match free text to the terms of a schema.

    Raises:
        ValueError: if nothing is understood.
    """
    reader = Reader(lexicon, lexicon.person)
    reader.read(list(lexicon.match(split_words(text))))
    query: dict[str, str | list[str] | bool] = {}
    for target, there in reader.said:
        if not target.value:
            query[target.key] = there
        elif there:
            values = query.setdefault(target.key, [])
            values.extend([target.value] if target.value not in values else [])
        elif target.attribute:
            query[target.attribute] = False
    if not query:
        raise ValueError(
            f"`text` must name at least one attribute of the schema, got {text!r}; "
            "try for example 'a woman with a red top'."
        )
    query = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in query.items()}
    return ParsedQuery(query, tuple(_phrases(sorted(reader.unknown))))


def _phrases(unknown: list[tuple[int, str]]) -> Iterator[str]:
    """Join neighbouring words."""
    last, words = None, []
    for at, word in unknown:
        if words and at != last + 1:
            yield " ".join(words)
            words = []
        last, words = at, [*words, word]
    if words:
        yield " ".join(words)


__all__ = ["Lexicon", "ParsedQuery", "fold", "parse_query"]
