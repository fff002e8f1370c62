"""The main job on the embedded default: recognise sample crops, search them, draw both.

    python demo.py                       # the drawn samples of this repository
    python demo.py --images MY_FOLDER    # your own crops of persons

Everything runs on the model in this folder, without a network.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from clear_par.attributes_clear import ABSENT, PRESENT, UNKNOWN, AttributeSchema
from clear_par.datasets_scripts.synthetic import synthetic_crops
from clear_par.peft_clear import search_scores
from clear_par.processing_clear import to_rgb
from clear_par.reporting.adapter import load_adapter
from clear_par.reporting.figures import draw_recognition, draw_retrieval
from clear_par.training.checkpoint import naming

ROOT = Path(__file__).resolve().parent
SAMPLES = ROOT / "assets" / "samples"
IMAGE_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
SHOWN = {  # column -> groups whose choice is shown
    "gender": ["gender"],
    "hair": ["hair length", "hair colour"],
    "upper": ["upper colour", "upper type"],
    "lower": ["lower colour", "lower type"],
}
MOST_DRAWN = 12  # crops in the picture
BATCH = 64
FLAG_SECTIONS = ["carried", "accessories"]  # columns of all flags of a section
NOTHING = {"carrying nothing", "no accessories"}  # flags that an empty column says as well
QUERIES = [
    "a woman with long hair and a red top",
    {"gender": "male", "lower colour": "blue", "backpack": True},
    ["hat", "upper colour black"],
]


@dataclass(frozen=True)
class Crop:
    """A crop with its label row, when that is known."""

    name: str
    image: Image.Image
    labels: list[int] | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that was recognised: its words, probability, and whether it is right, if known.

    is_missed: it is not recognised, but there.
    """

    value: str
    probability: float
    is_right: bool | None
    is_missed: bool = False

    def __str__(self) -> str:
        mark = {True: "+", False: "-", None: ""}[self.is_right]
        return f"({self.value})" if self.is_missed else f"{self.value}{mark}"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(ROOT), help="folder or Hub id of the model")
    parser.add_argument("--adapter", help="retrieval adapter (default: adapters/peta of the model)")
    parser.add_argument("--images", type=Path, help="folder of crops instead of the drawn samples")
    parser.add_argument("--gallery", type=int, default=150, help="drawn crops to search as well")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder of pictures")
    return parser.parse_args()


# ---- what is read ---------------------------------------------------------------------------


def load(arguments: argparse.Namespace):
    """Model with its adapter, and processor."""
    with naming("model", arguments.model):
        model = AutoModel.from_pretrained(arguments.model, trust_remote_code=True)
        processor = AutoProcessor.from_pretrained(arguments.model, trust_remote_code=True)
    try:
        for query in QUERIES:
            processor.query_values(query)
    except ValueError as error:
        raise ValueError(f"`--model` must know what the demo asks for: {error}") from None
    load_adapter(model, processor, arguments.adapter or f"{arguments.model}/adapters/peta")
    return model.eval(), processor


