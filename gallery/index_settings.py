"""How a gallery is searched: exactly while it is small, by an index above that."""

import json
import math
from dataclasses import asdict, dataclass, field

EXACT, IVF = "exact", "IVF_SQ"
# Below, comparing with every crop takes less than about 50 ms on two cores, and misses nothing.
EXACT_BELOW = 50_000
ROWS_PER_PARTITION = 2_000
# Of the partitions, until `info --tune` has measured what is needed. A fifth is enough for drawn
# embeddings, but loses a quarter of what descriptions find among those of PETA (docs/gallery.md).
PROBED_SHARE = 0.5
REFINE = 4  # times top-k candidates are compared again by their full embeddings


@dataclass(frozen=True)
class IndexSettings:
    """The parameters of searching, stored with the table.

    Args:
        kind: "exact" or "IVF_SQ" (inverted lists of embeddings in 8 bits per number).
        num_partitions: lists of the index. num_probes: lists that a query looks into.
        refine: so many times top-k candidates are compared again by their full embeddings.
        measured: what `info --tune` found: recall, latency, queries, rows.
    """

    kind: str = EXACT
    num_partitions: int = 0
    num_probes: int = 0
    refine: int = 1
    measured: dict = field(default_factory=dict)

    @classmethod
    def default(cls, num_rows: int) -> "IndexSettings":
        """What a gallery of so many crops starts with."""
        return cls() if num_rows < EXACT_BELOW else cls.for_index(num_rows)

    @classmethod
    def for_index(cls, num_rows: int) -> "IndexSettings":
        """An index for so many crops."""
        partitions = max(math.ceil(num_rows / ROWS_PER_PARTITION), 8)
        return cls(IVF, partitions, math.ceil(partitions * PROBED_SHARE), REFINE)

    def to_json(self) -> str:
        """As it is stored with the table."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes | None) -> "IndexSettings":
        """Read what `to_json` wrote; nothing written: exact search."""
        return cls(**json.loads(text)) if text else cls()


__all__ = ["EXACT", "EXACT_BELOW", "IVF", "IndexSettings"]
