"""Where crops come from: a folder, a zip file, Parquet, a data set of `datasets`, a Hub id.

A folder, and a zip file likewise, may hold `metadata.csv` or `metadata.jsonl` beside its images,
with a column `file_name`: the layout of `datasets`' image folders.
"""

import csv
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from .metadata import column_types, union_types

IMAGE_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
METADATA_FILES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"
ENCRYPTED = 1  # the bit in the flags of a zip's entry
# RuntimeError: a password is needed, or the compression is unknown here.
UNREADABLE_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
PARQUET_ROWS = 64  # rows with their images that are in memory together


@dataclass(frozen=True)
class Item:
    """One image, not yet read.

    image: its name inside the source. read: gives the bytes of the file. metadata: what is known.
    """

    image: str
    read: Callable[[], bytes]
    metadata: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Images in a fixed order.

    name: "kind:place". count: how many images. columns: the metadata's types. items: starts anew
    each time it is called.
    """

    name: str
    count: int
    columns: dict[str, pa.DataType]
    items: Callable[[], Iterator[Item]]


def open_source(
    images: str,
    split: str | None = None,
    name_pattern: str | None = None,
    constants: Mapping[str, str] | None = None,
) -> Source:
    """Open whatever `images` names.

    Args:
        images: folder, zip file, Parquet file or folder of them, folder of `save_to_disk`, name of
            a builder of this project or of `datasets`, or Hub id.
        split: of a data set; None: all of them, or the only one.
        name_pattern: regular expression that finds metadata in image names by named groups, such
            as `_c(?P<camera>[0-9]+)s`.
        constants: metadata of every image, such as {"camera": "entrance"}.

    Raises:
        ValueError: when there is no such place, or it holds no images.
    """
    path = Path(images).expanduser()
    if path.is_dir():
        source = _open_folder(path.resolve(), split)
    elif path.is_file():
        source = _open_file(path.resolve())
    else:
        source = _open_dataset(images, split)
    if not source.count:
        endings = sorted(IMAGE_ENDINGS)
        raise ValueError(f"`images` must hold images {endings}, got {images!r} with none.")
    return _with_extras(source, name_pattern, dict(constants or {}))


def read_again(name: str, image: str) -> bytes:
    """The file of an image by the names that a gallery keeps of it.

    Raises:
        ValueError: when it is gone.
    """
    kind, place = name.split(":", 1)
    try:
        if kind == "folder":
            return Path(place, image).read_bytes()
        if kind == "zip":
            return _read_member(Path(place), image)
        if kind == "parquet":
            return _read_parquet_row(Path(place), image)
        return _read_dataset_row(place, image)
    except (OSError, KeyError, IndexError, pa.ArrowInvalid, *UNREADABLE_ZIP) as error:
        raise ValueError(
            f"`image` must still be in its source, got {image!r} of {name!r}: {error}"
        ) from None


def _with_extras(source: Source, name_pattern: str | None, constants: dict) -> Source:
    if name_pattern is None and not constants:
        return source
    try:
        pattern = re.compile(name_pattern or "")
    except re.error as error:
        raise ValueError(f"`name_pattern` must be a regular expression: {error}") from None
    added = {name: pa.string() for name in (*pattern.groupindex, *constants)}

    def items() -> Iterator[Item]:
        for item in source.items():
            found = pattern.search(item.image)
            groups = {k: v for k, v in (found.groupdict() if found else {}).items() if v}
            yield Item(item.image, item.read, {**item.metadata, **constants, **groups})

    return Source(source.name, source.count, {**source.columns, **added}, items)


# ---- folders and zip files ------------------------------------------------------------------


def _open_folder(folder: Path, split: str | None) -> Source:
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _open_dataset(str(folder), split)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    parquet = [path for path in paths if path.suffix.lower() == ".parquet"]
    names = [path.relative_to(folder).as_posix() for path in paths]
    images = [name for name in names if _is_image(name)]
    if parquet and not images:
        return _open_parquet(folder, parquet)
    return _named_files(
        f"folder:{folder}", names, images, lambda name: (folder / name).read_bytes()
    )


def _open_file(path: Path) -> Source:
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, [path])
    if path.suffix.lower() == ".zip":
        return _open_zip(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(
            "`images` must be a folder, a zip file, Parquet, a data set or a Hub id, got the file "
            f"{str(path)!r}. Put single images into a folder."
        )
    return _open_zip(path)


def _open_zip(path: Path) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if any(entry.flag_bits & ENCRYPTED for entry in entries):
            raise zipfile.BadZipFile("it is encrypted")
        names = sorted(entry.filename for entry in entries)
        images = [n for n in names if _is_image(n) and not n.startswith("__MACOSX/")]
        return _named_files(f"zip:{path}", names, images, partial(_read_member, path))
    except UNREADABLE_ZIP as error:
        raise ValueError(
            f"`images` must be a whole zip file without a password, got {str(path)!r}: {error}. "
            "Unpack it, and give the folder."
        ) from None


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("._")


def _read_member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:  # one for each read, so that threads may read
        return archive.read(name)


def _named_files(
    name: str, names: list[str], images: list[str], read: Callable[[str], bytes]
) -> Source:
    """Files by name, with the metadata that lies beside them."""
    metadata, columns = {}, {}
    for file in names:
        if PurePosixPath(file).name in METADATA_FILES:
            rows = _metadata_rows(f"{name}/{file}", read(file))
            columns = union_types(columns, column_types(rows.values()))
            beside = PurePosixPath(file).parent
            metadata |= {(beside / key).as_posix(): row for key, row in rows.items()}
    if metadata and metadata.keys().isdisjoint(images):
        raise ValueError(
            f"`images` must hold what its metadata names, got {name!r} without "
            f"{next(iter(metadata))!r} and all others. Name files from the metadata file's folder."
        )

    def items() -> Iterator[Item]:
        for image in images:
            yield Item(image, partial(read, image), metadata.get(image, {}))

    return Source(name, len(images), columns, items)


def _metadata_rows(place: str, content: bytes) -> dict[str, dict]:
    """File name -> row of a metadata file."""
    try:
        text = content.decode("utf-8-sig")
        if place.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = [_read_cells(row) for row in csv.DictReader(io.StringIO(text))]
        return {PurePosixPath(row.pop(FILE_NAME)).as_posix(): row for row in rows}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"`images` must have rows with a {FILE_NAME!r} in {place!r}, got none there: {error!r}."
        ) from None


def _read_cells(row: Mapping[str, str]) -> dict:
    """Cells of a CSV row: empty ones are unknown; numbers are recognised for whole columns."""
    return {key: value or None for key, value in row.items() if key is not None}


# ---- Parquet --------------------------------------------------------------------------------


def _open_parquet(place: Path, files: list[Path]) -> Source:
    try:
        tables = [pq.ParquetFile(file) for file in files]
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"`images` must be readable Parquet, got {str(place)!r}: {error}"
        ) from None
    schema = tables[0].schema_arrow
    image = _image_column(schema, str(place))
    columns = _scalar_columns(schema)
    roots = [file.relative_to(place).as_posix() if file != place else "" for file in files]

    def items() -> Iterator[Item]:
        for file, root in zip(files, roots, strict=True):
            row = 0
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(PARQUET_ROWS, columns=[image, *columns]):
                    for values in batch.to_pylist():
                        content = _image_bytes(values.pop(image), file.parent)
                        yield Item(f"{root}#{row}", content, values)
                        row += 1

    count = sum(table.metadata.num_rows for table in tables)
    return Source(f"parquet:{place}", count, columns, items)


def _image_column(schema: pa.Schema, place: str) -> str:
    """The column of the images: struct of bytes and path, or bytes."""
    for known in schema:
        fields = {f.name for f in known.type} if pa.types.is_struct(known.type) else set()
        if "bytes" in fields or pa.types.is_binary(known.type):
            return known.name
    raise ValueError(f"`images` must have a column of images, got {place!r} with {schema.names}.")


def _scalar_columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    is_scalar = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_timestamp,
    )
    return {f.name: f.type for f in schema if any(check(f.type) for check in is_scalar)}


def _image_bytes(value: Mapping | bytes | None, folder: Path) -> Callable[[], bytes]:
    """How to get the bytes of one cell."""
    if isinstance(value, Mapping):
        path, value = value.get("path"), value.get("bytes")
        if value is None and path:
            return (folder / path).read_bytes
    return partial(_given, value)


def _given(content: bytes | None) -> bytes:
    if content is None:
        raise ValueError("the cell is empty")
    return content


def _read_parquet_row(place: Path, image: str) -> bytes:
    root, row = image.rsplit("#", 1)
    file = place / root if root else place
    with pq.ParquetFile(file) as opened:
        column = _image_column(opened.schema_arrow, str(file))
        start = 0
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            if int(row) < start + rows:
                cells = opened.read_row_group(group, [column])[column]
                return _image_bytes(cells[int(row) - start].as_py(), file.parent)()
            start += rows
    raise IndexError(image)


# ---- data sets ------------------------------------------------------------------------------


def _open_dataset(images: str, split: str | None) -> Source:
    from .hub_rows import known_metadata, load_splits  # `datasets` takes a second to import

    builder, _, folder = images.partition("@")
    if folder and Path(folder).is_dir():  # found again from any working directory
        images = f"{builder}@{Path(folder).resolve()}"
    splits = load_splits(images, split)
    image = _image_column(next(iter(splits.values())).features.arrow_schema, images)
    columns = _scalar_columns(next(iter(splits.values())).features.arrow_schema)

    def items() -> Iterator[Item]:
        for name, rows in splits.items():
            for index, values in enumerate(rows.select_columns([image, *columns])):
                content = _image_bytes(values.pop(image), Path())
                yield Item(f"{name}#{index}", content, known_metadata(values))

    return Source(f"dataset:{images}", sum(map(len, splits.values())), columns, items)


def _read_dataset_row(place: str, image: str) -> bytes:
    from .hub_rows import load_splits

    split, row = image.rsplit("#", 1)
    rows = load_splits(place, split)[split]
    column = _image_column(rows.features.arrow_schema, place)
    return _image_bytes(rows[int(row)][column], Path())()


__all__ = ["Item", "Source", "open_source", "read_again"]
