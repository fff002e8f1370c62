"""The builder that all person data sets on disk share: find, verify, cache, generate.

A data set is a subclass of `PersonDatasetBuilder` that says where its files are (`find_source`) and
how they are read (`read_records`). Such data sets are asked for by hand: nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import BuilderConfig, DatasetInfo, GeneratorBasedBuilder, SplitGenerator, Version

from ..attributes_clear import AttributeSchema
from .person_dataset import UNKNOWN_CAMERA, person_features
from .retrieval_protocols import category_ids
from .source_files import missing_files
from .verification import (
    VerificationError,
    VerificationReport,
    check_images,
    check_labels,
    check_sizes,
)

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_REPORT_FILE = "verification.json"
_SHARED_CODE = (
    "person_builder.py",
    "person_dataset.py",
    "retrieval_protocols.py",
    "source_files.py",
    "verification.py",
)


@dataclass(frozen=True)
class PersonSource:
    """The files of a data set on disk.

    Args:
        annotations: Files whose content decides what the rows are.
        images: Name within the data set -> file.
    """

    annotations: Sequence[Path]
    images: Mapping[str, Path]

    def fingerprint(self) -> str:
        """Hash the annotations' content and the images' paths and sizes."""
        digest = hashlib.sha256()
        for path in self.annotations:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        for name, path in sorted(self.images.items()):
            digest.update(f"{name}\0{path}\0{_file_size(path)}\0".encode())
        return digest.hexdigest()


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # A link to nowhere; verification names it.


@dataclass
class PersonRecords:
    """All rows of a data set, before they are divided into splits.

    Args:
        image_names: One per row, unique.
        image_paths: File of each row, None where there is none.
        labels: (images, attributes) int8.
        person_ids: (images,).
        splits: Name -> (images of the split,) row numbers, 0-based, in the order of the split.
        cameras: (images,), None where unknown.
        extra: Further columns, (images,) each.
    """

    image_names: Sequence[str]
    image_paths: Sequence[Path | None]
    labels: np.ndarray
    person_ids: np.ndarray
    splits: Mapping[str, np.ndarray]
    cameras: np.ndarray | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def category_ids(self) -> np.ndarray:
        """(images,) number of each row's full label vector."""
        return category_ids(self.labels)

    def example(self, row: int) -> dict[str, object]:
        """One row under the names of `person_features`."""
        return {
            "image": str(self.image_paths[row]),
            "labels": self.labels[row].tolist(),
            "person_id": int(self.person_ids[row]),
            "camera": UNKNOWN_CAMERA if self.cameras is None else int(self.cameras[row]),
            "image_name": self.image_names[row],
            "category_id": int(self.category_ids[row]),
            **{name: column[row].item() for name, column in self.extra.items()},
        }


@dataclass
class PersonDatasetConfig(BuilderConfig):
    """Options of every person data set on disk.

    Args:
        allow_partial: Build from the images that are there, warn about the others. The annotation
            itself must be whole in any case.
        verify_images: Decode every image once while building; otherwise files must only exist.
    """

    allow_partial: bool = False
    verify_images: bool = True


