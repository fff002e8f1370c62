"""Procedural pedestrian crops with labels under the names of PETA.

Nothing is downloaded and nobody is shown: people are drawn from parts (synthetic_*.py), so the
labels are known exactly. Image k of a split depends on the seed, the split and k alone.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import BuilderConfig, DatasetInfo, GeneratorBasedBuilder, SplitGenerator, Version
from PIL import Image

from ..attributes_clear import AttributeSchema
from .person_dataset import UNKNOWN_CAMERA, person_features
from .retrieval_protocols import category_ids
from .synthetic_drawing import draw_pedestrian
from .synthetic_labels import pedestrian_labels
from .synthetic_person import Pedestrian
from .synthetic_sampling import sample_pedestrian

SPLITS = ("train", "validation", "test")
SCHEMA_FILE = Path(__file__).parent / "schemas" / "peta.json"

Crop = tuple[Image.Image, list[int], Pedestrian]


def synthetic_crop(
    seed: int, split: str, index: int, size: tuple[int, int], schema: AttributeSchema
) -> Crop:
    """Crop `index` of a split: picture, labels in schema order, traits."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    pedestrian = sample_pedestrian(rng)
    labels = pedestrian_labels(pedestrian, schema)
    return draw_pedestrian(pedestrian, rng, size), labels, pedestrian


def synthetic_crops(
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (128, 256),
    schema: AttributeSchema | None = None,
    split: str = "test",
) -> list[Crop]:
    """The first `count` crops of a split, equal to those of the `Synthetic` builder.

    Args:
        count: How many, at least 0.
        seed: Any integer from 0.
        size: Width and height in pixels.
        schema: Label order; None for that of PETA.
        split: "train", "validation" or "test".

    Returns:
        (picture, labels 1 / 0 / -100, traits) for each crop.
    """
    schema = schema or AttributeSchema.from_json(SCHEMA_FILE)
    return [synthetic_crop(seed, split, index, size, schema) for index in range(count)]


@dataclass
class SyntheticConfig(BuilderConfig):
    """How many crops of which size are drawn.

    Args:
        train_size: Crops of the split "train"; the other two alike.
        seed: Chooses the people; the same seed gives the same pixels.
        width: Of a crop in pixels; `height` alike.
    """

    train_size: int = 2000
    validation_size: int = 200
    test_size: int = 500
    seed: int = 0
    width: int = 128
    height: int = 256

    def split_size(self, split: str) -> int:
        """Number of crops of one split."""
        return getattr(self, f"{split}_size")


