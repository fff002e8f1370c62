"""Queries -> labels: names are looked up, free text is read, and what means nothing is reported.

The grammar of free text is small. Adjectives belong to the noun that follows them ("a red and white
top") or, when none does, to the noun right before them ("hair is black"). Nouns and things state
themselves. "no" and "not" deny the next thing, "without" a whole list. Nothing is dropped silently.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .lexicon_clear import ARTICLES, DENY_LIST, LINKS, Lexicon, Target, Token, split_words
from .phrases_clear import ABSENT, PRESENT, fold, unknown_name


class QueryNames:
    """The names that a query may use, and the labels that they state.

    Args:
        schema: AttributeSchema.
    """

    def __init__(self, schema):
        self.schema = schema
        self.groups = {fold(group.name): group for group in schema.groups}
        self.attribute_of = {fold(name): name for name in schema.attributes}
        for group in schema.groups:
            options = {fold(f"{group.name} {value}"): a for value, a in group.options.items()}
            self.attribute_of |= options
        self.attribute_of |= {fold(flag.name): flag.attribute for flag in schema.flags}

    def labels(self, query: Mapping | Iterable[str]) -> dict[str, int]:
        """Return attribute -> 1 or 0; see AttributeSchema.query_values."""
        if isinstance(query, str):
            raise ValueError(
                f"`query` must be a dict or a list, got {query!r}; `parse` reads text."
            )
        said: dict[str, int] = {}
        items = query.items() if isinstance(query, Mapping) else map(self._item, query)
        for key, wanted in items:
            for attribute, label in self._labels_of(key, wanted):
                if said.setdefault(attribute, label) != label:
                    raise ValueError(
                        f"`query` must not contradict itself, got {attribute} present and absent."
                    )
        if not said:
            raise ValueError("`query` must name at least one attribute, got an empty query.")
        for group in self.groups.values():
            options = group.options.values()
            if group.exclusive and PRESENT in map(said.get, options):
                said = dict.fromkeys(options, ABSENT) | said
        return said

    def _labels_of(self, key: str, wanted) -> Iterator[tuple[str, int]]:
        """Yield the labels that one item of a query states."""
        group = self.groups.get(fold(key))
        if group is None:
            yield self._flag_label(key, wanted)
            return
        words = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(words, (list, tuple)) or not words:
            raise ValueError(
                f"`query[{key!r}]` must be one or more of {', '.join(group.phrases)}, "
                f"got {wanted!r}."
            )
        for word in words:
            value = group.value_of(word)
            if value is None:
                raise self._unknown(word, f"a value of {group.name!r}", group.phrases)
            if value in group.options:
                yield group.options[value], PRESENT
            else:
                yield from ((attribute, ABSENT) for attribute in group.options.values())

    def _flag_label(self, key: str, wanted) -> tuple[str, int]:
        attribute = self.attribute_of.get(fold(key))
        if attribute is None:
            flags = [flag.name for flag in self.schema.flags]
            names = [*self.groups, *flags, *self.schema.attributes]
            raise self._unknown(key, "a group, flag or attribute", names)
        if wanted not in (True, False):
            raise ValueError(f"`query[{key!r}]` must be True or False, got {wanted!r}.")
        return attribute, int(wanted)

    def _item(self, name: str) -> tuple[str, str | bool]:
        """Return the query item that a single name stands for."""
        if fold(name) in self.attribute_of:
            return name, True
        values = [(entry.name, value) for entry, value, _ in self.schema.entries if value]
        found = [item for item in values if fold(name) in (fold(item[1]), fold(" ".join(item)))]
        if len(found) == 1:
            return found[0]
        if found:
            full = ", ".join(map(" ".join, found))
            raise ValueError(f"`query` must say which {name!r} it means, one of: {full}.")
        flags = [flag.name for flag in self.schema.flags]
        names = [*flags, *(value for _, value in values), *self.schema.attributes]
        raise self._unknown(name, "a flag, value or attribute", names)

    def _unknown(self, got, what: str, names: Iterable[str]) -> ValueError:
        return unknown_name("query", got, f"{what} of {self.schema.name!r}", names)


@dataclass(frozen=True)
class ParsedQuery:
    """What free text says in the terms of a schema, and the words that say nothing to it.

    Args:
        query: as AttributeSchema.query_values takes it.
        not_understood: words of the text that the schema has no meaning for, in reading order.
    """

    query: dict[str, str | list[str] | bool]
    not_understood: tuple[str, ...] = ()


@dataclass
class Reader:
    """Reads tokens from left to right and collects what they say.

    Args:
        lexicon: of the schema.
        tokens: of the text.
    """

    lexicon: Lexicon
    tokens: list[Token]
    said: list[tuple[Target, bool]] = field(default_factory=list)
    unknown: dict[int, str] = field(default_factory=dict)  # place in the text -> words
    run: list[int] = field(default_factory=list)  # places of adjectives without a noun as yet
    joined: bool = False  # a comma or "and" is the last word of the run
    head: Token | None = None  # the last noun
    near: bool = False  # only links lie between the last noun and here
    anchor: Token | None = None  # the noun right before the run
    denied: int | None = None  # place of the denying word in force
    spent: bool = False  # it has denied something

    def read(self) -> None:
        """Read the whole text; nouns of a part about which nothing is said are reported."""
        for at, token in enumerate(self.tokens):
            if token.is_head or token.kind == "item":
                self._thing(at, token)
            else:
                getattr(self, f"_{token.kind}")(at, token)
        self._close()
        spoken = {self.lexicon.person, *(target.part for target, _ in self.said)}
        for at, token in enumerate(self.tokens):
            if token.kind == "part" and not token.parts & spoken and at not in self.unknown:
                self._report(at)

    def _trait(self, at: int, token: Token) -> None:
        here = [t for t in token.targets if self.head and t.part in self.head.parts]
        if len(token.targets) == 1 or here:
            self._say(at, here or token.targets)
            self.joined = False  # "blue and blond hair": the run goes on
        else:
            self._adjective(at, token)

    def _adjective(self, at: int, token: Token) -> None:
        if not self.run:
            self.anchor = self.head if self.near else None
        self.run.append(at)
        self.joined = self.near = False

    def _thing(self, at: int, token: Token) -> None:
        """Read a noun with the adjectives before it, or an item, which takes none."""
        if self.joined:
            self._close()
        token = self._whole(token)
        alone = token.kind in ("part", "approximate") and not self.run and not self.spent
        described = token.kind in ("noun", "item") and self.run
        if self.denied is not None and (alone or described):
            # "no red hat" leaves open whether there is a hat; "no shirt" is no label.
            for place in (*self.run, at):
                self._report(place)
            self.run = []
        else:
            self._bind(self.anchor if token.kind == "item" else token)
            if token.kind in ("noun", "item"):
                self._say(at, token.targets)
            elif token.kind == "approximate":
                self._report(at)
        self.near = token.is_head
        self.head = token if token.is_head else self.head

    def _whole(self, noun: Token) -> Token:
        """Return the noun that takes in one of its adjectives: "long skirt" of "long red skirt"."""
        for place in self.run:
            whole = self.lexicon.get(self.tokens[place].words + noun.words)
            if whole and whole.kind == "noun":
                self.run.remove(place)
                return whole
        return noun

    def _bind(self, head: Token | None) -> None:
        """Give the run of adjectives to a noun; those that do not fit describe the person."""
        for place in self.run:
            targets = self.tokens[place].targets
            fitting = [t for t in targets if head and t.part in head.parts]
            fitting = fitting or [t for t in targets if t.part == self.lexicon.person]
            if fitting:
                self._say(place, fitting)
            else:
                self._report(place)
        self.run, self.anchor, self.joined = [], None, False

    def _close(self) -> None:
        self._bind(self.anchor)
        self.near = False

    def _joint(self, at: int, token: Token) -> None:
        word, anchor = token.words[0], self.anchor
        fits = anchor and all(self.tokens[place].parts & anchor.parts for place in self.run)
        if not self.run or (word == "," and fits):
            self._close()
        self.joined = bool(self.run)
        if word in ("or", "nor"):
            self.spent = False
        elif self.denied is not None and not (word == "," and self._or_follows(at)):
            deny_list = self.tokens[self.denied].words[0] in DENY_LIST
            self._end_denial(word == "," or (self.spent and not deny_list))

    def _or_follows(self, at: int) -> bool:
        """Whether a list of things goes on to an "or": "no hat, bag or umbrella"."""
        for token in self.tokens[at + 1 :]:
            if token.words[0] in ("or", "nor"):
                return True
            if token.kind == "adjective" or token.words[0] in self.lexicon.leads:
                return False
        return False

    def _mark(self, at: int, token: Token) -> None:
        word = token.words[0]
        if not (self.run and word in ("colour", "coloured")):
            near = self.near and word in LINKS
            self._close()
            self.near = near
        if word in self.lexicon.leads and self.denied != at - 1:
            self._end_denial()

    def _deny(self, at: int, token: Token) -> None:
        near = self.near
        self._close()
        self.near, self.denied, self.spent = near, at, False

    def _end_denial(self, ended: bool = True) -> None:
        self.denied = None if ended else self.denied

    def _unknown(self, at: int, token: Token) -> None:
        # One strange adjective is passed over: "a red woollen top", "light blue and dark grey".
        after = self.tokens[at + 1] if at + 1 < len(self.tokens) else token
        if not (after.is_head or (self.joined and after.kind == "adjective")):
            self._close()
        self.near = False
        self._report(at)

    def _say(self, at: int, targets: Sequence[Target]) -> None:
        self.spent = True
        # "shorts" are short trousers: without them either may be there, but not both.
        both = len({t.key for t in targets}) > len({t.part for t in targets})
        for target in targets:
            if self.denied is not None and (target.attribute is None or both):
                self._report(at)  # no label says that a value without an attribute is absent
            else:
                self.said.append((target, self.denied is None))

    def _report(self, at: int) -> None:
        self.spent = True
        self.unknown[at] = " ".join(self.tokens[at].words)
        if self.denied is not None:
            between = range(self.denied + 1, at)
            if all(i in self.unknown or self._is_article(i) for i in between):
                self.unknown[self.denied] = self.tokens[self.denied].words[0]
            else:
                self.unknown[at] = f"{self.tokens[self.denied].words[0]} {self.unknown[at]}"

    def _is_article(self, at: int) -> bool:
        return self.tokens[at].words[0] in ARTICLES

    def not_understood(self) -> Iterator[str]:
        """Yield the reported words, neighbours together."""
        words: list[str] = []
        for at in range(len(self.tokens) + 1):
            if at in self.unknown:
                words.append(self.unknown[at])
            elif words and at + 1 in self.unknown and self._is_article(at):
                words.append(self.tokens[at].words[0])
            elif words:
                yield " ".join(words)
                words = []


def parse_query(lexicon: Lexicon, text: str) -> ParsedQuery:
    """Match free text to the terms of a schema.

    Raises:
        ValueError: if nothing is understood.

    >>> from clear_par.attributes_clear import AttributeSchema
    >>> AttributeSchema.from_names(["hat", "bag"]).parse("a tall man without a hat")
    ParsedQuery(query={'hat': False}, not_understood=('tall man',))
    """
    reader = Reader(lexicon, list(lexicon.tokens(split_words(text))))
    reader.read()
    query: dict[str, str | list[str] | bool] = {}
    for target, there in reader.said:
        if not target.value:
            query[target.key] = there
        elif not there:
            query[target.attribute] = False
        elif target.value not in query.setdefault(target.key, []):
            query[target.key].append(target.value)
    unknown = tuple(reader.not_understood())
    if not query:
        raise ValueError(
            f"`text` must name an attribute that the schema knows, got {text!r} "
            f"(not understood: {', '.join(unknown) or 'nothing said'})."
        )
    single = {key: v[0] if isinstance(v, list) and len(v) == 1 else v for key, v in query.items()}
    return ParsedQuery(single, unknown)


__all__ = ["ParsedQuery", "QueryNames", "parse_query"]
