"""Person retrieval metrics: mean average precision in both conventions, mINP and Rank-k.

Source: rectangular average precision as in SAL (arXiv 2007.09609), trapezoidal as in ASMR
(arXiv 2108.04533), mean inverse negative penalty as in arXiv 2001.04193.
`evaluate` reads the imports below line by line: one per line, and none from this project.
"""

import datasets
import evaluate
import numpy as np

RANKS = (1, 5, 10)
PART_CELLS = 2**21  # cells checked and negated at a time: at most 50 MB of working memory

_DESCRIPTION = """
Scores a gallery ranked for each query: mean average precision (rectangular and trapezoidal), mean
inverse negative penalty, and Rank-1, Rank-5 and Rank-10.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: similarities of queries and gallery images, larger is closer, (queries, gallery).
    references: 1 where the gallery image is relevant to the query, else 0, (queries, gallery).

Returns:
    mean_average_precision: rectangular, the mean of i / rank_i over a query's relevant images.
    mean_average_precision_trapezoid: the mean of (i / rank_i + (i - 1) / (rank_i - 1)) / 2, where
        the second fraction is 1 for rank 1.
    mean_inverse_negative_penalty: number of relevant images / rank of the last of them.
    rank_1, rank_5, rank_10: share of queries with a relevant image among the first 1, 5, 10.
    All are means over the queries that have a relevant image; equal scores keep the gallery order.

Examples:
    >>> metric = evaluate.load("./metrics/person_retrieval")
    >>> result = metric.compute(predictions=[[0.9, 0.8, 0.1]], references=[[0, 1, 1]])
    >>> round(result["mean_average_precision"], 4), result["rank_1"], result["rank_5"]
    (0.5833, 0.0, 1.0)
"""

_CITATION = """
@article{ye2021deep,
  title={Deep Learning for Person Re-identification: A Survey and Outlook},
  author={Ye, Mang and Shen, Jianbing and Lin, Gaojie and Xiang, Tao and Shao, Ling and
    Hoi, Steven C. H.},
  journal={IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year={2021}
}
"""


def retrieval_metrics(blocks):
    """Score rankings given block by block, so that the whole matrices need never exist.

    Args:
        blocks: iterable of (scores, relevance) pairs, each (queries of this block, gallery); the
            gallery is the same in all. For whole matrices: `[(scores, relevance)]`.

    Returns:
        The entries of `mean_over_queries`.

    Raises:
        ValueError: if shapes or values are wrong, or no query has a relevant image.

    >>> two_blocks = [([[0.9, 0.8, 0.1]], [[0, 1, 1]]), ([[0.1, 0.2, 0.3]], [[0, 0, 1]])]
    >>> result = retrieval_metrics(two_blocks)
    >>> result["rank_1"], round(result["mean_inverse_negative_penalty"], 4), result["num_queries"]
    (0.5, 0.8333, 2)
    """
    return mean_over_queries(query_metrics(blocks))


