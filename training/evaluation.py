"""Run a model over crops: probabilities, features, and the two kinds of metrics."""

from collections.abc import Iterable

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..metrics.person_attribute_recognition.person_attribute_recognition import recognition_metrics
from .crops import PersonCrops


def crop_loader(crops: PersonCrops, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Batches in the order of the rows."""
    return DataLoader(crops, batch_size, num_workers=num_workers)


@torch.no_grad()
def predict(
    model: torch.nn.Module, loader: Iterable[dict], accelerator: Accelerator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (images, attributes) and features (images, feature_dim) of all rows, in float32.

    `loader` is prepared by the accelerator; the processes' shares are gathered in row order.
    """
    model.eval()
    logits, features = [], []
    for batch in tqdm(loader, "predict", leave=False, disable=not accelerator.is_main_process):
        output = model(pixel_values=batch["pixel_values"])
        gathered = accelerator.gather_for_metrics((output.logits, output.features))
        logits.append(gathered[0].float().cpu())
        features.append(gathered[1].float().cpu())
    return torch.cat(logits), torch.cat(features)


def recognition_scores(logits: torch.Tensor, labels: np.ndarray, columns: list[int]) -> dict:
    """The metrics of the field over some attributes.

    Args:
        logits: (images, attributes). labels: the same shape, of 1, 0 and -100.
        columns: the attributes that count, such as the evaluated subset.
    """
    probabilities = torch.sigmoid(logits.double()).numpy()
    return recognition_metrics(probabilities[:, columns], labels[:, columns])
