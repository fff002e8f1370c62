"""The recognition stage: what the loop of train.py needs to learn backbone and classifier."""

import json
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from transformers import AutoTokenizer

from ..configuration_clear import ClearConfig
from ..datasets_scripts.person_dataset import load_person_dataset, person_features
from ..modeling_clear import ClearModel
from ..processing_clear import ClearProcessor
from .checkpoint import load_checkpoint, naming
from .crops import Augmentation, PersonCrops, labels_of, positive_ratios
from .evaluation import crop_loader, predict, recognition_scores
from .held_out import share_a_crop
from .optimization import layer_rate_scale
from .settings import TrainingSettings, dataset_schema, public_name
from .stage import EpochOrder, Stage, inputs_fingerprint


class RecognitionStage(Stage):
    """Data, model and evaluation of one recognition run."""

    selects_by = "mean_accuracy"
    row_key = "row"

    def __init__(self, settings: TrainingSettings, accelerator: Accelerator):
        self.settings, self.accelerator = settings, accelerator
        self.schema = dataset_schema(settings.dataset)
        rows = self._load_rows()
        ratios = positive_ratios(np.concatenate([labels_of(split) for split in rows["train"]]))
        self.model, self.processor = self._build(ratios)
        self.model.train()  # freezes the language model before an optimizer sees it
        augmentation = Augmentation.from_settings(settings)
        cache = settings.cache_images
        self.train_crops = ConcatDataset(
            PersonCrops(split, self.processor, augmentation, cache, settings.on_bad_image)
            for split in rows["train"]
        )
        for crops, end in zip(
            self.train_crops.datasets, self.train_crops.cumulative_sizes, strict=True
        ):
            crops.first_row = end - len(crops)
        self.order = EpochOrder(len(self.train_crops), settings.seed)
        self.validation_crops = PersonCrops(rows["validation"], self.processor, None, cache)
        self.inputs = inputs_fingerprint([*self.train_crops.datasets, self.validation_crops])
        self.is_held_out = not share_a_crop(rows["train"], rows["validation"])

    def _load_rows(self) -> dict:
        settings = self.settings
        with self.accelerator.main_process_first():  # one process builds, the others read its cache
            train = [settings.load_rows(settings.train_split)]
            validation = settings.load_rows(settings.validation_split)
            if settings.num_synthetic:
                train.append(self._load_synthetic(settings.num_synthetic))
        columns = list(person_features(self.schema))
        return {"train": [rows.select_columns(columns) for rows in train], "validation": validation}

    def _load_synthetic(self, count: int) -> datasets.Dataset:
        sizes = {"train_size": count, "validation_size": 1, "test_size": 1}  # only train is used
        return load_person_dataset("synthetic", split="train", seed=self.settings.seed, **sizes)

    def _build(self, ratios: list[float]) -> tuple[ClearModel, ClearProcessor]:
        if self.settings.checkpoint is None:
            return self._build_new(ratios)
        model, processor = load_checkpoint(self.settings.checkpoint, **self._learning(ratios))
        if processor.schema.attributes != self.schema.attributes:
            raise ValueError(
                f"`checkpoint` must know the attributes of {self.settings.dataset!r} in their "
                f"order, got {self.settings.checkpoint!r}, trained for {processor.schema.name!r}."
            )
        return model, processor

    def _learning(self, ratios: list[float]) -> dict:
        """Fields of ClearConfig that say how a model learns, a new one or that of a checkpoint."""
        weights, rate = self.settings.label_weights, self.settings.drop_path_rate
        return {
            "attribute_positive_ratios": None if weights == "none" else ratios,
            "attribute_weighting": "exponential" if weights == "none" else weights,
            "local_drop_path_rate": rate,
            "global_drop_path_rate": rate,
        }

    def _build_new(self, ratios: list[float]) -> tuple[ClearModel, ClearProcessor]:
        settings, schema = self.settings, self.schema
        config = ClearConfig.preset(
            settings.preset,
            num_labels=schema.num_attributes,
            id2label=dict(enumerate(schema.attributes)),
            label2id={name: index for index, name in enumerate(schema.attributes)},
            **self._learning(ratios),
            text_source=public_name(settings.text_source or settings.text_model),
            text_revision=settings.text_revision,
            **json.loads(settings.model_options),
        )
        tokenizer = None
        if settings.text_model is None:
            model = ClearModel(config)
        else:
            source, revision = settings.text_model, settings.text_revision
            with naming("text_model", source):
                model = ClearModel.with_language_model(config, source, revision)
                tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        processor = ClearProcessor.for_schema(
            schema, config.image_height, config.image_width, tokenizer
        )
        return model, processor

    def loaders(self) -> tuple[DataLoader, DataLoader]:
        """Shuffled training batches and validation batches in order."""
        settings = self.settings
        train = DataLoader(
            self.train_crops,
            settings.batch_size,
            sampler=self.order,
            drop_last=True,
            num_workers=settings.num_workers,
            pin_memory=torch.cuda.is_available(),
            # Its own: what a loader draws at the start of an epoch must not move the random
            # states that a resumed run has just put back.
            generator=torch.Generator().manual_seed(settings.seed),
        )
        return train, crop_loader(self.validation_crops, 2 * settings.batch_size)

    def start_epoch(self, epoch: int) -> None:
        """Order and augmentation are drawn from (seed, epoch) and (seed, epoch, index)."""
        self.order.epoch = epoch
        for crops in self.train_crops.datasets:
            crops.epoch = epoch

    def loss(self, model: nn.Module, batch: dict) -> torch.Tensor:
        """Weighted binary cross-entropy over all known attributes."""
        return model(pixel_values=batch["pixel_values"], labels=batch["labels"]).loss

    def unreadable_rows(self, batch: dict) -> list[int]:
        """As in the parent; asked for only where crops are skipped, for it waits for a GPU."""
        if self.settings.on_bad_image != "skip":
            return []
        return batch["row"][~batch["is_readable"]].tolist()

    def evaluate(self, model: nn.Module, loader: DataLoader) -> dict[str, float]:
        """Validation loss, and the metrics over the evaluated attributes."""
        logits, _ = predict(model, loader, self.accelerator)
        labels = self.validation_crops.labels
        loss = self.accelerator.unwrap_model(model).recognition_loss(logits, labels)
        scores = recognition_scores(logits, labels.numpy(), self.schema.evaluated_indices)
        metrics = {name: value for name, value in scores.items() if isinstance(value, float)}
        metrics["validation_loss"] = loss.item()
        return metrics

    def train_image_names(self) -> list[str]:
        """Names of the crops of all training data sets, in the order of the rows."""
        parts = [crops.rows["image_name"][:] for crops in self.train_crops.datasets]
        return [name for names in parts for name in names]

    def rate_scale(self, name: str) -> float:
        """Less for layers near the input, when the settings ask for it."""
        config = self.model.config
        decay = self.settings.layer_decay
        return layer_rate_scale(decay, config.local_depths, config.global_depth)(name)

    def save(self, folder: Path) -> None:
        """Write weights, configuration, processor and code: a loadable repository."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
