"""PA100K: 100,000 person crops with 26 binary attributes, the largest data set of its kind.

Source: Liu et al., "HydraPlus-Net: Attentive Deep Features for Pedestrian Analysis", ICCV 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from .person_builder import (
    PersonDatasetBuilder,
    PersonDatasetConfig,
    PersonRecords,
    PersonSource,
)
from .person_dataset import UNKNOWN_PERSON
from .source_files import existing_folder, first_file, fullest_folder
from .verification import VerificationReport, check_names, check_one_hot

ANNOTATION_FILE = "annotation.mat"
# Where, below `data_dir`, the annotation may lie and the image folders may start.
_PLACES = (".", "PA100k", "PA100K", "PA-100K", "pa100k")
_ANNOTATION_FOLDERS = (".", "annotation")
_IMAGE_FOLDERS = ("data", "release_data/release_data", "release_data")
_SPLITS = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class PA100KAnnotation:
    """The content of annotation.mat; rows are those of train, validation and test in this order.

    Args:
        attributes: Names of the label columns.
        image_names: One per row.
        labels: (images, attributes), whatever the file holds.
        splits: Split name -> (images of the split,) row numbers.
    """

    attributes: list[str]
    image_names: list[str]
    labels: np.ndarray
    splits: dict[str, np.ndarray]


class PA100K(PersonDatasetBuilder):
    """Builder of PA100K.

    Splits: train, validation, test, and trainval, which is train and validation together and what
    papers train on. Persons and cameras are not published: both columns hold -1.
    """

    BUILDER_CONFIGS = [PersonDatasetConfig(name="default", version=PersonDatasetBuilder.VERSION)]
    DEFAULT_CONFIG_NAME = "default"

    code_files = ("pa100k.py",)
    schema_name = "pa100k"
    split_sizes = {"train": 80000, "validation": 10000, "test": 10000, "trainval": 90000}
    # Choices of which every image has exactly one value; columns that changed places show here.
    one_hot_groups = ("age", "view", "sleeve")
    homepage = "https://github.com/xh-liu/HydraPlus-Net"
    license_terms = "CC-BY 4.0"
    citation = (
        "X. Liu, H. Zhao, M. Tian, L. Sheng, J. Shao, S. Yi, J. Yan, X. Wang: HydraPlus-Net: "
        "Attentive Deep Features for Pedestrian Analysis. ICCV, 2017."
    )
    manual_download_instructions = (
        f"PA100K is not downloaded: its images and annotation.mat are linked from {homepage}. "
        "Expected in `data_dir`, or in `PA100k` in it: annotation.mat, and the images as "
        "`data/000001.jpg` to `data/100000.jpg` or, as the published archive unpacks, "
        "`release_data/release_data/000001.jpg`."
    )

    @classmethod
    def find_source(cls, data_dir: str | None) -> PersonSource:
        """Find annotation.mat and the fullest of the image folders."""
        folder = existing_folder(data_dir, cls.manual_download_instructions)
        roots = [folder / place for place in _PLACES]
        beside = [root / name for root in roots for name in _ANNOTATION_FOLDERS]
        annotation = first_file(beside, ANNOTATION_FILE)
        images = fullest_folder(
            [root / name for root in roots for name in _IMAGE_FOLDERS], r"\d{6}\.jpg"
        )
        return cls._source(folder, ANNOTATION_FILE, annotation, images)

    def read_records(self, source: PersonSource, report: VerificationReport) -> PersonRecords:
        """Read annotation.mat and give every image its file."""
        annotation = read_annotation(source.annotations[0])
        names, labels, splits = annotation.image_names, annotation.labels, annotation.splits
        report.errors += check_names(annotation.attributes, self.schema().attributes)
        report.errors += _check_image_names(names)
        report.errors += self._check_choices(labels, names)
        trainval = np.concatenate([splits["train"], splits["validation"]])
        return PersonRecords(
            image_names=names,
            image_paths=[source.images.get(name) for name in names],
            labels=labels,
            person_ids=np.full(len(names), UNKNOWN_PERSON),
            splits=splits | {"trainval": trainval},
        )

    def _check_choices(self, labels: np.ndarray, image_names: list[str]) -> list[str]:
        schema = self.schema()
        if labels.shape[1] != schema.num_attributes:
            return []  # The number itself is reported.
        options = {group.name: tuple(group.options.values()) for group in schema.groups}
        errors = []
        for name in self.one_hot_groups:
            columns = [schema.index(attribute) for attribute in options[name]]
            errors += check_one_hot(labels[:, columns], options[name], image_names)
        return errors


def read_annotation(path: Path) -> PA100KAnnotation:
    """Read annotation.mat.

    Raises:
        ValueError: It is no MATLAB file of this structure.
    """
    try:
        with path.open("rb") as file:
            content = loadmat(file)
        attributes = [str(cell[0]) for cell in content["attributes"].ravel()]
        names, labels, splits = [], [], {}
        for split, key in _SPLITS.items():
            own_names = [str(cell[0]) for cell in content[f"{key}_images_name"].ravel()]
            splits[split] = np.arange(len(names), len(names) + len(own_names))
            names += own_names
            labels.append(content[f"{key}_label"])
            if len(labels[-1]) != len(own_names):
                raise ValueError(f"{len(own_names)} names, {len(labels[-1])} labels in `{key}`")
        all_labels = np.concatenate(labels).astype(np.int64)
    # A damaged file makes the reader fail in many ways: zlib, index, key and type errors.
    except Exception as error:
        raise ValueError(
            f"`{path}` must be the official PA100K annotation, got: {error!r}."
        ) from error
    return PA100KAnnotation(attributes, names, all_labels, splits)


def _check_image_names(names: list[str]) -> list[str]:
    """The published splits divide images numbered through, which shows a wrong division."""
    wrong = [(k, name) for k, name in enumerate(names, start=1) if name != f"{k:06d}.jpg"]
    if not wrong:
        return []
    number, name = wrong[0]
    return [
        f"images must be numbered through train, validation and test, 000001.jpg to "
        f"{len(names):06d}.jpg, got `{name}` for {number:06d}.jpg and {len(wrong) - 1} more"
    ]


__all__ = ["PA100K", "PA100KAnnotation", "read_annotation"]
