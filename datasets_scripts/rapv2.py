"""RAPv2: 84,928 person crops of a shopping mall, with the 54 attributes that papers evaluate.

Source: Li et al., "A Richly Annotated Pedestrian Dataset for Person Retrieval in Real Surveillance
Scenarios", IEEE Transactions on Image Processing 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Value
from scipy.io import loadmat

from .person_builder import (
    PersonDatasetBuilder,
    PersonDatasetConfig,
    PersonRecords,
    PersonSource,
)
from .person_dataset import UNKNOWN_CAMERA, UNKNOWN_LABEL, UNKNOWN_PERSON
from .source_files import existing_folder, first_file, fullest_folder
from .verification import VerificationReport, check_labels, check_names, check_partition

ANNOTATION_FILE = "RAP_annotation.mat"
NUM_PARTITIONS = 5
# What the configurations may make of a label 2, "uncertain".
UNCERTAIN_LABELS = {"absent": 0, "unknown": UNKNOWN_LABEL}
_UNCERTAIN = 2
# Where, below `data_dir`, both folders may start.
_PLACES = (".", "RAP2", "RAPv2", "RAP", "data")
_ANNOTATION_FOLDERS = ("RAP_annotation", ".")
_SPLITS = {"train": "train_index", "validation": "val_index", "test": "test_index"}


@dataclass(frozen=True)
class RAPv2Annotation:
    """The content of RAP_annotation.mat, counted from 0 where the file counts from 1.

    Args:
        image_names: One per row.
        attributes: Names of the selected attributes.
        labels: (images, selected attributes), whatever the file holds; 2 is uncertain.
        viewpoints: (images,), 1 to 4 as in the file.
        person_ids: (images,), as in the file.
        partitions: For each of the five, split name -> (images of the split,) row numbers.
    """

    image_names: list[str]
    attributes: list[str]
    labels: np.ndarray
    viewpoints: np.ndarray
    person_ids: np.ndarray
    partitions: list[dict[str, np.ndarray]]


@dataclass
class RAPv2Config(PersonDatasetConfig):
    """Options of RAPv2.

    Args:
        uncertain: What a label 2 becomes: "absent" as in the papers' protocol, or "unknown", -100,
            which losses and metrics leave out.
    """

    uncertain: str = "absent"


class RAPv2(PersonDatasetBuilder):
    """Builder of RAPv2; configurations `partition0` (the one that papers use) to `partition4`.

    Splits: train, validation, test, and trainval, which is train and validation together and what
    papers train on. Column `viewpoint` holds the file's own code, 1 to 4.
    """

    BUILDER_CONFIG_CLASS = RAPv2Config
    BUILDER_CONFIGS = [
        RAPv2Config(name=f"partition{k}", version=PersonDatasetBuilder.VERSION)
        for k in range(NUM_PARTITIONS)
    ]
    DEFAULT_CONFIG_NAME = "partition0"

    code_files = ("rapv2.py",)
    schema_name = "rapv2"
    extra_features = {"viewpoint": Value("int8")}
    label_values = (0, 1, UNKNOWN_LABEL)
    split_sizes = {"train": 50957, "validation": 16986, "test": 16985, "trainval": 67943}
    homepage = "https://github.com/dangweili/RAP"
    license_terms = "by licence agreement, research only"
    citation = (
        "D. Li, Z. Zhang, X. Chen, K. Huang: A Richly Annotated Pedestrian Dataset for Person "
        "Retrieval in Real Surveillance Scenarios. IEEE Transactions on Image Processing, 2019."
    )
    manual_download_instructions = (
        "RAPv2 is given by licence agreement and is not downloaded: ask for it as "
        f"{homepage} says. Expected in `data_dir`, or in `RAP2` in it: "
        "`RAP_annotation/RAP_annotation.mat`, and the images as `RAP_dataset/<name>.png`."
    )

    def __init__(
        self, cache_dir: str | None = None, data_dir: str | Path | None = None, **kwargs: object
    ) -> None:
        super().__init__(cache_dir=cache_dir, data_dir=data_dir, **kwargs)
        if self.config.uncertain not in UNCERTAIN_LABELS:
            raise ValueError(
                f"`uncertain` must be one of {list(UNCERTAIN_LABELS)}, "
                f"got {self.config.uncertain!r}."
            )

    @classmethod
    def find_source(cls, data_dir: str | None) -> PersonSource:
        """Find RAP_annotation.mat and the fullest of the image folders."""
        folder = existing_folder(data_dir, cls.manual_download_instructions)
        roots = [folder / place for place in _PLACES]
        beside = [root / name for root in roots for name in _ANNOTATION_FOLDERS]
        annotation = first_file(beside, ANNOTATION_FILE)
        # Names that begin with a dot are left behind by file managers.
        images = fullest_folder([root / "RAP_dataset" for root in roots], r"[^.].*\.png")
        return cls._source(folder, ANNOTATION_FILE, annotation, images)

    def read_records(self, source: PersonSource, report: VerificationReport) -> PersonRecords:
        """Read RAP_annotation.mat and give every image its file."""
        annotation = read_annotation(source.annotations[0])
        names, labels = annotation.image_names, annotation.labels
        report.errors += check_names(annotation.attributes, self.schema().attributes)
        report.errors += check_labels(labels, annotation.attributes, names, (0, 1, _UNCERTAIN))
        viewpoints = annotation.viewpoints
        report.errors += check_labels(viewpoints[:, None], ["viewpoint"], names, (1, 2, 3, 4))
        if repeated := len(names) - len(set(names)):
            report.errors.append(f"image names must differ, got {repeated} more than once")
        splits = dict(annotation.partitions[int(self.config.name.removeprefix("partition"))])
        report.errors += check_partition(splits, names)
        splits["trainval"] = np.concatenate([splits["train"], splits["validation"]])
        uncertain = UNCERTAIN_LABELS[self.config.uncertain]
        return PersonRecords(
            image_names=names,
            image_paths=[source.images.get(name) for name in names],
            labels=np.where(labels == _UNCERTAIN, uncertain, labels == 1),
            # Below 0 are distractors of re-identification and images without an identity.
            person_ids=np.maximum(annotation.person_ids, UNKNOWN_PERSON),
            splits=splits,
            cameras=np.array([_camera(name) for name in names]),
            extra={"viewpoint": viewpoints},
        )


def read_annotation(path: Path) -> RAPv2Annotation:
    """Read RAP_annotation.mat; its members are found by their names.

    Raises:
        ValueError: It is no MATLAB file of this structure.
    """
    try:
        with path.open("rb") as file:
            struct = loadmat(file, simplify_cells=True)["RAP_annotation"]
        image_names = [str(name) for name in struct["name"]]
        all_names = [str(name) for name in struct["attribute"]]
        data = np.asarray(struct["data"], dtype=np.int64)  # (images, columns)
        # Counted from 1 among the columns.
        selected = np.asarray(struct["selected_attribute"], dtype=np.int64) - 1
        person_ids = np.asarray(struct["person_identity"], dtype=np.int64)
        partitions = [_read_partition(part) for part in struct["partition_attribute"]]
        if (selected < 0).any():
            raise ValueError("selected attributes must count from 1")
        annotation = RAPv2Annotation(
            image_names=image_names,
            attributes=[all_names[column] for column in selected],
            labels=data[:, selected],
            viewpoints=data[:, all_names.index("viewpoint")],
            person_ids=person_ids,
            partitions=partitions,
        )
    # A damaged file makes the reader fail in many ways: zlib, index, key and type errors.
    except Exception as error:
        raise ValueError(
            f"`{path}` must be the official RAPv2 annotation, got: {error!r}."
        ) from error
    shapes = (data.shape, person_ids.shape, len(partitions))
    if shapes != ((len(image_names), len(all_names)), (len(image_names),), NUM_PARTITIONS):
        raise ValueError(
            f"`{path}` must have, for each of its {len(image_names)} images, one column for each "
            f"of its {len(all_names)} attributes and one identity, and {NUM_PARTITIONS} "
            f"partitions, got {shapes}."
        )
    return annotation


def _read_partition(part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        split: np.atleast_1d(part[name]).astype(np.int64) - 1 for split, name in _SPLITS.items()
    }


def _camera(image_name: str) -> int:
    """Read 6 from `CAM06-...`."""
    match = re.match(r"CAM(\d+)", image_name)
    return UNKNOWN_CAMERA if match is None else int(match[1])


__all__ = ["RAPv2", "RAPv2Annotation", "RAPv2Config", "read_annotation"]
