"""Market-1501: 32,668 crops of 1,501 persons from six cameras, with 30 binary attributes a person.

Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; attributes by
Lin et al., "Improving Person Re-identification by Attribute and Identity Learning", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Value

from .market1501_annotation import (
    ANNOTATION_FILE,
    DISTRACTOR,
    IMAGE_NAME,
    JUNK,
    PersonLabels,
    read_annotation,
    read_names,
)
from .person_builder import (
    PersonDatasetBuilder,
    PersonDatasetConfig,
    PersonRecords,
    PersonSource,
)
from .person_dataset import UNKNOWN_LABEL
from .source_files import existing_folder, files_in, first_file
from .verification import VerificationReport

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_FOLDER_OF = {
    "train": FOLDERS[0],
    "validation": FOLDERS[0],
    "junk": FOLDERS[2],
    "distractors": FOLDERS[2],
}
# Where, below `data_dir`, the annotation may lie and the three folders may start.
_NAMES = ("Market-1501-v15.09.15", "Market1501", "market1501", "Market-1501")
_PLACES = (".", *_NAMES, *(f"{name}/{_NAMES[0]}" for name in _NAMES[1:]))
_ANNOTATION_FOLDERS = (".", "attribute", "Market-1501_Attribute")
# Every eighth training person in the order of their numbers is held out for validation.
VALIDATION_STEP = 8


@dataclass
class Market1501Config(PersonDatasetConfig):
    """Options of Market-1501.

    Args:
        junk: Add the 3,819 detections that show no whole person to the test gallery.
        distractors: Add the 2,798 detections of persons without a number to it.
    """

    junk: bool = False
    distractors: bool = False


class Market1501(PersonDatasetBuilder):
    """Builder of Market-1501 with its attributes.

    Splits: `trainval`, the published training part, which papers train on; `train` and
    `validation`, its persons but every eighth and every eighth, ours, as none is published;
    `query` and `bounding_box_test`, the published test parts; `test`, both together, the gallery
    of attribute retrieval.

    Junk and distractors, if asked for, end the test split with unknown labels and person -1 and 0.
    Column `sequence` numbers the recording of a camera.
    """

    BUILDER_CONFIG_CLASS = Market1501Config
    BUILDER_CONFIGS = [Market1501Config(name="default", version=PersonDatasetBuilder.VERSION)]
    DEFAULT_CONFIG_NAME = "default"

    code_files = ("market1501.py", "market1501_annotation.py")
    schema_name = "market1501"
    extra_features = {"sequence": Value("int8")}
    split_sizes = {
        "train": 11436,
        "validation": 1500,
        "trainval": 12936,
        "query": 3368,
        "bounding_box_test": 13115,
        "test": 16483,
    }
    option_sizes = {"junk": 3819, "distractors": 2798}
    num_persons = {"train": 751, "test": 750}
    homepage = "https://github.com/vana77/Market-1501_Attribute"
    license_terms = "not stated; research use by custom"
    citation = (
        "L. Zheng, L. Shen, L. Tian, S. Wang, J. Wang, Q. Tian: Scalable Person "
        "Re-identification: A Benchmark. ICCV, 2015. Y. Lin, L. Zheng, Z. Zheng, Y. Wu, Z. Hu, "
        "C. Yan, Y. Yang: Improving Person Re-identification by Attribute and Identity Learning. "
        "Pattern Recognition, 2019."
    )
    manual_download_instructions = (
        "Market-1501 is for research and is not downloaded: get its images from the authors "
        f"(Zheng et al., ICCV 2015) and {ANNOTATION_FILE} from {homepage}. Expected in "
        f"`data_dir`: {ANNOTATION_FILE}, and the folders bounding_box_train, bounding_box_test "
        f"and query, beside it or in `{_NAMES[0]}`."
    )

    @classmethod
    def find_source(cls, data_dir: str | None) -> PersonSource:
        """Find market_attribute.mat and the fullest of the image trees."""
        folder = existing_folder(data_dir, cls.manual_download_instructions)
        roots = [folder / place for place in _PLACES]
        beside = [folder / name for name in _ANNOTATION_FOLDERS]
        annotation = first_file([*roots, *beside], ANNOTATION_FILE)
        images = max((images_below(root) for root in roots), key=len)
        return cls._source(folder, ANNOTATION_FILE, annotation, images)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Labels that rows may have."""
        return (0, 1, UNKNOWN_LABEL) if self._options() else (0, 1)

    def published_sizes(self) -> dict[str, int]:
        """Images of each split with these options."""
        added = sum(self.option_sizes[option] for option in self._options())
        return {**self.split_sizes, "test": self.split_sizes["test"] + added}

    def read_records(self, source: PersonSource, report: VerificationReport) -> PersonRecords:
        """Read the attributes of the persons and divide the images by folder and person."""
        persons = read_annotation(source.annotations[0], self.schema().attributes)
        report.errors += self._check_persons(persons)
        parts = self._parts(list(source.images), persons["train"])
        self._fill_up(parts, report)
        names = [name for part in parts.values() for name in part]
        person_ids, cameras, sequences = read_names(names).T
        splits = _splits({part: len(found) for part, found in parts.items()})
        return PersonRecords(
            image_names=names,
            image_paths=[source.images.get(name) for name in names],
            labels=_labels(names, person_ids, persons, report),
            person_ids=person_ids,
            splits=splits,
            cameras=cameras,
            extra={"sequence": sequences},
        )

    def _options(self) -> list[str]:
        return [option for option in self.option_sizes if getattr(self.config, option)]

    def _check_persons(self, persons: Mapping[str, PersonLabels]) -> list[str]:
        errors = [error for part in persons.values() for error in part.errors]
        for part, expected in self.num_persons.items():
            if (found := len(persons[part].person_ids)) != expected:
                errors.append(f"`{part}` must have {expected} persons, got {found}")
        return errors

    def _parts(self, names: list[str], train: PersonLabels) -> dict[str, list[str]]:
        """Divide the names; each part in the order of its names."""
        held_out = set(validation_persons(train.person_ids).tolist())
        parts = ("train", "validation", *FOLDERS[1:], *self._options())
        divided: dict[str, list[str]] = {part: [] for part in parts}
        for name, person in zip(sorted(names), read_names(sorted(names))[:, 0], strict=True):
            part = name.split("/")[0]
            if part == FOLDERS[0]:
                part = "validation" if person in held_out else "train"
            elif part == FOLDERS[2] and person in (JUNK, DISTRACTOR):
                part = "junk" if person == JUNK else "distractors"
            divided.get(part, []).append(name)
        return divided

    def _fill_up(self, parts: dict[str, list[str]], report: VerificationReport) -> None:
        """Add a row for every image that is not there: the annotation counts, but names none."""
        sizes = {**self.split_sizes, **self.option_sizes}
        for part, names in parts.items():
            found = len(names)
            for number in range(found + 1, sizes[part] + 1):
                name = f"{part}: image {number} of {sizes[part]}"
                names.append(name)
                report.missing[name] = (
                    f"{found} found in {_FOLDER_OF.get(part, part)}; which are missing is not known"
                )


