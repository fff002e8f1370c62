"""Thresholds of a checkpoint: chosen on one split, stored in its processor_config.json."""

import json
from pathlib import Path

import numpy as np

from ..attributes_clear import AttributeSchema
from ..metrics.calibration import calibrated_thresholds
from ..training.run_folder import write_whole

FILE = "processor_config.json"


def calibrate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    schema: AttributeSchema,
    criterion: str,
    data: str,
) -> dict:
    """Choose a threshold for each attribute, in the form that a processor stores.

    Args:
        probabilities: (images, attributes). labels: the same shape, of 1, 0 and -100.
        criterion: as for `calibrated_thresholds`. data: what the rows are, for the reader.
    Returns: `calibration` of ClearProcessor.
    """
    values = calibrated_thresholds(probabilities, labels, criterion)
    thresholds = dict(zip(schema.attributes, values.tolist(), strict=True))
    return {"criterion": criterion, "data": data, "thresholds": thresholds}


def require_storable(checkpoint: str) -> None:
    """Raise ValueError unless the checkpoint is a folder whose processor can be changed."""
    if not (Path(checkpoint) / FILE).is_file():
        raise ValueError(
            f"`checkpoint` must be a folder with {FILE} to store thresholds in, got "
            f"{checkpoint!r}. Download a Hub repository first, and upload it again afterwards."
        )


def store_calibration(checkpoint: str, calibration: dict) -> None:
    """Write the calibration into the folder's processor_config.json, and change nothing else.

    The file is at any moment the earlier or the new one, whole.
    """
    path = Path(checkpoint) / FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config["calibration"] = calibration
    # As transformers writes it, so that only these lines differ.
    write_whole(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
