"""A small data set in the form of Market-1501, for the tests of its builder and of protocols."""

import csv
import os
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from clear_par.datasets_scripts.person_builder import PersonSource

UPPER = ("black", "white", "red", "purple", "yellow", "gray", "blue", "green")
LOWER = ("black", "white", "pink", "purple", "yellow", "gray", "blue", "green", "brown")
BINARY = ("backpack", "bag", "handbag", "clothes", "down", "up", "hair", "hat", "gender")
FIELDS = ("age", *BINARY, *(f"up{c}" for c in UPPER), *(f"down{c}" for c in LOWER))
TRAIN = tuple(range(2, 18))  # 16 persons: the eighth, 9, and the sixteenth, 17, are held out
TEST = (1, 20, 21)
# Every person of training has two images, every person of the test part one in each folder.
FILES = [
    *(f"bounding_box_train/{p:04d}_c{p % 6 + 1}s2_00010{k}_01.jpg" for p in TRAIN for k in (1, 2)),
    *(f"query/{p:04d}_c3s1_000200_00.jpg" for p in TEST[:2]),
    "query/0021_c3s1_000200_00.jpg.jpg",  # as a few of the published names end
    *(f"bounding_box_test/{p:04d}_c4s5_000300_01.jpg" for p in TEST),
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    *(f"bounding_box_test/0000_c2s6_00050{k}_01.jpg" for k in (1, 2)),
]
SIZES = {
    **{"train": 28, "validation": 4, "trainval": 32},
    **{"query": 3, "bounding_box_test": 3, "test": 6},
}
# What the builder must expect of it: its class attributes.
EXPECTED = {
    "split_sizes": SIZES,
    "option_sizes": {"junk": 1, "distractors": 2},
    "num_persons": {"train": 16, "test": 3},
}


class SmallMarket:
    """A data set of 41 images in a folder, and what it was made of."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        self.codes = {
            part: {name: rng.integers(1, 5 if name == "age" else 3, len(ids)) for name in FIELDS}
            for part, ids in (("train", TRAIN), ("test", TEST))
        }
        self.ids = {"train": list(TRAIN), "test": list(TEST)}
        self.write_annotation()
        self.write_images()

    def write_annotation(self, order=FIELDS):
        """The fields of the train part stand in another order than those of the test part."""
        struct = {}
        for part, names in (("test", order), ("train", order[::-1])):
            struct[part] = {name: self.codes[part][name].astype(np.uint8) for name in names}
            ids = np.array([f"{number:04d}" for number in self.ids[part]], dtype=object)
            struct[part]["image_index"] = ids.reshape(1, -1)
        savemat(self.root / "market_attribute.mat", {"market_attribute": struct})

    def write_images(self):
        pixels = np.random.default_rng(1).integers(0, 255, (16, 8, 3), dtype=np.uint8)
        source = self.root / "one.jpg"
        Image.fromarray(pixels).save(source, "JPEG")
        for file in FILES:
            path = self.path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)

    def path(self, file):
        return self.root / "Market-1501-v15.09.15" / file

    def labels(self, part, person):
        """By the published meaning of the codes, from the field of each name."""
        codes = {n: c[self.ids[part].index(person)] for n, c in self.codes[part].items()}
        ages = [int(codes["age"] == age) for age in (1, 2, 3, 4)]
        return ages + [int(codes[name] == 2) for name in FIELDS[1:]]


def published_source(folder):
    """The real annotation, and the names of all real images without the images."""
    lists = [folder / f"market1501_{part}.csv" for part in ("train", "query", "test")]
    lines = [line for path in lists for line in path.read_text(encoding="utf-8").splitlines()]
    images = {name: Path(name) for _, name in csv.reader(lines)}
    return PersonSource(annotations=[folder / "market_attribute.mat"], images=images)