def images_below(root: Path) -> dict[str, Path]:
    """Find the images of a tree: `<folder>/<file>` -> path."""
    return {
        f"{folder}/{name}": path
        for folder in FOLDERS
        for name, path in files_in(root / folder, IMAGE_NAME).items()
    }


def validation_persons(person_ids: np.ndarray) -> np.ndarray:
    """Return every eighth training person, in the order of their numbers."""
    return np.sort(person_ids)[VALIDATION_STEP - 1 :: VALIDATION_STEP]


def _splits(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(sizes.values()))
    rows = dict(zip(sizes, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    options = [rows.pop(option) for option in Market1501.option_sizes if option in rows]
    trainval = np.concatenate([rows["train"], rows["validation"]])
    test = np.concatenate([rows["bounding_box_test"], rows["query"], *options])
    return {**rows, "trainval": trainval, "test": test}


def _labels(
    names: list[str],
    person_ids: np.ndarray,
    persons: Mapping[str, PersonLabels],
    report: VerificationReport,
) -> np.ndarray:
    """(images, attributes); persons without attributes are reported."""
    is_train = np.array([name.startswith(f"{FOLDERS[0]}/") for name in names])
    is_file = np.array(["/" in name for name in names])
    is_person = is_file & ~np.isin(person_ids, (JUNK, DISTRACTOR))
    labels = np.zeros((len(names), persons["train"].labels.shape[1]), dtype=np.int8)
    labels[is_file & ~is_person] = UNKNOWN_LABEL
    for part, is_part in (("train", is_person & is_train), ("test", is_person & ~is_train)):
        labels[is_part], is_known = persons[part].of(person_ids[is_part])
        for person in np.unique(person_ids[is_part][~is_known]):
            report.errors.append(f"person {person:04d} has no attributes in `{part}`")
    # A row without a file takes a vector that occurs, lest it counts as a category.
    labels[~is_file] = labels[is_file][0]
    return labels


__all__ = ["Market1501", "Market1501Config", "images_below", "validation_persons"]