def load_crops(folder: Path | None, schema: AttributeSchema) -> list[Crop]:
    """The drawn samples with their labels, or the crops of the user's folder."""
    labels = {} if folder else sample_labels(schema)
    folder = folder or SAMPLES
    if not folder.is_dir():
        raise ValueError(f"`--images` must be a folder, got {str(folder)!r}.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    if not paths:
        raise ValueError(
            f"`--images` must hold images {sorted(IMAGE_ENDINGS)}, got {str(folder)!r} with none."
        )
    return [Crop(path.name, to_rgb(path), labels.get(path.name)) for path in paths]


def sample_labels(schema: AttributeSchema) -> dict[str, list[int]]:
    """File name -> label row of the drawn samples."""
    labels = {}
    with (SAMPLES / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            present, unknown = row["present"].split(), row["unknown"].split()
            values = dict.fromkeys(present, PRESENT) | dict.fromkeys(unknown, UNKNOWN)
            labels[row["image_name"]] = [values.get(name, ABSENT) for name in schema.attributes]
    return labels


def drawn_crops(count: int, schema: AttributeSchema) -> list[Crop]:
    """Crops that are drawn now, to make a gallery."""
    drawn = synthetic_crops(count, seed=1, schema=schema)
    return [Crop(f"drawn {n:03d}", image, labels) for n, (image, labels, _) in enumerate(drawn)]


# ---- recognition ----------------------------------------------------------------------------


def findings(decoded: dict, labels: list[int] | None, schema) -> dict[str, list[Finding]]:
    """Column -> what was recognised in one crop, beside the truth where it is known."""
    known = {} if labels is None else dict(zip(schema.attributes, labels, strict=True))
    columns = {
        column: [
            group_finding(group, *decoded[group.name], known)
            for group in schema.groups
            if group.name in names
        ]
        for column, names in SHOWN.items()
    }
    for section in FLAG_SECTIONS:
        columns[section] = [
            flag_finding(flag, *decoded[flag.name], known)
            for flag in schema.flags
            if flag.section == section
            and flag.name not in NOTHING
            and (decoded[flag.name][0] or known.get(flag.attribute) == PRESENT)
        ]
    return columns


def group_finding(group, value: str, probability: float, known: dict[str, int]) -> Finding:
    """A choice: right when the labels state it, wrong when they state another."""
    chosen = group.chosen(known) if known else []
    is_unknown = not chosen or known.get(group.options.get(value)) == UNKNOWN
    return Finding(value, probability, None if is_unknown else value in chosen)


def flag_finding(flag, is_present: bool, probability: float, known: dict[str, int]) -> Finding:
    """Something that is there, rightly or wrongly, or that was missed."""
    label = known.get(flag.attribute, UNKNOWN)
    is_right = None if label == UNKNOWN else is_present == bool(label)
    return Finding(flag.name, probability, is_right, is_missed=not is_present)


@torch.no_grad()
def recognise(model, processor, crops: list[Crop], output: Path) -> None:
    """Print and draw what each crop shows."""
    inputs = processor(images=[crop.image for crop in crops], return_tensors="pt")
    decoded = processor.decode(model(**inputs).logits)
    found = [findings(d, c.labels, processor.schema) for d, c in zip(decoded, crops, strict=True)]
    rows = [
        [crop.name, *(", ".join(map(str, cell)) for cell in columns.values())]
        for crop, columns in zip(crops, found, strict=True)
    ]
    print("\nRecognised (where the truth is known: + right, - wrong, in brackets missed)\n")
    print_table(["crop", *found[0]], rows)
    print_summary(found)
    drawn = [
        (crop.image, [line(name, f) for name, cell in columns.items() for f in cell])
        for crop, columns in zip(crops[:MOST_DRAWN], found, strict=False)
    ]
    draw_recognition(drawn, output / "recognition.png")


def print_summary(found: list[dict[str, list[Finding]]]) -> None:
    """Count what is right, where the truth is known; choices and single items apart."""
    cells = [(name, f) for columns in found for name, cell in columns.items() for f in cell]
    choices = [f.is_right for name, f in cells if name in SHOWN and f.is_right is not None]
    items = [f for name, f in cells if name not in SHOWN and f.is_right is not None]
    if choices or items:
        right, missed = sum(f.is_right for f in items), sum(f.is_missed for f in items)
        print(
            f"\n{sum(choices)} of {len(choices)} choices are right; items: {right} found, "
            f"{missed} missed, {len(items) - right - missed} that are not there."
        )


def line(column: str, finding: Finding) -> tuple[str, bool | None]:
    """A finding as it stands beside its crop."""
    said = "missed" if finding.is_missed else f"{finding.probability:.0%}"
    return f"{column}: {finding.value} {said}", finding.is_right


def print_table(header: list[str], rows: list[list]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


# ---- retrieval ------------------------------------------------------------------------------


@torch.no_grad()
def retrieve(model, processor, crops: list[Crop], output: Path) -> None:
    """Print and draw the five crops that each query finds; the score is that of `search_scores`."""
    image_embeds, logits = seen_by_model(model, processor, [crop.image for crop in crops])
    texts, results = [], []
    for query in QUERIES:
        wanted = np.array(processor.query_values(query))
        query_embeds = model.get_query_features(**processor(queries=[query], return_tensors="pt"))
        scores = search_scores(model, query_embeds, image_embeds, wanted[None], logits)[0]
        best = torch.from_numpy(scores).topk(min(5, len(crops)))
        rows, found = [], []
        for rank, (score, index) in enumerate(zip(*best, strict=True), start=1):
            crop = crops[int(index)]
            words, is_right = agreement(wanted, crop.labels, processor.schema)
            rows.append([rank, crop.name, f"{score:.3f}", words])
            found.append((crop.image, is_right, f"{rank}: {score:.2f}"))
        texts.append(processor.describe(query))
        results.append(found)
        print(f"\nQuery {query!r}\nread as: {texts[-1]}\n")
        print_table(["rank", "crop", "score", "asked and true"], rows)
    draw_retrieval(texts, results, output / "retrieval.png")


def seen_by_model(model, processor, images: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Shape: images -> (images, embed_dim) of the joint space, and logits (images, attributes)."""
    outputs = [
        model(**processor(images=images[start : start + BATCH], return_tensors="pt"))
        for start in range(0, len(images), BATCH)
    ]
    return tuple(torch.cat([output[n] for output in outputs]) for n in ("image_embeds", "logits"))


def agreement(
    wanted: np.ndarray, labels: list[int] | None, schema: AttributeSchema
) -> tuple[str, bool | None]:
    """The asked attributes that a crop shows, and whether it answers the whole query.

    Args:
        wanted: (attributes,) of 1, 0 and -100. labels: the same; None: unknown.
    """
    if labels is None:
        return "unknown", None
    shows = np.array(labels) == PRESENT
    true = [schema.attributes[i] for i in np.flatnonzero(shows & (wanted == PRESENT))]
    asked = int((wanted == PRESENT).sum())
    is_right = len(true) == asked and not (shows & (wanted == ABSENT)).any()
    return f"{len(true)} of {asked}{': ' if true else ''}{', '.join(true)}", is_right


def main() -> None:
    """Run both tasks; what the user got wrong ends it with one message."""
    arguments = parse_arguments()
    try:
        model, processor = load(arguments)
        crops = load_crops(arguments.images, processor.schema)
    except ValueError as error:
        raise SystemExit(f"demo.py: error: {error}") from None
    arguments.output.mkdir(parents=True, exist_ok=True)
    recognise(model, processor, crops, arguments.output)
    if arguments.images is None:
        crops = crops + drawn_crops(arguments.gallery, processor.schema)
    retrieve(model, processor, crops, arguments.output)
    names = ("recognition.png", "retrieval.png")
    print(f"\nPictures: {', '.join(str(arguments.output / name) for name in names)}")


if __name__ == "__main__":
    main()
