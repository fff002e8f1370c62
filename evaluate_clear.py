"""Evaluate a checkpoint on a data set: recognition and retrieval, as JSON, Markdown and pictures.

    python evaluate_clear.py --checkpoint . --adapter adapters/peta --dataset peta \
        --data_dir PETA_FOLDER --split test --output_dir reports/peta

Retrieval protocol: each distinct vector of the evaluated attributes is one query, the gallery is
the whole split, and the images with exactly that vector are relevant.
"""

import json
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
from accelerate import Accelerator
from transformers import HfArgumentParser

from clear_par.datasets_scripts.retrieval_protocols import retrieval_split, unseen_categories
from clear_par.modeling_clear import ClearModel
from clear_par.peft_clear import active_adapter_config
from clear_par.processing_clear import ClearProcessor
from clear_par.reporting.figures import draw_attributes, draw_retrieval
from clear_par.reporting.markdown import report_markdown
from clear_par.reporting.recognition import recognition_report
from clear_par.reporting.retrieval import (
    cosine_scorer,
    likelihood_scorer,
    random_scorer,
    retrieval_report,
)
from clear_par.training.crops import PersonCrops, labels_of
from clear_par.training.evaluation import crop_loader, predict
from clear_par.training.queries import embed_texts, full_rows
from clear_par.training.settings import DataSettings, dataset_schema, option


@dataclass
class EvaluationSettings(DataSettings):
    """One report."""

    checkpoint: str = option(".", "Folder or Hub id of the model.")
    adapter: str | None = option(
        None, "Folder or Hub id of a retrieval adapter; None: no retrieval."
    )
    split: str = option("test", "Split to report on; choose models on another one.")
    seen_split: str = option("trainval", "Categories of this split are not unseen.")
    output_dir: str = option("reports/clear", "Folder of report.json, report.md and the pictures.")
    batch_size: int = option(128, "Crops per step.")


def main(settings: EvaluationSettings) -> dict:
    """Write the report and return it."""
    model, processor = load(settings)
    if processor.schema.attributes != dataset_schema(settings.dataset).attributes:
        raise ValueError(
            f"`dataset` must have the attributes of the checkpoint, {processor.schema.name!r}, got "
            f"{settings.dataset!r}."
        )
    rows = settings.load_rows(settings.split)
    crops = PersonCrops(rows, processor, None, settings.cache_images)
    accelerator = Accelerator()
    loader = crop_loader(crops, settings.batch_size)
    model, loader = accelerator.prepare(model, loader)
    logits, features = predict(model, loader, accelerator)
    labels = crops.labels.numpy()
    report = provenance(settings, len(rows))
    probabilities = torch.sigmoid(logits.double()).numpy()
    report["recognition"] = recognition_report(probabilities, labels, processor.schema)
    output = Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    draw_attributes(report["recognition"]["attributes"], output / "attributes.png")
    if settings.adapter is not None:
        report["retrieval"] = evaluate_retrieval(
            settings, model, processor, crops, logits, features.to(accelerator.device), output
        )
    write_whole(output / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_whole(output / "report.md", report_markdown(report))
    return report


def load(settings: EvaluationSettings) -> tuple[ClearModel, ClearProcessor]:
    """The model with its adapter, and a processor that makes the adapter's kind of queries."""
    model = ClearModel.from_pretrained(settings.checkpoint, dtype=torch.float32)
    processor = ClearProcessor.from_pretrained(settings.checkpoint, trust_remote_code=True)
    if settings.adapter is not None:
        model.load_adapter(settings.adapter)
        processor.query_kind = active_adapter_config(model).query_kind
    return model.eval(), processor


def evaluate_retrieval(
    settings: EvaluationSettings,
    model: ClearModel,
    processor: ClearProcessor,
    crops: PersonCrops,
    logits: torch.Tensor,
    features: torch.Tensor,
    output: Path,
) -> dict:
    """Rank the gallery for every category by the adapter, by the classifier and at random."""
    schema, columns = processor.schema, processor.schema.evaluated_indices
    split = retrieval_split(crops.labels.numpy(), columns)
    seen = labels_of(settings.load_rows(settings.seen_split))
    unseen = unseen_categories(split.queries, seen, columns)
    queries = full_rows(split.queries, columns, schema.num_attributes)
    query_embeds = embed_queries(model, processor, queries)
    with torch.no_grad():
        image_embeds = model.get_image_features(features=features)
    scorers = {
        "CLEAR adapter": cosine_scorer(query_embeds, image_embeds),
        "classifier likelihood": likelihood_scorer(split, logits[:, columns]),
        "random": random_scorer(len(crops)),
    }
    draw_top(scorers["CLEAR adapter"], split, queries, processor, crops, output / "retrieval.png")
    return {
        "num_queries": len(split.queries),
        "num_unseen": int(unseen.sum()),
        "gallery_size": len(crops),
        "query_kind": processor.query_kind,
        "rows": retrieval_report(scorers, split, unseen),
    }


@torch.no_grad()
def embed_queries(
    model: ClearModel, processor: ClearProcessor, queries: np.ndarray
) -> torch.Tensor:
    """Embeddings of label rows in the joint space: (queries, embed_dim)."""
    inputs = {"query_attributes": torch.from_numpy(queries).to(model.device)}
    if processor.query_kind != "hard":
        inputs["text_embeds"] = embed_texts(model, processor, queries)
    return model.get_query_features(**inputs)


def draw_top(scorer, split, queries, processor, crops, path: Path, count: int = 5) -> None:
    """The top-5 sheet of the five most frequent queries that differ in their first crop."""
    sizes = np.bincount(split.gallery_categories)
    chosen = np.argsort(-sizes, kind="stable")[: 4 * count : 4]
    best = np.argsort(-scorer(chosen), axis=1, kind="stable")[:, :count]
    results = [
        [(crops.rows[int(i)]["image"], bool(split.gallery_categories[i] == query), "") for i in row]
        for query, row in zip(chosen, best, strict=True)
    ]
    draw_retrieval([processor.schema.describe(queries[q]) for q in chosen], results, path)


def provenance(settings: EvaluationSettings, num_images: int) -> dict:
    """What a number needs to be repeated."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    data_dir = settings.data_dir or ""
    arguments = ["PETA_FOLDER" if a == data_dir and data_dir else a for a in sys.argv[1:]]
    return {
        "checkpoint": settings.checkpoint,
        "adapter": settings.adapter,
        "dataset": settings.dataset,
        "config_name": settings.config_name,
        "split": settings.split,
        "num_images": num_images,
        "command": shlex.join(["python", Path(sys.argv[0]).name, *arguments]),
        "commit": commit or None,
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"),
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, datasets)},
    }


def write_whole(path: Path, text: str) -> None:
    """Write under a temporary name, then rename."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main(HfArgumentParser(EvaluationSettings).parse_args_into_dataclasses()[0])