class PersonDatasetBuilder(GeneratorBasedBuilder):
    """Builder of a person data set that lies on disk.

    The cache is keyed by the content of `data_dir`, by the code that makes the rows (`code_files`)
    and by the schema: neither a changed file nor an edited builder ever brings old rows back. Rows
    point at the image files.

    Args:
        cache_dir: Where the tables are kept; None for the library's own place.
        data_dir: Folder that holds the data set.
        **kwargs: As for `datasets.DatasetBuilder`, and the fields of PersonDatasetConfig.
    """

    VERSION = Version("1.0.0")
    BUILDER_CONFIG_CLASS = PersonDatasetConfig

    code_files: ClassVar[tuple[str, ...]]
    schema_name: ClassVar[str]
    extra_features: ClassVar[dict[str, object]] = {}
    label_values: ClassVar[tuple[int, ...]] = (0, 1)
    split_sizes: ClassVar[dict[str, int]]
    homepage: ClassVar[str]
    license_terms: ClassVar[str]
    citation: ClassVar[str]
    manual_download_instructions: ClassVar[str]

    def __init__(
        self, cache_dir: str | None = None, data_dir: str | Path | None = None, **kwargs: object
    ) -> None:
        if data_dir is not None:
            data_dir = str(Path(data_dir).expanduser().absolute())
        cache_key = self._cache_key(data_dir)
        super().__init__(cache_dir=cache_dir, data_dir=data_dir, hash=cache_key, **kwargs)

    @classmethod
    def schema(cls) -> AttributeSchema:
        """The attributes of the data set, in label order."""
        return AttributeSchema.from_json(cls._schema_file())

    @classmethod
    @abstractmethod
    def find_source(cls, data_dir: str | None) -> PersonSource:
        """Find the files; raise FileNotFoundError, with instructions, if they are not there."""

    @abstractmethod
    def read_records(self, source: PersonSource, report: VerificationReport) -> PersonRecords:
        """Read the annotation; add to `report` what only this data set can check."""

    @classmethod
    def _source(
        cls, folder: Path, annotation_file: str, annotation: Path | None, images: Mapping[str, Path]
    ) -> PersonSource:
        """The source of one annotation and its images; FileNotFoundError when either is absent."""
        if annotation is None or not images:
            found = {annotation_file: annotation is not None, "the images": len(images)}
            raise missing_files(folder, found, cls.manual_download_instructions)
        return PersonSource(annotations=[annotation], images=images)

    def published_sizes(self) -> dict[str, int]:
        """Images of each split; a builder whose configurations differ in them overrides this."""
        return self.split_sizes

    @property
    def report(self) -> VerificationReport:
        """What the verification found when the rows were built."""
        path = posixpath.join(self._output_dir, _REPORT_FILE)
        with self._fs.open(path, "r", encoding="utf-8") as file:
            return VerificationReport.from_json(file.read())

    def download_and_prepare(self, *args: object, **kwargs: object) -> None:
        """Verify the files and build the tables, or reuse those built from the same files.

        Raises:
            FileNotFoundError: The data set is not in `data_dir`.
            VerificationError: It deviates from the published one.
        """
        self._follow_changed_files()
        super().download_and_prepare(*args, **kwargs)
        if not self.report.is_complete:
            logger.warning("%s", self.report.describe())

    def _info(self) -> DatasetInfo:
        return DatasetInfo(
            features=person_features(self.schema(), **self.extra_features),
            homepage=self.homepage,
            license=self.license_terms,
            citation=self.citation,
        )

    def _split_generators(self, dl_manager: object) -> list[SplitGenerator]:
        records, self._new_report = self._verified_records()
        unusable = self._new_report.missing.keys() | self._new_report.broken.keys()
        is_usable = np.array([name not in unusable for name in records.image_names])
        return [
            SplitGenerator(name, gen_kwargs={"records": records, "rows": rows[is_usable[rows]]})
            for name, rows in records.splits.items()
        ]

    def _generate_examples(
        self, records: PersonRecords, rows: np.ndarray
    ) -> Iterator[tuple[int, dict[str, object]]]:
        for row in rows.tolist():
            yield row, records.example(row)

    def _download_and_prepare(self, *args: object, **kwargs: object) -> None:
        super()._download_and_prepare(*args, **kwargs)
        # `_output_dir` is the temporary folder here: report and tables become visible together.
        path = posixpath.join(self._output_dir, _REPORT_FILE)
        with self._fs.open(path, "w", encoding="utf-8") as file:
            file.write(self._new_report.to_json())

    def _follow_changed_files(self) -> None:
        """Turn to another cache folder if the files are no longer those that the object found."""
        cache_key = self._cache_key(self.config.data_dir)
        if cache_key != self.hash:
            self.hash = cache_key
            self._cache_dir = self._output_dir = self._build_cache_dir()
            self.info.splits = None  # Sizes of the old rows, which new ones would be held against.

    def _verified_records(self) -> tuple[PersonRecords, VerificationReport]:
        source = self.find_source(self.config.data_dir)
        report = VerificationReport(dataset=f"{self.dataset_name}/{self.config.name}")
        records = self.read_records(source, report)
        self._verify(records, report)
        if report.errors or not (report.is_complete or self.config.allow_partial):
            raise VerificationError(report, self._remedy(report))
        if report.num_usable == 0:
            raise VerificationError(report, self.manual_download_instructions)
        return records, report

    def _verify(self, records: PersonRecords, report: VerificationReport) -> None:
        names, paths = records.image_names, records.image_paths
        report.num_images = len(names)
        attributes = self.schema().attributes
        report.errors += check_labels(records.labels, attributes, names, self.label_values)
        split_sizes = {split: len(rows) for split, rows in records.splits.items()}
        report.errors += check_sizes(split_sizes, self.published_sizes(), "split")
        found = {name: path for name, path in zip(names, paths, strict=True) if path is not None}
        for name in names:
            if name not in found:
                report.missing.setdefault(name, "no such file")
        if self.config.verify_images:
            report.broken.update(check_images(found))

    def _remedy(self, report: VerificationReport) -> str:
        if report.errors:
            return "The annotation is not the published one; get it again."
        return (
            "Restore these images, or pass `allow_partial=True` to build without them "
            "(results are then not comparable with published ones)."
        )

    @classmethod
    def _schema_file(cls) -> Path:
        return _HERE / "schemas" / f"{cls.schema_name}.json"

    @classmethod
    def _cache_key(cls, data_dir: str | None) -> str | None:
        try:
            source = cls.find_source(data_dir)
        except FileNotFoundError:
            return None  # Features can be looked at without data; building raises this error.
        code = [_HERE / file for file in (*_SHARED_CODE, *cls.code_files)]
        rules = PersonSource(annotations=[*code, cls._schema_file()], images={}).fingerprint()
        return hashlib.sha256((source.fingerprint() + rules).encode()).hexdigest()[:32]


__all__ = ["PersonDatasetBuilder", "PersonDatasetConfig", "PersonRecords", "PersonSource"]
