"""The retrieval stage: what the loop of train.py needs to learn an adapter on a frozen model.

Backbone and language model never change, so the features of the crops (some augmented views of
each) and the embeddings of the query texts are computed once, before the loop.
"""

import math
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import get_peft_model
from torch import nn
from torch.utils.data import DataLoader

from ..adapter_config_clear import ClearAdapterConfig
from ..datasets_scripts.retrieval_protocols import RetrievalSplit, retrieval_split
from ..metrics.person_retrieval.person_retrieval import retrieval_metrics
from ..peft_clear import adapter_evidence, save_adapter, weights_fingerprint
from ..retrieval_loss_clear import margin_softmax_loss, matching_loss, semantic_margin_loss
from .checkpoint import load_checkpoint
from .crops import Augmentation, PersonCrops
from .feature_cache import FrozenFeatures, cache_folder
from .feature_rows import CropRows, FeatureRows, as_it_is
from .fusion import PARTIAL_SIZES, choose_fusion_weight
from .held_out import share_a_crop
from .queries import (
    TextCache,
    choice_values,
    full_rows,
    known_columns,
    matching_rows,
    partial_queries,
    partial_rows,
)
from .settings import TrainingSettings, dataset_schema, public_name
from .stage import EpochOrder, Stage, inputs_fingerprint

PARTIAL_QUERIES = 200  # of each size, for the choice of the fusion weight


