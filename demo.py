"""The main job on the embedded default: recognise sample crops, search them, draw both.

    python demo.py                       # the drawn samples of this repository
    python demo.py --images MY_FOLDER    # your own crops of persons

Everything runs on the model in this folder, without a network.
"""

import argparse
import csv
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from clear_par.datasets_scripts.synthetic import synthetic_crops
from clear_par.reporting.figures import draw_recognition, draw_retrieval

ROOT = Path(__file__).resolve().parent
SAMPLES = ROOT / "assets" / "samples"
IMAGE_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
SHOWN = ["gender", "hair length", "upper colour", "lower colour", "backpack", "hat"]
QUERIES = [
    "a woman with long hair and a red top",
    {"gender": "male", "lower colour": "blue", "backpack": True},
    ["hat", "upper colour black"],
]


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


def sample_labels(schema) -> dict[str, list[int]]:
    """File name -> label row of the drawn samples."""
    labels = {}
    with (SAMPLES / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            present, unknown = row["present"].split(), row["unknown"].split()
            values = dict.fromkeys(present, 1) | dict.fromkeys(unknown, -100)
            labels[row["image_name"]] = [values.get(name, 0) for name in schema.attributes]
    return labels


def load_crops(folder: Path | None, schema) -> list[tuple[str, Image.Image, list[int] | None]]:
    """(name, crop, label row or None) of the samples or of the user's folder."""
    labels = {} if folder else sample_labels(schema)
    folder = folder or SAMPLES
    if not folder.is_dir():
        raise SystemExit(f"`--images` must be a folder, got {str(folder)!r}.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS)
    if not paths:
        raise SystemExit(f"`--images` must hold images {sorted(IMAGE_ENDINGS)}, got none there.")
    return [(path.name, Image.open(path), labels.get(path.name)) for path in paths]


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def recognised(decoded: dict, labels: list[int] | None, schema) -> list[tuple[str, bool | None]]:
    """(text, right or wrong or unknown) of the attributes that the demo shows."""
    truth = schema.readable(labels) if labels else {}
    lines = []
    for name in SHOWN:
        value, probability = decoded[name]
        if isinstance(value, bool):
            text = f"{'' if value else 'no '}{name} {probability:.0%}"
            label = labels[schema.index(flag_attribute(schema, name))] if labels else -100
            lines.append((text, None if label == -100 else bool(label) == value))
        else:
            known = truth.get(name, [])
            known = [known] if isinstance(known, str) else known
            lines.append((f"{name}: {value} {probability:.0%}", value in known if known else None))
    return lines


def flag_attribute(schema, name: str) -> str:
    """The attribute behind a flag."""
    return next(flag.attribute for flag in schema.flags if flag.name == name)


@torch.no_grad()
def recognise(model, processor, crops, output: Path) -> None:
    """Print and draw what each crop shows."""
    images = [image for _, image, _ in crops]
    logits = model(**processor(images=images, return_tensors="pt")).logits
    rows, drawn = [], []
    for (name, image, labels), decoded in zip(crops, processor.decode(logits), strict=True):
        lines = recognised(decoded, labels, processor.schema)
        marks = {True: " +", False: " -", None: ""}
        rows.append([name, *(text.split(": ")[-1] + marks[right] for text, right in lines)])
        drawn.append((image, lines))
    print("\nRecognised (+ right, - wrong, where the truth is known)\n")
    print_table(["crop", *SHOWN], rows)
    draw_recognition(drawn[:12], output / "recognition.png")


@torch.no_grad()
def retrieve(model, processor, crops, output: Path) -> None:
    """Print and draw the five crops that each query finds."""
    images = [image for _, image, _ in crops]
    image_embeds = model.get_image_features(**processor(images=images, return_tensors="pt"))
    texts, results = [], []
    for query in QUERIES:
        inputs = processor(queries=[query], return_tensors="pt")
        scores = (model.get_query_features(**inputs) @ image_embeds.T)[0]
        best = scores.topk(min(5, len(crops)))
        wanted = processor.query_values(query)
        rows, found = [], []
        for rank, (score, index) in enumerate(zip(*best, strict=True), start=1):
            name, image, labels = crops[int(index)]
            agrees = agreement(wanted, labels, processor.schema)
            rows.append([rank, name, f"{score:.3f}", ", ".join(agrees) if labels else "unknown"])
            is_right = None if labels is None else len(agrees) == wanted.count(1)
            found.append((image, is_right, f"{rank}: {score:.2f}"))
        texts.append(processor.describe(query))
        results.append(found)
        print(f"\nQuery {query!r}\nread as: {texts[-1]}\n")
        print_table(["rank", "crop", "score", "asked and true"], rows)
    draw_retrieval(texts, results, output / "retrieval.png")


def agreement(wanted: list[int], labels: list[int] | None, schema) -> list[str]:
    """The attributes that the query names and the crop shows."""
    labels = labels or [0] * len(wanted)
    pairs = zip(schema.attributes, wanted, labels, strict=True)
    return [name for name, asked, label in pairs if asked == label == 1]


def main() -> None:
    """Run both tasks."""
    arguments = parse_arguments()
    model = AutoModel.from_pretrained(arguments.model, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(arguments.model, trust_remote_code=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    crops = load_crops(arguments.images, processor.schema)
    recognise(model, processor, crops, arguments.output)
    model.load_adapter(arguments.adapter or str(Path(arguments.model, "adapters", "peta")))
    if arguments.images is None:
        drawn = synthetic_crops(arguments.gallery, seed=1, schema=processor.schema)
        crops += [(f"drawn {n:03d}", image, labels) for n, (image, labels, _) in enumerate(drawn)]
    retrieve(model, processor, crops, arguments.output)
    print(
        f"\nPictures: {arguments.output / 'recognition.png'}, {arguments.output / 'retrieval.png'}"
    )


if __name__ == "__main__":
    main()
