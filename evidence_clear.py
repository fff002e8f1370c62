"""How well the recognised attributes of each image agree with a query: a log-likelihood.

The classifier gives each attribute a probability of its own. Within an exclusive group that is more
freedom than the labels have: here the group's logits become one distribution over its values. This
evidence needs no training, and joins the cosine of the joint space with a weight. The mean over the
choices that a query speaks of, not the sum, lets one weight serve short and long queries: a short
query is answered best by much of it, a whole category by little. NumPy only.
"""

import numpy as np

from .attributes_clear import AttributeSchema
from .phrases_clear import ABSENT, PRESENT, UNKNOWN

IMPOSSIBLE = -50.0  # instead of minus infinity, which no weight can make up for


def choice_columns(schema: AttributeSchema) -> list[list[int]]:
    """The places in the label row that each choice consists of: the groups, then the flags.

    >>> choice_columns(AttributeSchema.from_names(["hat", "bag"]))
    [[0], [1]]
    """
    groups = [[schema.index(a) for a in group.options.values()] for group in schema.groups]
    return [*groups, *([schema.index(flag.attribute)] for flag in schema.flags)]


def query_evidence(logits, queries, schema: AttributeSchema) -> np.ndarray:
    """`group_log_likelihood`, as the mean over the choices (groups, flags) that a query speaks of.

    Shape: logits (gallery, attributes), queries (queries, attributes) of 1, 0 and -100 -> (queries,
        gallery) float32, at most 0.
    """
    is_said = np.asarray(queries) != UNKNOWN
    counts = np.zeros(len(is_said), dtype=int)
    for columns in choice_columns(schema):
        counts += is_said[:, columns].any(axis=1)
    total = group_log_likelihood(logits, queries, schema)
    return total / np.maximum(counts, 1)[:, None].astype(np.float32)


def group_log_likelihood(logits, queries, schema: AttributeSchema) -> np.ndarray:
    """Logarithm of the probability that an image shows what a query says.

    Exclusive groups: the soft-max of the options' logits and of 0 for "none of them" (the group's
    `otherwise`; left out where that is an option itself). What a query leaves open is summed over:
    "not long" is the probability of all other hair lengths. Flags, options of the other groups, and
    exclusive groups asked for two values at once: each attribute by itself, from its sigmoid.

    Args:
        logits: (gallery, attributes) of the classifier, in the order of the schema.
        queries: (queries, attributes) of 1 present, 0 absent, -100 unsaid.
        schema: what the attributes mean.
    Returns: (queries, gallery) float32, at most 0; 0 for a query that says nothing.
    Raises: ValueError for arrays of another width, or other values in the queries.

    >>> schema = AttributeSchema.from_names(["hat", "bag"])
    >>> found = group_log_likelihood([[0.0, 5.0]], [[1, -100], [-100, -100]], schema)
    >>> [round(row[0], 4) for row in found.tolist()]
    [-0.6931, 0.0]
    """
    logits, queries = _checked(logits, queries, schema)
    separate, total = queries.copy(), np.zeros((len(queries), len(logits)))
    for group in schema.groups:
        if not group.exclusive:
            continue
        columns = [schema.index(name) for name in group.options.values()]
        asked = queries[:, columns]
        is_double = (asked == PRESENT).sum(axis=1, keepdims=True) > 1
        separate[:, columns] = np.where(is_double, asked, UNKNOWN)
        patterns, which = np.unique(
            np.where(is_double, UNKNOWN, asked), axis=0, return_inverse=True
        )
        has_none = group.otherwise not in group.options
        table = np.stack([_choice(logits[:, columns], row, has_none) for row in patterns])
        total += table[which.reshape(-1)]
    present, absent = (separate == PRESENT).astype(float), (separate == ABSENT).astype(float)
    total += absent @ _log_sigmoid(-logits).T + present @ _log_sigmoid(logits).T
    return total.astype(np.float32)


def _choice(logits: np.ndarray, said: np.ndarray, has_none: bool) -> np.ndarray:
    """Log-probability of the values of one group that agree with what is said.

    Shape: logits (gallery, options), said (options,) -> (gallery,).
    """
    if (said == UNKNOWN).all():
        return np.zeros(len(logits))
    is_possible = said == PRESENT if (said == PRESENT).any() else said != ABSENT
    if has_none:
        logits = np.concatenate([logits, np.zeros((len(logits), 1))], axis=1)
        is_possible = np.append(is_possible, not (said == PRESENT).any())
    possible = np.where(is_possible, logits, -np.inf)
    with np.errstate(divide="ignore"):  # all options denied where "none" is no value: impossible
        return np.maximum(_log_sum(possible) - _log_sum(logits), IMPOSSIBLE)


def _log_sum(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    return np.log(np.exp(values - largest).sum(axis=1)) + largest[:, 0]


def _log_sigmoid(values: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -values)


def _checked(logits, queries, schema: AttributeSchema) -> tuple[np.ndarray, np.ndarray]:
    logits, queries = np.asarray(logits, dtype=float), np.asarray(queries)
    for name, array in (("logits", logits), ("queries", queries)):
        if array.ndim != 2 or array.shape[1] != schema.num_attributes:
            raise ValueError(
                f"`{name}` must be (rows, {schema.num_attributes}), the attributes of "
                f"{schema.name!r}, got {array.shape}."
            )
    if not np.isin(queries, (PRESENT, ABSENT, UNKNOWN)).all():
        raise ValueError(f"`queries` must be 1, 0 or -100, got {np.unique(queries)[:5].tolist()}.")
    return logits, queries


def fused_scores(cosines, evidence, scale: float, weight: float) -> np.ndarray:
    """Scores that rank a gallery: scale * cosine + weight * evidence.

    Args:
        cosines, evidence: (queries, gallery); the latter of `query_evidence`.
        scale: that of the adapter's loss.
        weight: the adapter's `fusion_weight`; 0: the cosine alone.

    >>> fused_scores([[0.5]], [[-2.0]], scale=12.0, weight=0.5).tolist()
    [[5.0]]
    """
    return scale * np.asarray(cosines) + weight * np.asarray(evidence)


__all__ = ["choice_columns", "fused_scores", "group_log_likelihood", "query_evidence"]
