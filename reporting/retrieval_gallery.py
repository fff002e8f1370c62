"""A gallery that is evaluated: its images, and each way to rank them for any queries."""

from dataclasses import dataclass

import numpy as np
import torch

from ..attributes_clear import PRESENT
from ..evidence_clear import group_log_likelihood
from ..modeling_clear import ClearModel
from ..peft_clear import active_adapter_config, search_scores, shared_vocabulary
from ..processing_clear import ClearProcessor
from ..training.fusion import PARTIAL_SIZES
from ..training.queries import TextCache, partial_queries
from .retrieval import (
    Scorer,
    cosine_scorer,
    likelihood_scorer,
    partial_row,
    random_scorer,
    single_attribute_rows,
)

ADAPTER, FUSED = "CLEAR adapter", "CLEAR adapter with evidence"


@dataclass(frozen=True)
class EvaluatedGallery:
    """Images as the adapter and the classifier see them.

    Args:
        model: with an active adapter. processor: makes that adapter's kind of query, in its words.
        labels: (images, attributes of the adapter) of 1, 0 and -100.
        logits: (images, attributes of the base).
        image_embeds: (images, embed_dim), unit length. texts: None for hard queries.
    """

    model: ClearModel
    processor: ClearProcessor
    labels: np.ndarray
    logits: torch.Tensor
    image_embeds: torch.Tensor
    texts: TextCache | None

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: ClearModel,
        processor: ClearProcessor,
        labels: np.ndarray,
        logits: torch.Tensor,
        features: torch.Tensor,
    ) -> "EvaluatedGallery":
        """The gallery of crops whose logits and features (images, feature_dim) are known."""
        image_embeds = model.get_image_features(features=features.to(model.device))
        texts = None if processor.query_kind == "hard" else TextCache(model, processor)
        return cls(model, processor, labels, logits, image_embeds, texts)

    @torch.no_grad()
    def query_embeds(self, rows: np.ndarray) -> torch.Tensor:
        """Joint space: label rows (queries, attributes) -> (queries, embed_dim), unit length."""
        said = {"query_attributes": torch.from_numpy(rows).to(self.model.device)}
        if self.texts is not None:
            said["text_embeds"] = self.texts.embed(rows)
        return self.model.get_query_features(**said)

    def scorers(self, rows: np.ndarray) -> dict[str, Scorer]:
        """Each way to rank the images for queries: label rows (queries, attributes).

        The classifier speaks of the attributes that its base shares with the adapter; where there
        is none, it ranks nothing.
        """
        query_embeds, images = self.query_embeds(rows), self.image_embeds
        scorers = {ADAPTER: cosine_scorer(query_embeds, images)}
        schema, columns, places = shared_vocabulary(self.model)
        if columns:
            said, logits = rows[:, columns], self.logits[:, places]
            exact = logits.double().numpy()  # once, not for each block of queries
            if active_adapter_config(self.model).fusion_weight:
                scorers[FUSED] = lambda numbers: search_scores(
                    self.model, query_embeds[numbers], images, rows[numbers], self.logits
                )
            scorers["classifier likelihood"] = likelihood_scorer(said, logits)
            scorers["classifier likelihood by choices"] = lambda numbers: group_log_likelihood(
                exact, said[numbers], schema
            )
        return {**scorers, "random": random_scorer(len(images))}

    def partial_report(self, count: int = 500, method: str | None = None) -> list[dict]:
        """One entry for each way of ranking and size of the query; see `partial_queries`.

        Args: method: the only way of ranking that is wanted; None: all.
        """
        report = []
        for size in PARTIAL_SIZES:
            rows, relevance = partial_queries(self.labels, self.processor.schema, size, count)
            scorers = self.scorers(rows) if len(rows) else {}
            for name in scorers if method is None else scorers.keys() & {method}:
                scores = partial_row(scorers[name], relevance)
                report.append({"method": name, "size": size, **scores})
        return report

    def attribute_report(self) -> list[dict]:
        """Average precision of the adapter for each attribute asked for alone, in label order."""
        schema = self.processor.schema
        columns, rows = single_attribute_rows(self.labels, schema)
        if not columns:
            return []
        scorer, positives = self.scorers(rows)[ADAPTER], self.labels == PRESENT
        return [
            {
                "attribute": schema.attributes[column],
                "positives": int(positives[:, column].sum()),
                "share": float(positives[:, column].mean()),
                "average_precision": partial_row(
                    lambda _, number=number: scorer(np.array([number])), positives[:, column][None]
                )["mean_average_precision"],
            }
            for number, column in enumerate(columns)
        ]