class RetrievalStage(Stage):
    """Data, model and evaluation of one adapter run."""

    selects_by = "mean_average_precision"
    row_key = "index"

    def __init__(self, settings: TrainingSettings, accelerator: Accelerator):
        self.settings, self.accelerator = settings, accelerator
        base, self.processor = load_checkpoint(settings.checkpoint)
        self.schema = dataset_schema(settings.dataset)  # the adapter's vocabulary, not the base's
        self.processor.schema, self.processor.query_kind = self.schema, settings.query_kind
        config = self._adapter_config()
        if config.uses_text and base.language_model is None:
            raise ValueError(
                "`query_kind` must be hard for a checkpoint without a language model, got "
                f"{settings.query_kind!r}. Train the checkpoint with `text_model`."
            )
        config.base_fingerprint = weights_fingerprint(base)
        self.base = base.to(accelerator.device).requires_grad_(False)
        self.frozen = FrozenFeatures(self.base, self.processor, settings, accelerator)
        self.texts = None
        if config.uses_text:
            folder = cache_folder(settings.cache_features)
            self.texts = TextCache(self.base, self.processor, folder)
        crops = [self._load_crops(s) for s in (settings.train_split, settings.validation_split)]
        self.inputs = inputs_fingerprint(crops, config.base_fingerprint)
        self.is_held_out = not share_a_crop([crops[0].rows], crops[1].rows)
        labels = [c.labels.numpy() for c in crops]
        self.columns = known_columns(labels, self.schema, settings.category_attributes)
        self._prepare_training(crops[0])
        self._prepare_validation(crops[1])
        set_seed(settings.seed)  # what was found in a cache has drawn nothing
        self.model = get_peft_model(self.base, config)
        if config.standardize_text:
            self._standardize_text()
        self._prepare_regulariser()

    def _adapter_config(self) -> ClearAdapterConfig:
        settings = self.settings
        return ClearAdapterConfig(
            embed_dim=settings.embed_dim,
            query_kind=settings.query_kind,
            hidden_dims=[width for width in settings.hidden_dims if width],
            dropout=settings.adapter_dropout,
            schema=self.schema.to_dict(),
            attribute_encoding=settings.attribute_encoding,
            standardize_text=settings.standardize_text and settings.query_kind != "hard",
            margin_kind=settings.margin_kind,
            margin=settings.margin,
            scale=settings.scale,
            partial_weight=settings.partial_weight,
            semantic_weight=settings.semantic_weight,
            training_data=f"{public_name(settings.dataset)} {settings.config_name or ''} "
            f"{settings.train_split}".replace("  ", " "),
            task_type="FEATURE_EXTRACTION",
        )

    def _load_crops(self, split: str) -> PersonCrops:
        with self.accelerator.main_process_first():
            rows = self.settings.load_rows(split)
        return PersonCrops(rows, self.processor, None, cache=False)

    def _prepare_training(self, crops: PersonCrops) -> None:
        """Rows of every crop, one query for each category, one partial query for each crop."""
        settings, rng = self.settings, np.random.default_rng(self.settings.seed)
        augmentation = Augmentation.from_settings(settings)
        split, queries = self._categories(crops)
        self.category_values = choice_values(queries, self.schema).to(self.base.device)
        self.category_queries = self._query_inputs(queries)
        categories, views, seed = split.gallery_categories, settings.feature_views, settings.seed
        if settings.cache_features == "false":
            if settings.cache_images:
                crops.hold()
            self.rows = CropRows(crops, categories, augmentation, views, seed)
        else:
            features = self.frozen.views(crops, augmentation, views)
            self.rows = FeatureRows(features, categories, seed)
        self.labels = crops.labels.to(self.base.device)
        self.row_names = crops.rows["image_name"][:]
        self.order = EpochOrder(len(self.rows), seed)
        if settings.partial_weight:
            self.partial_queries = self._query_inputs(
                partial_rows(crops.labels.numpy(), self.schema, rng)
            )

    def _prepare_validation(self, crops: PersonCrops) -> None:
        self.validation_features = self.frozen.views(crops)[0].to(self.base.device)
        self.validation_labels = crops.labels.numpy()
        self.validation_split, queries = self._categories(crops)
        self.validation_queries = self._query_inputs(queries)

    def _standardize_text(self) -> None:
        """Let texts of categories enter as long as their attribute vectors of ones."""
        embeds = self.category_queries["text_embeds"]
        said = embeds[embeds.any(dim=1)]  # of a category that shows nothing there is no text
        projection = self.base.text_projection.retrieval_projections["default"]
        projection.encoder.fit(said, math.sqrt(len(self.columns)))

    def _prepare_regulariser(self) -> None:
        """ASMR's learned weight of each group; it trains with the adapter and is not saved."""
        if self.settings.semantic_weight:
            count = self.category_values.shape[1]
            weights = nn.Parameter(torch.ones(count, device=self.base.device))
            self.model.register_parameter("group_weights", weights)

    def _categories(self, crops: PersonCrops) -> tuple[RetrievalSplit, np.ndarray]:
        """The categories of some crops, and one label row for each."""
        split = retrieval_split(crops.labels.numpy(), self.columns)
        return split, full_rows(split.queries, self.columns, self.schema.num_attributes)

    def _query_inputs(self, queries: np.ndarray) -> dict[str, torch.Tensor]:
        """What the adapter reads of queries: (queries, attributes) and (queries, hidden_size)."""
        inputs = {"query_attributes": torch.from_numpy(queries).to(self.base.device)}
        if self.texts is not None:
            inputs["text_embeds"] = self.texts.embed(queries)
        return inputs

    def loaders(self) -> tuple[DataLoader, None]:
        """Shuffled batches of features or crops; validation needs no loader."""
        is_kept = isinstance(self.rows, FeatureRows)
        loader = DataLoader(
            self.rows,
            self.settings.batch_size,
            sampler=self.order,
            drop_last=True,
            collate_fn=as_it_is if is_kept else None,
            num_workers=0 if is_kept else self.settings.num_workers,
            generator=torch.Generator().manual_seed(self.settings.seed),
        )
        return loader, None

    def start_epoch(self, epoch: int) -> None:
        """Order and view of each crop are drawn from (seed, epoch)."""
        self.rows.epoch = self.order.epoch = epoch

    def train_image_names(self) -> list[str]:
        """Names of the crops of the training split."""
        return self.row_names

    def rate_scale(self, name: str) -> float:
        """`query_rate` for the projections of queries."""
        is_query = "text_projection." in name or "attribute_projection." in name
        return self.settings.query_rate if is_query else 1.0

    def loss(self, model: nn.Module, batch: dict) -> torch.Tensor:
        """Margin soft-max over all training categories, and what the settings add to it."""
        settings, count = self.settings, len(self.category_queries["query_attributes"])
        queries = self.category_queries
        if settings.partial_weight:
            said = {name: rows[batch["index"]] for name, rows in self.partial_queries.items()}
            queries = {name: torch.cat([queries[name], said[name]]) for name in queries}
        seen = {name: batch[name] for name in ("features", "pixel_values") if name in batch}
        output = model(**seen, **queries)
        categories = output.query_embeds[:count]
        loss = margin_softmax_loss(
            output.image_embeds,
            categories,
            batch["categories"],
            settings.scale,
            settings.margin,
            settings.margin_kind,
        )
        if settings.partial_weight:
            partial = self._partial_loss(
                output.image_embeds, output.query_embeds[count:], batch["index"]
            )
            loss = loss + settings.partial_weight * partial
        if settings.semantic_weight:
            weights = self.model.group_weights
            semantic = semantic_margin_loss(categories, self.category_values, weights)
            loss = loss + settings.semantic_weight * semantic
        return loss

    def _partial_loss(
        self, image_embeds: torch.Tensor, query_embeds: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        """`matching_loss` over the batches of all processes, as of one process with their crops.

        Shape: (batch, embed_dim) twice, and (batch,) numbers of the crops, of this process.
        """
        index = self.accelerator.gather(index)
        queries = self.partial_queries["query_attributes"][index]
        matches = matching_rows(self.labels[index], queries)
        images, queries = (gathered(e, self.accelerator) for e in (image_embeds, query_embeds))
        loss = matching_loss(images, queries, matches, self.settings.scale)
        # Of the gradient each process has the share of its own rows; DDP takes the mean of them.
        return loss + (self.accelerator.num_processes - 1) * (loss - loss.detach())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, loader: None) -> dict[str, float]:
        """Retrieval metrics over the exact categories of the validation split."""
        model.eval()
        cosines = self._validation_cosines(self.validation_queries)
        result = retrieval_metrics([(cosines, self.validation_split.relevance())])
        return {name: value for name, value in result.items() if isinstance(value, float)}

    def _validation_cosines(self, queries: dict[str, torch.Tensor]) -> np.ndarray:
        """Shape: (queries, images of the validation split)."""
        images = self.model.get_image_features(features=self.validation_features)
        return (self.model.get_query_features(**queries) @ images.T).float().cpu().numpy()

    @torch.no_grad()
    def fusion_weight(self) -> float:
        """The best weight of the classifier's evidence on the validation split."""
        logits = self.base.classifier(self.validation_features)

        def task(queries: np.ndarray, inputs: dict, relevance: np.ndarray) -> tuple:
            evidence = adapter_evidence(self.model, queries, logits)
            return self._validation_cosines(inputs), evidence, relevance

        rows = self.validation_queries["query_attributes"].cpu().numpy()
        exact = task(rows, self.validation_queries, self.validation_split.relevance())
        sizes = [
            partial_queries(self.validation_labels, self.schema, size, PARTIAL_QUERIES)
            for size in PARTIAL_SIZES
        ]
        partial = [task(q, self._query_inputs(q), found) for q, found in sizes if len(q)]
        return choose_fusion_weight(exact, partial, self.settings.scale)

    def save(self, folder: Path) -> None:
        """Write the adapter: its configuration with schema and query kind, and its weights."""
        if self.settings.fusion:
            self.model.active_peft_config.fusion_weight = self.fusion_weight()
        save_adapter(self.model, folder, self.settings.base_name)


def gathered(rows: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """The rows of all processes; a gradient reaches those of this one alone.

    Shape: (rows, width) -> (rows of all processes, width), as many rows on each.
    """
    if accelerator.num_processes == 1:
        return rows
    everything, start = accelerator.gather(rows.detach()), accelerator.process_index * len(rows)
    return torch.cat([everything[:start], rows, everything[start + len(rows) :]])
