"""How much the classifier's evidence counts beside the cosine: chosen on a validation split."""

from collections.abc import Sequence

import numpy as np

from ..evidence_clear import fused_scores
from ..metrics.person_retrieval.person_retrieval import retrieval_metrics

FUSION_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
PARTIAL_SIZES = (1, 2, 3, 5)  # attributes that a partial query names

Task = tuple[np.ndarray, np.ndarray, np.ndarray]  # cosines, evidence, relevance: (queries, gallery)


def choose_fusion_weight(
    exact: Task, partial: Sequence[Task], scale: float, weights: Sequence[float] = FUSION_WEIGHTS
) -> float:
    """The weight with the best mean average precision, the smallest of equal ones.

    Exact categories count one half, the sizes of partial queries the other, all alike.

    Args: exact: queries of whole categories. partial: one task for each size.
    """

    def score(weight: float) -> float:
        precision = [
            retrieval_metrics([(fused_scores(cosines, evidence, scale, weight), relevance)])
            for cosines, evidence, relevance in (exact, *partial)
        ]
        first, *others = (result["mean_average_precision"] for result in precision)
        return first + float(np.mean(others)) if others else first

    return max(sorted(weights), key=score)