def query_metrics(blocks):
    """Score each query by itself, for means over a part of the queries and for error analysis.

    Args:
        blocks: as for `retrieval_metrics`.

    Returns:
        `average_precision`, `average_precision_trapezoid`, `inverse_negative_penalty`, `rank_1`,
        `rank_5`, `rank_10`: float64 arrays (queries,), in [0, 1]; nan without a relevant image.

    Raises:
        ValueError: if shapes or values are wrong, or there is no query.
    """
    parts = [_rank_and_score(scores, relevance) for scores, relevance in _sortable_parts(blocks)]
    if not parts:
        raise ValueError("`blocks` must hold at least one query, got none.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def mean_over_queries(per_query):
    """Average the result of `query_metrics` over the queries that have a relevant image.

    Args:
        per_query: the arrays of `query_metrics`, all indexed alike where only a part is wanted.

    Returns:
        `mean_average_precision`, `mean_average_precision_trapezoid`,
        `mean_inverse_negative_penalty`, `rank_1`, `rank_5`, `rank_10`: floats in [0, 1];
        `num_queries`: how many were averaged; `num_queries_without_relevant`: how many were not.

    Raises:
        ValueError: if no query has a relevant image.
    """
    is_counted = ~np.isnan(per_query["average_precision"])
    if not is_counted.any():
        raise ValueError(
            "`references` must mark a relevant gallery image for at least one query, got none."
        )
    means = {
        name if name.startswith("rank_") else f"mean_{name}": float(values[is_counted].mean())
        for name, values in per_query.items()
    }
    num_queries = int(is_counted.sum())
    without_relevant = len(is_counted) - num_queries
    return means | {"num_queries": num_queries, "num_queries_without_relevant": without_relevant}


def _sortable_parts(blocks):
    """Yield the same rows in checked parts of at most `PART_CELLS` cells (or one row)."""
    gallery_size = None
    for scores, relevance in blocks:
        scores, relevance = _matrix("predictions", scores), _matrix("references", relevance)
        _check_shapes(scores, relevance, gallery_size)
        gallery_size = scores.shape[1]
        num_rows = max(1, PART_CELLS // gallery_size)
        for start in range(0, len(scores), num_rows):
            rows = slice(start, start + num_rows)
            yield _ordered_scores(scores[rows]), _boolean_relevance(relevance[rows])


def _rank_and_score(scores, relevance):
    """The entries of `query_metrics`: each a sum or a mean over a query's relevant images."""
    query, rank = _relevant_ranks(scores, relevance)
    num_relevant = np.bincount(query, minlength=len(scores))  # (queries,)
    num_before = np.cumsum(num_relevant) - num_relevant  # relevant images of earlier queries
    found = np.arange(1, len(rank) + 1) - num_before[query]  # 1, 2, ... within each query
    precision = found / rank
    # Precision just above each relevant image; ASMR takes 1 where nothing is above.
    precision_above = np.divide(found - 1, rank - 1, out=np.ones(len(rank)), where=rank > 1)

    def total(values):
        sums = np.bincount(query, weights=values, minlength=len(scores))
        return np.where(num_relevant > 0, sums, np.nan)

    divisor = np.maximum(num_relevant, 1)
    return {
        "average_precision": total(precision) / divisor,
        "average_precision_trapezoid": total((precision_above + precision) / 2) / divisor,
        "inverse_negative_penalty": total(precision * (found == num_relevant[query])),
        **{f"rank_{k}": total((found == 1) & (rank <= k)) for k in RANKS},
    }


def _relevant_ranks(scores, relevance):
    """Row and rank of every relevant image, (relevant images of all queries,), in this order."""
    row_ranks = [_row_ranks(*row) for row in zip(-scores, relevance, strict=True)]
    query = np.repeat(np.arange(len(scores)), [len(ranks) for ranks in row_ranks])
    return query, np.concatenate([np.zeros(0, dtype=np.int64), *row_ranks])


def _row_ranks(distances, is_relevant):
    """Ranks of the relevant images of one query, ascending, counted from 1.

    Only their places are looked up: sorting values alone is far faster than sorting numbers of
    images. Where such a value occurs twice, the order of the gallery decides, so that is sorted.
    """
    ordered, wanted = np.sort(distances), np.sort(distances[is_relevant])
    first = np.searchsorted(ordered, wanted, side="left")
    if np.array_equal(np.searchsorted(ordered, wanted, side="right"), first + 1):
        return first + 1
    order = np.argsort(distances, kind="stable")
    return np.flatnonzero(is_relevant[order]) + 1


def _matrix(name, values):
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` must have rows of one length, got ragged rows.") from error


def _check_shapes(scores, relevance, gallery_size):
    if scores.ndim != 2 or scores.shape != relevance.shape or scores.shape[1] == 0:
        raise ValueError(
            "`predictions` and `references` must both be (queries, gallery), "
            f"got {scores.shape} and {relevance.shape}."
        )
    if gallery_size not in (None, scores.shape[1]):
        raise ValueError(
            f"`blocks` must share one gallery, got {scores.shape[1]} images after {gallery_size}."
        )


def _ordered_scores(scores):
    """Floats, so that they can be negated without overflow; nan has no place in an order."""
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if np.isnan(scores).any():
        raise ValueError("`predictions` must be numbers, got nan.")
    return scores


def _boolean_relevance(relevance):
    if not np.all((relevance == 0) | (relevance == 1)):
        other = relevance[(relevance != 0) & (relevance != 1)][0]
        raise ValueError(f"`references` must be 0 or 1, got {other}.")
    return relevance == 1


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PersonRetrieval(evaluate.Metric):
    """`retrieval_metrics` of whole matrices behind the interface of `evaluate`."""

    def _info(self):
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/2001.04193"],
        )

    def _compute(self, predictions, references):
        result = retrieval_metrics([(predictions, references)])
        return {name: value for name, value in result.items() if not name.startswith("num_")}


__all__ = ["PersonRetrieval", "mean_over_queries", "query_metrics", "retrieval_metrics"]
