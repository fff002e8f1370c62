"""PETA: 19,000 person crops with 105 binary attributes, put together from ten older data sets.

Source: Deng et al., "Pedestrian Attribute Recognition At Far Distance", ACM Multimedia 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import ClassLabel

from .person_builder import (
    PersonDatasetBuilder,
    PersonDatasetConfig,
    PersonRecords,
    PersonSource,
)
from .peta_annotation import (
    ANNOTATION_FILE,
    MAPPING_FILE,
    MAPPING_HOME,
    SUBSET_SIZES,
    SUBSETS,
    PETAAnnotation,
    check_mapping,
    derive_mapping,
    read_annotation,
    read_mapping,
)
from .retrieval_protocols import held_out_categories
from .source_files import existing_folder, files_in, first_file, fullest_folder, listing
from .verification import VerificationReport, check_names, check_partition, check_sizes

# Where, below `data_dir`, the annotation, the mapping and both image trees may start.
_PLACES = (".", "PETA", "PETA dataset", "PETA/PETA dataset")
# Names that begin with a dot are left behind by file managers.
_IMAGE_FILE = r"(?i)[^.].*\.(bmp|jpeg|jpg|png)"


class PETA(PersonDatasetBuilder):
    """Builder of PETA; configurations `partition0` (the one that papers use) to `partition4`.

    Splits: train, validation, test, and trainval, which is train and validation together and what
    papers train on. Column `subset` names the older data set that a crop comes from.

    Configuration `sal` divides the categories instead of the images (`held_out_categories`): no
    full label vector of its test split occurs in training. Its validation split is ours, drawn in
    the same way from the 1,890 training categories; categories of a single image are left out.
    """

    BUILDER_CONFIGS = [
        PersonDatasetConfig(name=name, version=PersonDatasetBuilder.VERSION)
        for name in (*(f"partition{k}" for k in range(5)), "sal")
    ]
    DEFAULT_CONFIG_NAME = "partition0"

    code_files = ("peta.py", "peta_annotation.py")
    schema_name = "peta"
    extra_features = {"subset": ClassLabel(names=list(SUBSET_SIZES))}
    split_sizes = {"train": 9500, "validation": 1900, "test": 7600, "trainval": 11400}
    sal_sizes = {"train": 10468, "validation": 1418, "test": 1435, "trainval": 11886}
    sal_categories = {"trainval": 1890, "train": 1701}
    subset_sizes = SUBSET_SIZES
    num_persons = 8699
    homepage = "http://mmlab.ie.cuhk.edu.hk/projects/PETA.html"
    license_terms = "research only, not commercial"
    citation = (
        "Y. Deng, P. Luo, C. C. Loy, X. Tang: Pedestrian Attribute Recognition At Far Distance. "
        "ACM Multimedia, 2014."
    )
    manual_download_instructions = (
        "PETA is for research only and is not downloaded: get the images from "
        f"{homepage} and PETA.mat from the README of "
        "https://github.com/dangweili/pedestrian-attribute-recognition-pytorch. Expected in "
        "`data_dir`: PETA.mat, and either `PETA dataset/<sub-set>/archive/<file>` (as published) "
        "or `images/00001.png` to `images/19000.png` (as public code renames them)."
    )

    @classmethod
    def find_source(cls, data_dir: str | None) -> PersonSource:
        """Find PETA.mat, the larger of the two image trees and, if published, the mapping."""
        folder = existing_folder(data_dir, cls.manual_download_instructions)
        roots = [folder / place for place in _PLACES]
        annotation, mapping = (first_file(roots, n) for n in (ANNOTATION_FILE, MAPPING_FILE))
        renamed = fullest_folder([root / "images" for root in roots], r"\d{5}\.png")
        published = _published_images(roots)
        if annotation is None or not (renamed or published):
            raise FileNotFoundError(
                f"`data_dir` must hold PETA.mat ({'found' if annotation else 'not found'}) and the "
                f"images ({len(published)} found as published, {len(renamed)} renamed), got "
                f"{data_dir!r} with {listing(folder)}. {cls.manual_download_instructions}"
            )
        if len(renamed) >= len(published):
            return PersonSource(annotations=[annotation], images=renamed)
        files = [annotation] if mapping is None else [annotation, mapping]
        return PersonSource(annotations=files, images=published)

    def read_records(self, source: PersonSource, report: VerificationReport) -> PersonRecords:
        """Read PETA.mat and give every image number its file."""
        annotation = read_annotation(source.annotations[0])
        names = [f"{number:05d}.png" for number in range(1, len(annotation.labels) + 1)]
        report.errors += self._check_annotation(annotation)
        if self.config.name == "sal":
            splits = self._category_splits(annotation.labels)
        else:
            splits = dict(annotation.partitions[int(self.config.name.removeprefix("partition"))])
            report.errors += check_partition(splits, names)
        splits["trainval"] = np.concatenate([splits["train"], splits["validation"]])
        return PersonRecords(
            image_names=names,
            image_paths=_image_paths(source, annotation, names, report),
            labels=annotation.labels,
            person_ids=annotation.person_ids,
            splits=splits,
            extra={"subset": annotation.subset_ids},
        )

    def published_sizes(self) -> dict[str, int]:
        """Images of each split of this configuration."""
        return self.sal_sizes if self.config.name == "sal" else self.split_sizes

    def _category_splits(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        trainval, test = held_out_categories(labels, self.sal_categories["trainval"])
        train, validation = held_out_categories(labels[trainval], self.sal_categories["train"])
        return {"train": trainval[train], "validation": trainval[validation], "test": test}

    def _check_annotation(self, annotation: PETAAnnotation) -> list[str]:
        schema = self.schema()
        errors = check_names(annotation.attributes, schema.attributes)
        if annotation.evaluated != list(schema.evaluated):
            errors.append(f"evaluated attributes must be the schema's, got {annotation.evaluated}")
        counts = np.bincount(annotation.subset_ids, minlength=len(SUBSETS)).tolist()
        subset_sizes = dict(zip(SUBSETS, counts, strict=True))
        errors += check_sizes(subset_sizes, self.subset_sizes, "sub-set")
        num_persons = len(np.unique(annotation.person_ids))
        if num_persons != self.num_persons:
            errors.append(f"there must be {self.num_persons} persons, got {num_persons}")
        return errors


def _image_paths(
    source: PersonSource,
    annotation: PETAAnnotation,
    names: Sequence[str],
    report: VerificationReport,
) -> list[Path | None]:
    """Give every image its file; say in `report.missing` why one has none."""
    is_renamed = all("/" not in file for file in source.images)
    if is_renamed:
        file_of = dict(enumerate(names, start=1))
    elif len(source.annotations) > 1:
        file_of = read_mapping(source.annotations[1])
        report.errors += check_mapping(file_of, annotation)
    else:
        file_of = derive_mapping(annotation, list(source.images))
    for number, name in enumerate(names, start=1):
        if number not in file_of:
            subset, person = annotation.subset_and_person(number)
            report.missing[name] = (
                f"person {person} of {subset} has too few or too many files to tell which is "
                f"which; {MAPPING_FILE} from {MAPPING_HOME}, put beside PETA.mat, tells"
            )
        elif file_of[number] not in source.images:
            report.missing[name] = f"no file {file_of[number]}"
    return [source.images.get(file_of.get(number, "")) for number in range(1, len(names) + 1)]


def _published_images(roots: Sequence[Path]) -> dict[str, Path]:
    found = (
        {
            f"{subset}/archive/{name}": path
            for subset in SUBSETS
            for name, path in files_in(root / subset / "archive", _IMAGE_FILE).items()
        }
        for root in roots
    )
    return max(found, key=len, default={})


__all__ = ["PETA"]