def _code_hash() -> str:
    """Key of the cache: an edited drawing must never bring old crops back."""
    digest = hashlib.sha256()
    for path in (SCHEMA_FILE, *sorted(Path(__file__).parent.glob("synthetic*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


class Synthetic(GeneratorBasedBuilder):
    """Builder of drawn pedestrians; splits train, validation and test.

    Every crop is another person seen once (`person_id` counts them, the camera is unknown), and
    `category_id` numbers the label vectors over the three splits in that order.

    Args:
        cache_dir: Where the tables are kept; None for the library's own place.
        **kwargs: As for `datasets.DatasetBuilder`, and the fields of SyntheticConfig.
    """

    VERSION = Version("1.0.0")
    BUILDER_CONFIG_CLASS = SyntheticConfig
    BUILDER_CONFIGS = [SyntheticConfig(name="default", version=VERSION)]
    DEFAULT_CONFIG_NAME = "default"

    def __init__(self, cache_dir: str | None = None, **kwargs: object) -> None:
        super().__init__(cache_dir=cache_dir, hash=_code_hash(), **kwargs)

    @classmethod
    def schema(cls) -> AttributeSchema:
        """The attributes of the labels, in order."""
        return AttributeSchema.from_json(SCHEMA_FILE)

    def _info(self) -> DatasetInfo:
        return DatasetInfo(
            description="Drawn pedestrians with exact attribute labels.",
            features=person_features(self.schema()),
            license="apache-2.0",
        )

    def _split_generators(self, dl_manager: object) -> list[SplitGenerator]:
        categories = self._categories()
        return [
            SplitGenerator(split, gen_kwargs={"split": split, "categories": categories[split]})
            for split in SPLITS
        ]

    def _categories(self) -> dict[str, list[int]]:
        schema, rows, ends = self.schema(), [], []
        for number, split in enumerate(SPLITS):
            for index in range(self.config.split_size(split)):
                rng = np.random.default_rng([self.config.seed, number, index])
                rows.append(pedestrian_labels(sample_pedestrian(rng), schema))
            ends.append(len(rows))
        numbers = category_ids(np.array(rows, np.int8)).tolist()
        starts = [0, *ends[:-1]]
        return {s: numbers[a:b] for s, a, b in zip(SPLITS, starts, ends, strict=True)}

    def _generate_examples(
        self, split: str, categories: list[int]
    ) -> Iterator[tuple[int, dict[str, object]]]:
        config, schema = self.config, self.schema()
        first_person = sum(config.split_size(s) for s in SPLITS[: SPLITS.index(split)])
        for index, category in enumerate(categories):
            image, labels, _ = synthetic_crop(
                config.seed, split, index, (config.width, config.height), schema
            )
            name = f"{split}_{index:05d}.png"
            yield (
                index,
                {
                    "image": {"path": name, "bytes": encode(image, "PNG")},
                    "labels": labels,
                    "person_id": first_person + index,
                    "camera": UNKNOWN_CAMERA,
                    "image_name": name,
                    "category_id": category,
                },
            )


def encode(image: Image.Image, kind: str) -> bytes:
    """The bytes of a picture file; `kind` is "PNG" or "JPEG"."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=92)
    return buffer.getvalue()


def contact_sheet(images: list[Image.Image], columns: int = 10, gap: int = 4) -> Image.Image:
    """All pictures on one white sheet, row by row."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap), rows * (height + gap)), "white")
    for index, image in enumerate(images):
        place = (index % columns * (width + gap), index // columns * (height + gap))
        sheet.paste(image, place)
    return sheet


def write_crops(crops: list[Crop], folder: Path, kind: str, schema: AttributeSchema) -> None:
    """Write the pictures and labels.csv: file, a sentence, present and unknown attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("image_name", "description", "present", "unknown")]
    for index, (image, labels, pedestrian) in enumerate(crops):
        name = f"{index:05d}.{kind}"
        write_file(folder / name, encode(image, {"png": "PNG", "jpg": "JPEG"}[kind]))
        named = list(zip(schema.attributes, labels, strict=True))
        present = " ".join(attribute for attribute, label in named if label == 1)
        unknown = " ".join(attribute for attribute, label in named if label < 0)
        rows.append((name, pedestrian.describe(), present, unknown))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    write_file(folder / "labels.csv", table.getvalue().encode())


def write_file(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename, so that no half file is ever seen."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clear_par.datasets_scripts.synthetic",
        description="Draw pedestrian crops whose attributes are known exactly.",
        epilog=(
            "labels.csv has one row per crop: the file, a description, the PETA attributes that "
            "are drawn (`present`) and those that a drawing cannot show (`unknown`); all others "
            "are absent. The same seed always gives the same crops, and a larger --count only "
            "adds to them. Example: --output crops --count 40 --contact-sheet crops.png . The "
            "repository's own samples: --output assets/samples --count 12 --seed 2936 --format jpg"
        ),
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for crops, labels.csv")
    parser.add_argument("--count", type=int, default=40, help="number of crops (40)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the people (0)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="of the data set (test)")
    parser.add_argument("--width", type=int, default=128, help="pixels (128)")
    parser.add_argument("--height", type=int, default=256, help="pixels (256)")
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="files (png)")
    parser.add_argument("--contact-sheet", type=Path, help="PNG file that shows all crops at once")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line: write crops, their labels and, if asked for, a contact sheet."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.count < 1 or options.seed < 0 or min(options.width, options.height) < 16:
        parser.error("--count must be at least 1, --seed at least 0, the sides at least 16 pixels")
    schema = Synthetic.schema()
    size = (options.width, options.height)
    crops = synthetic_crops(options.count, options.seed, size, schema, options.split)
    write_crops(crops, options.output, options.format, schema)
    if options.contact_sheet:
        sheet = contact_sheet([image for image, _, _ in crops])
        options.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        write_file(options.contact_sheet, encode(sheet, "PNG"))
    print(f"{len(crops)} crops and labels.csv in {options.output}")


__all__ = [
    "Pedestrian",
    "Synthetic",
    "SyntheticConfig",
    "contact_sheet",
    "draw_pedestrian",
    "pedestrian_labels",
    "sample_pedestrian",
    "synthetic_crops",
]

if __name__ == "__main__":
    main()
