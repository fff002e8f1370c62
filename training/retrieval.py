"""The retrieval stage: what the loop of train.py needs to learn an adapter on a frozen model.

Backbone and language model never change, so the features of the crops (some augmented views of
each) and the embeddings of the query texts are computed once, before the loop.
"""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from peft import get_peft_model
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..adapter_config_clear import ClearAdapterConfig
from ..datasets_scripts.retrieval_protocols import RetrievalSplit, retrieval_split
from ..metrics.person_retrieval.person_retrieval import retrieval_metrics
from ..modeling_clear import ClearModel
from ..peft_clear import save_adapter
from ..retrieval_loss_clear import margin_softmax_loss, matching_loss
from .checkpoint import load_checkpoint
from .crops import Augmentation, PersonCrops
from .evaluation import crop_loader, predict
from .queries import embed_texts, full_rows, known_columns, matching_rows, partial_rows
from .settings import TrainingSettings, dataset_schema


class FeatureRows(Dataset):
    """Frozen features of crops; each epoch draws one of the views of each crop.

    Args:
        features: (views, images, feature_dim). categories: (images,).
    """

    def __init__(self, features: torch.Tensor, categories: np.ndarray, seed: int):
        self.features, self.seed, self.epoch = features, seed, 0
        self.categories = torch.from_numpy(categories)

    def __len__(self) -> int:
        return self.features.shape[1]

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        view = rng.integers(len(self.features))
        return {
            "features": self.features[view, index],
            "categories": self.categories[index],
            "index": index,
        }


class RetrievalStage:
    """Data, model and evaluation of one adapter run.

    selects_by: the validation metric that picks the best epoch.
    """

    selects_by = "mean_average_precision"

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
        base = base.to(accelerator.device)
        crops = [self._load_crops(s) for s in (settings.train_split, settings.validation_split)]
        self.columns = known_columns([c.labels.numpy() for c in crops], self.schema)
        self._prepare_training(base, crops[0])
        self._prepare_validation(base, crops[1])
        self.model = get_peft_model(base.requires_grad_(False), config)

    def _adapter_config(self) -> ClearAdapterConfig:
        settings = self.settings
        return ClearAdapterConfig(
            embed_dim=settings.embed_dim,
            query_kind=settings.query_kind,
            hidden_dims=[settings.hidden_dim] if settings.hidden_dim else [],
            dropout=settings.adapter_dropout,
            schema=self.schema.to_dict(),
            margin_kind=settings.margin_kind,
            margin=settings.margin,
            scale=settings.scale,
            training_data=f"{settings.dataset} {settings.config_name or ''} "
            f"{settings.train_split}".replace("  ", " "),
            task_type="FEATURE_EXTRACTION",
        )

    def _prepare_training(self, base: ClearModel, crops: PersonCrops) -> None:
        """Views of every crop, one query for each category, one partial query for each crop."""
        settings, rng = self.settings, np.random.default_rng(self.settings.seed)
        augmentation = Augmentation.from_settings(settings)
        views = []
        for view in range(settings.feature_views):
            crops.augmentation, crops.epoch = (augmentation if view else None), view
            views.append(self._features(base, crops))
        split, self.category_queries = self._categories(base, crops)
        self.rows = FeatureRows(torch.stack(views), split.gallery_categories, settings.seed)
        self.labels = crops.labels.to(base.device)
        if settings.partial_weight:
            queries = partial_rows(crops.labels.numpy(), self.schema, rng)
            self.partial_queries = self._query_inputs(base, queries)

    def _prepare_validation(self, base: ClearModel, crops: PersonCrops) -> None:
        self.validation_features = self._features(base, crops).to(base.device)
        self.validation_split, self.validation_queries = self._categories(base, crops)

    def _categories(
        self, base: ClearModel, crops: PersonCrops
    ) -> tuple[RetrievalSplit, dict[str, torch.Tensor]]:
        """The categories of some crops, and what the adapter reads of one query for each."""
        split = retrieval_split(crops.labels.numpy(), self.columns)
        queries = full_rows(split.queries, self.columns, self.schema.num_attributes)
        return split, self._query_inputs(base, queries)

    def _load_crops(self, split: str) -> PersonCrops:
        with self.accelerator.main_process_first():
            rows = self.settings.load_rows(split)
        return PersonCrops(rows, self.processor, None, self.settings.cache_images)

    def _features(self, base: ClearModel, crops: PersonCrops) -> torch.Tensor:
        loader = self.accelerator.prepare(crop_loader(crops, 2 * self.settings.batch_size))
        return predict(base, loader, self.accelerator)[1]

    def _query_inputs(self, base: ClearModel, queries: np.ndarray) -> dict[str, torch.Tensor]:
        """What the adapter reads of queries: (queries, attributes) and (queries, hidden_size)."""
        inputs = {"query_attributes": torch.from_numpy(queries).to(base.device)}
        if self.settings.query_kind != "hard":
            inputs["text_embeds"] = embed_texts(base, self.processor, queries)
        return inputs

    def loaders(self) -> tuple[DataLoader, None]:
        """Shuffled batches of features; validation needs no loader."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        loader = DataLoader(
            self.rows, self.settings.batch_size, shuffle=True, drop_last=True, generator=generator
        )
        return loader, None

    def start_epoch(self, epoch: int) -> None:
        """The view of each crop is drawn from (seed, epoch, index)."""
        self.rows.epoch = epoch

    def loss(self, model: nn.Module, batch: dict) -> torch.Tensor:
        """Margin soft-max over all training categories, plus the loss on partial queries."""
        settings, count = self.settings, len(self.category_queries["query_attributes"])
        queries = self.category_queries
        if settings.partial_weight:
            said = {name: rows[batch["index"]] for name, rows in self.partial_queries.items()}
            queries = {name: torch.cat([queries[name], said[name]]) for name in queries}
        output = model(features=batch["features"], **queries)
        loss = margin_softmax_loss(
            output.image_embeds,
            output.query_embeds[:count],
            batch["categories"],
            settings.scale,
            settings.margin,
            settings.margin_kind,
        )
        if settings.partial_weight:
            matches = matching_rows(self.labels[batch["index"]], said["query_attributes"])
            partial = matching_loss(
                output.image_embeds, output.query_embeds[count:], matches, settings.scale
            )
            loss = loss + settings.partial_weight * partial
        return loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, loader: None) -> dict[str, float]:
        """Retrieval metrics over the exact categories of the validation split."""
        model.eval()
        output = self.accelerator.unwrap_model(model)(
            features=self.validation_features, **self.validation_queries
        )
        scores = (output.query_embeds @ output.image_embeds.T).float().cpu().numpy()
        result = retrieval_metrics([(scores, self.validation_split.relevance())])
        return {name: value for name, value in result.items() if isinstance(value, float)}

    def save(self, folder: Path) -> None:
        """Write the adapter: its configuration with schema and query kind, and its weights."""
        save_adapter(self.model, folder, self.settings.base_name)
