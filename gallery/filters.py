"""Filters: the part of SQL that says which crops count, read and written anew.

    camera = 'c1' AND time >= '2024-05-01' AND backpack AND NOT (upperBodyRed > 0.5)

What the engine gets is never the user's text: it is written from the parsed conditions, with
columns that exist and values that were read as such. No function, sub-query or statement can pass.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

LONGEST_FILTER = 10_000  # characters
DEEPEST = 40  # levels of brackets and NOT
KEYWORDS = {"AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"}
COMPARISONS = {"=", "==", "!=", "<>", "<", "<=", ">", ">="}
PRESENT_ABOVE = 0.5  # an attribute's name alone means that its probability is above this

TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"[^"]+"|`[^`]+`)
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])
      | (?P<word>[^\W\d][\w-]*(?:\.[^\W\d][\w-]*)*)
      | (?P<sign>==|!=|<>|<=|>=|[=<>(),])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Column:
    """A column that filters may name.

    sql: its name as the engine reads it. kind: "text", "number", "whole" (number), "time",
    "flag" or "probability".
    """

    sql: str
    kind: str


def column(path: str, kind: str) -> Column:
    """The column of a name, or of a dotted path into a struct."""
    return Column(".".join(f"`{part}`" for part in path.split(".")), kind)


def compile_filter(text: str, columns: Mapping[str, Column]) -> str:
    """Check a filter and write it as SQL of the engine.

    Args:
        text: comparisons (= != < <= > >=), IN (...), LIKE '...', BETWEEN ... AND ..., IS [NOT]
            NULL, AND, OR, NOT and brackets. An attribute or flag may stand alone. Names with
            spaces stand in double quotes, text and times (ISO 8601, UTC) in single ones.
        columns: what may be named.

    Raises:
        ValueError: for anything else.

    >>> columns = {"camera": column("camera", "text")}
    >>> columns["hat"] = column("attributes.hat", "probability")
    >>> compile_filter("camera IN ('a', 'it''s') and not hat", columns)
    "(`camera` IN ('a', 'it''s') AND (NOT `attributes`.`hat` > 0.5))"
    """
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_FILTER:
        raise ValueError(
            f"`filter` must be a condition of at most {LONGEST_FILTER} characters, got "
            f"{str(text)[:40]!r}."
        )
    return _Reader(text, columns).read()


class _Reader:
    """Reads the tokens of one filter from left to right."""

    def __init__(self, text: str, columns: Mapping[str, Column]):
        self.text, self.columns, self.at, self.depth = text, columns, 0, 0
        self.folded = {name.casefold(): known for name, known in reversed(columns.items())}
        self.tokens = list(self._split())

    def _split(self):
        start = 0
        while self.text[start:].strip():
            match = TOKEN.match(self.text, start)
            if match is None:
                raise self._wrong(f"cannot read {self.text[start:].strip()[:20]!r}")
            kind, value = match.lastgroup, match.group(match.lastgroup)
            if kind == "word" and value.upper() in KEYWORDS:
                kind, value = "keyword", value.upper()
            yield kind, value
            start = match.end()
        yield "end", ""

    def _wrong(self, reason: str) -> ValueError:
        return ValueError(
            f"`filter` must be a condition over columns, like \"camera = 'c1' AND hat > 0.5\", got "
            f"{self.text[:200]!r}: {reason}."
        )

    # ---- tokens -----------------------------------------------------------------------------

    def _next(self, *kinds: str, what: str) -> str:
        kind, value = self.tokens[self.at]
        if kind not in kinds:
            raise self._wrong(f"{what} must follow, not {value or 'the end'!r}")
        self.at += 1
        return value

    def _take(self, value: str) -> bool:
        """Step over a keyword or sign if it stands here."""
        found = self.tokens[self.at] in (("keyword", value), ("sign", value))
        self.at += found
        return found

    def _need(self, value: str) -> None:
        if not self._take(value):
            found = self.tokens[self.at][1] or "the end"
            raise self._wrong(f"{value!r} must follow, not {found!r}")

    # ---- conditions -------------------------------------------------------------------------

    def read(self) -> str:
        sql = self._joined("OR", lambda: self._joined("AND", self._negated))
        self._next("end", what="AND, OR or the end")
        return sql

    def _joined(self, word: str, part: Callable[[], str]) -> str:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else f"({f' {word} '.join(parts)})"

    def _negated(self) -> str:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._wrong(f"more than {DEEPEST} levels of brackets")
        if self._take("NOT"):
            sql = f"(NOT {self._negated()})"
        elif self._take("("):
            sql = self._joined("OR", lambda: self._joined("AND", self._negated))
            self._need(")")
        else:
            sql = self._condition()
        self.depth -= 1
        return sql

    def _condition(self) -> str:
        known = self._column()
        kind, value = self.tokens[self.at]
        if kind == "sign" and value in COMPARISONS:
            self.at += 1
            return f"{known.sql} {'=' if value == '==' else value} {self._value(known)}"
        if self._take("IS"):
            negated = "NOT " if self._take("NOT") else ""
            self._need("NULL")
            return f"{known.sql} IS {negated}NULL"
        negated = "NOT " if self._take("NOT") else ""
        if self._take("IN"):
            return f"{known.sql} {negated}IN ({self._values(known)})"
        if self._take("BETWEEN"):
            low = self._value(known)
            self._need("AND")
            return f"{known.sql} {negated}BETWEEN {low} AND {self._value(known)}"
        if known.kind == "text" and self._take("LIKE"):
            return f"{known.sql} {negated}LIKE {self._value(known)}"
        if negated or known.kind not in ("probability", "flag"):
            raise self._wrong(f"a comparison must follow the {known.kind} column {known.sql}")
        return known.sql + (f" > {PRESENT_ABOVE}" if known.kind == "probability" else "")

    def _column(self) -> Column:
        name = self._next("word", "quoted", what="the name of a column")
        name = name.strip('"`')
        known = self.columns.get(name) or self.folded.get(name.casefold())
        if known is None:
            close = difflib.get_close_matches(name, self.columns, n=3)
            hint = f"did you mean {', '.join(close)}" if close else "`info` lists the columns"
            raise self._wrong(f"there is no column {name!r}; {hint}")
        return known

    # ---- values -----------------------------------------------------------------------------

    def _values(self, known: Column) -> str:
        self._need("(")
        values = [self._value(known)]
        while self._take(","):
            values.append(self._value(known))
        self._need(")")
        return ", ".join(values)

    def _value(self, known: Column) -> str:
        if known.kind == "flag":
            value = self._next("keyword", what="TRUE or FALSE")
            if value not in ("TRUE", "FALSE"):
                raise self._wrong(f"TRUE or FALSE must follow, not {value!r}")
            return value
        if known.kind in ("number", "whole", "probability"):
            return self._number(self._next("number", what=f"a number for {known.sql}"), known)
        text = self._next("text", what=f"a value in single quotes for {known.sql}")
        return self._time(text) if known.kind == "time" else text

    def _number(self, text: str, known: Column) -> str:
        """As the engine reads it: without a plus, whole ones within 64 bits."""
        number = float(text)
        if not math.isfinite(number):
            raise self._wrong(f"{text} is too large a number")
        if known.kind != "whole":
            return text.removeprefix("+")
        if not number.is_integer() or abs(number) >= 2**63:
            raise self._wrong(f"a whole number for {known.sql} must follow, not {text}")
        return str(int(text) if text.lstrip("+-").isdigit() else int(number))

    def _time(self, text: str) -> str:
        try:
            return f"TIMESTAMP '{utc(text[1:-1]).isoformat(' ')}'"
        except ValueError:
            raise self._wrong(f"{text} is no time like '2024-05-01T12:30:00'") from None


def utc(value: str | float | datetime) -> datetime:
    """A time as naive UTC: ISO 8601, seconds since 1970, or a datetime; without zone: UTC.

    Raises:
        ValueError: for anything else.

    >>> utc("2024-05-01T12:30:00+02:00")
    datetime.datetime(2024, 5, 1, 10, 30)
    """
    try:
        if not isinstance(value, datetime):
            is_text = isinstance(value, str)
            value = datetime.fromisoformat(value.strip()) if is_text else _since_1970(value)
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    except (TypeError, ValueError, OverflowError, OSError):
        raise ValueError(f"`time` must be ISO 8601 or seconds since 1970, got {value!r}.") from None


def _since_1970(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


__all__ = ["Column", "column", "compile_filter", "utc"]
