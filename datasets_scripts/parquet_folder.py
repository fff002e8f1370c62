"""A person data set as a folder of Parquet with the images inside, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Image
from datasets.utils import tqdm

from .converted import SCHEMA_FILE
from .dataset_card import CARD_FILE, dataset_card
from .person_data import PersonData

RECORD_FILE = "conversion.json"  # its presence, and its list of files, mark a folder as ours
_ROWS_AT_ONCE = 200
SHARD_BYTES = 400 * 2**20  # small enough to be fetched and resumed, few enough to be listed


@dataclass(frozen=True)
class Conversion:
    """What a folder holds.

    Args:
        dataset, config_name: Where the rows come from. hub_license: "other" if they may not be
            published. split_files: Split -> its Parquet files, within the folder.
        split_sizes: Split -> rows. files: File within the folder -> SHA-256 of its content.
    """

    dataset: str
    config_name: str
    hub_license: str
    split_files: Mapping[str, Sequence[str]]
    split_sizes: Mapping[str, int]
    files: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Conversion:
        """Read the record of a converted folder.

        Raises: ValueError: the folder is none, or one of its files is missing or not recorded so.
        """
        try:
            record = cls(**json.loads((folder / RECORD_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"`folder` must be a converted data set, got {str(folder)!r}: {error}"
            ) from error
        if lacking := [name for name in record.files if not (folder / name).is_file()]:
            raise ValueError(
                f"`folder` must be whole, got {str(folder)!r} without {lacking[0]}. Convert again."
            )
        return record

    @property
    def own_files(self) -> list[str]:
        """All files that a conversion writes."""
        return [*self.files, RECORD_FILE]


def write_folder(data: PersonData, output: Path, shard_bytes: int = SHARD_BYTES) -> Conversion:
    """Convert a data set; an earlier conversion of the same one is replaced at the end.

    Args:
        output: New, empty, or an earlier conversion of the same data set and configuration.
        shard_bytes: Images of one Parquet file.

    Raises:
        ValueError: `output` holds other files, or an image is broken.
    """
    output = output.resolve()  # "." has no name to hide
    require_free(output, data)
    if broken := data.broken_images():
        shown = "; ".join(f"{name}: {why}" for name, why in list(broken.items())[:10])
        raise ValueError(f"`dataset` must hold whole images, got {len(broken)} broken: {shown}")
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / data.config_name).mkdir(parents=True)
        conversion = _write(data, partial, shard_bytes)
        _put_in_place(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return conversion


def require_free(output: Path, data: PersonData) -> None:
    """Raise ValueError unless nothing is lost when `output` is replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    what = "a file"
    if output.is_dir():
        what = "it holds other files"
        if (output / RECORD_FILE).is_file():
            record = Conversion.read(output)
            found = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
            if found <= set(record.own_files):
                if (record.dataset, record.config_name) == (data.name, data.config_name):
                    return
                what = f"it holds {record.dataset} {record.config_name}"
    raise ValueError(
        f"`output` must be new, empty or an earlier conversion of the same data set, got "
        f"{str(output)!r}: {what}. Name another folder."
    )


def _write(data: PersonData, folder: Path, shard_bytes: int) -> Conversion:
    names = {
        split: data.rows(split).select_columns("image_name")["image_name"][:]
        for split in data.own_splits
    }
    parts = repeated_splits(names)
    written = {
        split: _write_split(data.rows(split), folder, f"{data.config_name}/{split}", shard_bytes)
        for split in names
        if split not in parts
    }
    files = {
        split: [f for part in parts.get(split, [split]) for f in written[part]] for split in names
    }
    sizes = {split: len(rows) for split, rows in names.items()}
    tables = sorted({path for paths in files.values() for path in paths})
    digests = {path: file_digest(folder / path) for path in tables}
    data.schema.to_json(folder / SCHEMA_FILE)
    card = dataset_card(data, files, parts, content_digest(digests))
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    digests |= {name: file_digest(folder / name) for name in (SCHEMA_FILE, CARD_FILE)}
    license_id = data.terms.hub_license
    conversion = Conversion(data.name, data.config_name, license_id, files, sizes, digests)
    text = json.dumps(asdict(conversion), indent=1) + "\n"
    (folder / RECORD_FILE).write_text(text, encoding="utf-8")
    return conversion


def repeated_splits(names: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Find splits that only hold the rows of others, such as trainval.

    Args: names: Split -> image names of its rows.
    Returns: Split -> the splits whose rows it has, in its order where they follow each other.
    """
    found: dict[str, list[str]] = {}
    for split in sorted(names, key=lambda split: len(names[split])):
        own = {part: rows for part, rows in names.items() if part not in found}
        parts = _parts_of(names[split], own)
        if len(parts) > 1:
            found[split] = parts
    return found


def _parts_of(rows: Sequence[str], splits: Mapping[str, Sequence[str]]) -> list[str]:
    """Smaller splits that together are exactly `rows`; empty if there are none."""
    place = {name: number for number, name in enumerate(rows)}
    parts = [
        split
        for split, names in splits.items()
        if 0 < len(names) < len(rows) and all(name in place for name in names)
    ]
    together = [name for part in parts for name in splits[part]]
    is_whole = len(set(together)) == len(together) == len(rows) == len(place)
    return sorted(parts, key=lambda part: place[splits[part][0]]) if is_whole else []


def _write_split(rows: Dataset, folder: Path, stem: str, shard_bytes: int) -> list[str]:
    """Write the rows of one split; returns the files within the folder."""
    schema = rows.features.arrow_schema
    paths: list[Path] = []
    writer, size = None, 0
    with tqdm(total=len(rows), desc=f"Writing {stem}", unit=" images") as progress:
        for batch in _batches(rows):
            if writer is None:
                paths.append(folder / f"{stem}-{len(paths):05d}.partial")
                writer, size = pq.ParquetWriter(paths[-1], schema), 0
            writer.write_table(pa.Table.from_pydict(batch, schema=schema))
            size += sum(len(image["bytes"]) for image in batch["image"])
            progress.update(len(batch["image"]))
            if size >= shard_bytes:
                writer.close()
                writer = None
    if writer is not None:
        writer.close()
    names = [f"{stem}-{i:05d}-of-{len(paths):05d}.parquet" for i in range(len(paths))]
    for path, name in zip(paths, names, strict=True):
        path.rename(folder / name)
    return names


def _batches(rows: Dataset) -> Iterator[dict[str, list]]:
    """Rows as columns, each image as the bytes of its file under its bare name."""
    plain = rows.cast_column("image", Image(decode=False))
    for batch in plain.iter(_ROWS_AT_ONCE):
        images = zip(batch["image"], batch["image_name"], strict=True)
        yield {**batch, "image": [_embedded(image, name) for image, name in images]}


def _embedded(image: Mapping, name: str) -> dict:
    content = image["bytes"] or Path(image["path"]).read_bytes()
    return {"bytes": content, "path": PurePosixPath(name).name}


def _put_in_place(partial: Path, output: Path) -> None:
    if not output.exists():
        partial.rename(output)
        return
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    output.rename(old)
    try:
        partial.rename(output)
    except OSError:
        old.rename(output)
        raise
    shutil.rmtree(old)


def content_digest(digests: Mapping[str, str]) -> str:
    """One short name for the content of several files."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


__all__ = [
    "RECORD_FILE",
    "Conversion",
    "file_digest",
    "repeated_splits",
    "require_free",
    "write_folder",
]
