"""Evaluate a checkpoint on a data set: recognition and retrieval, as JSON, Markdown and pictures.

    python evaluate_clear.py --checkpoint . --adapter adapters/peta --dataset peta \
        --data_dir PETA_FOLDER --split test --output_dir reports/peta

Retrieval protocol: each distinct vector of the evaluated attributes is one query, the gallery is
the whole split, and the images with exactly that vector are relevant.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from clear_par.datasets_scripts.retrieval_protocols import retrieval_split, unseen_categories
from clear_par.modeling_clear import ClearModel
from clear_par.processing_clear import ClearProcessor
from clear_par.reporting.adapter import load_adapter, require_same_attributes
from clear_par.reporting.figures import draw_attributes, draw_retrieval
from clear_par.reporting.markdown import report_markdown
from clear_par.reporting.provenance import provenance
from clear_par.reporting.recognition import recognition_report
from clear_par.reporting.retrieval import (
    Scorer,
    chosen_queries,
    cosine_scorer,
    likelihood_scorer,
    random_scorer,
    retrieval_report,
)
from clear_par.training.checkpoint import load_checkpoint
from clear_par.training.crops import PersonCrops, labels_of
from clear_par.training.evaluation import crop_loader, predict
from clear_par.training.queries import embed_texts, full_rows, known_columns
from clear_par.training.run_folder import write_whole
from clear_par.training.settings import (
    DataSettings,
    dataset_schema,
    option,
    parse_command_line,
)


@dataclass
class EvaluationSettings(DataSettings):
    """One report."""

    checkpoint: str = option(".", "Folder or Hub id of the model.")
    adapter: str | None = option(
        None, "Folder or Hub id of a retrieval adapter; None: no retrieval."
    )
    split: str = option("test", "Split to report on; choose models on another one.")
    seen_split: str = option("train+validation", "Categories of these splits are not unseen.")
    output_dir: str = option("reports/clear", "Folder of report.json, report.md and the pictures.")
    batch_size: int = option(128, "Crops per step.")

    def __post_init__(self):
        super().__post_init__()
        self._require_positive("batch_size")


@dataclass(frozen=True)
class Inputs:
    """What a report is computed from; seen_labels: (images, attributes), None: no retrieval."""

    model: ClearModel
    processor: ClearProcessor
    crops: PersonCrops
    seen_labels: np.ndarray | None


def parse_settings(arguments: Sequence[str] | None = None) -> EvaluationSettings:
    """Settings of the command line; a wrong one ends the program with one line that says so."""
    usage = "%(prog)s [--option value ...]; --help explains each"
    return parse_command_line(EvaluationSettings, __doc__, usage, arguments)


def main(settings: EvaluationSettings) -> dict:
    """Write the report and return it."""
    return evaluate(load_inputs(settings), settings)


def load_inputs(settings: EvaluationSettings) -> Inputs:
    """Everything that the settings name; all that a user can have got wrong is noticed here.

    Raises: ValueError, FileNotFoundError.
    """
    output = Path(settings.output_dir)
    if output.exists() and not output.is_dir():
        raise ValueError(f"`output_dir` must be a folder, got the file {str(output)!r}.")
    schema = dataset_schema(settings.dataset)
    model, processor = load_checkpoint(settings.checkpoint)
    known = processor.schema.attributes
    require_same_attributes("checkpoint", settings.checkpoint, known, schema.attributes)
    seen_labels = None
    if settings.adapter is not None:
        load_adapter(model, processor, settings.adapter)
        seen_labels = labels_of(settings.load_rows(settings.seen_split))
    rows = settings.load_rows(settings.split)
    crops = PersonCrops(rows, processor, None, settings.cache_images)
    return Inputs(model.eval(), processor, crops, seen_labels)


def evaluate(inputs: Inputs, settings: EvaluationSettings) -> dict:
    """Compute the whole report, then write it."""
    accelerator, crops = Accelerator(), inputs.crops
    loader = crop_loader(crops, settings.batch_size)
    model, loader = accelerator.prepare(inputs.model, loader)
    logits, features = predict(model, loader, accelerator)
    probabilities = torch.sigmoid(logits.double()).numpy()
    report = provenance(settings, len(crops), accelerator.num_processes)
    report["recognition"] = recognition_report(
        probabilities, crops.labels.numpy(), inputs.processor.schema
    )
    sheet = None
    if inputs.seen_labels is not None:
        report["retrieval"], sheet = evaluate_retrieval(inputs, logits, features)
    if accelerator.is_main_process:
        write_report(Path(settings.output_dir), report, sheet)
    return report


def evaluate_retrieval(
    inputs: Inputs, logits: torch.Tensor, features: torch.Tensor
) -> tuple[dict, dict]:
    """Rank the gallery for every category by the adapter, by the classifier and at random.

    Args:
        logits: (gallery, attributes). features: (gallery, feature_dim).
    Returns: the report, and what `draw_retrieval` shows of it.
    """
    labels, processor = inputs.crops.labels.numpy(), inputs.processor
    columns = known_columns([labels, inputs.seen_labels], processor.schema)
    split = retrieval_split(labels, columns)
    unseen = unseen_categories(split.queries, inputs.seen_labels, columns)
    rows = full_rows(split.queries, columns, processor.schema.num_attributes)
    query_embeds, image_embeds = embed(inputs, rows, features)
    scorers = {
        "CLEAR adapter": cosine_scorer(query_embeds, image_embeds),
        "classifier likelihood": likelihood_scorer(split, logits[:, columns]),
        "random": random_scorer(len(features)),
    }
    report = {
        "num_queries": len(split.queries),
        "num_unseen": int(unseen.sum()),
        "gallery_size": len(features),
        "query_kind": processor.query_kind,
        "query_attributes": [processor.schema.attributes[column] for column in columns],
        "rows": retrieval_report(scorers, split, unseen),
    }
    chosen = chosen_queries(split)
    return report, top_sheet(inputs, rows, split.relevance(chosen), chosen, scorers)


@torch.no_grad()
def embed(
    inputs: Inputs, queries: np.ndarray, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint space: label rows -> (queries, embed_dim), features -> (gallery, embed_dim)."""
    model = inputs.model
    said = {"query_attributes": torch.from_numpy(queries).to(model.device)}
    if inputs.processor.query_kind != "hard":
        said["text_embeds"] = embed_texts(model, inputs.processor, queries)
    images = model.get_image_features(features=features.to(model.device))
    return model.get_query_features(**said), images


def top_sheet(
    inputs: Inputs,
    queries: np.ndarray,
    relevance: np.ndarray,
    chosen: np.ndarray,
    scorers: dict[str, Scorer],
    count: int = 5,
) -> dict:
    """The first crops that the adapter finds for some queries, as `draw_retrieval` takes them.

    Args:
        queries: (all queries, attributes). chosen: numbers of those shown; relevance: their rows.
    """
    texts, results = [], []
    for number, relevant in zip(chosen, relevance, strict=True):
        scores = scorers["CLEAR adapter"](np.array([number]))[0]
        best = np.argsort(-scores, kind="stable")[:count]
        found = [
            (inputs.crops.rows[int(i)]["image"], bool(relevant[i]), f"{rank}: {scores[i]:.2f}")
            for rank, i in enumerate(best, start=1)
        ]
        sentence = inputs.processor.schema.describe(queries[number])
        texts.append(f"{sentence}\n({relevant.sum()} in the gallery)")
        results.append(found)
    return {"queries": texts, "results": results}


def write_report(output: Path, report: dict, sheet: dict | None) -> None:
    """Write pictures and texts, each whole or not at all; a number that is none is an error."""
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    draw_attributes(report["recognition"]["attributes"], output / "attributes.png")
    if sheet is not None:
        draw_retrieval(**sheet, path=output / "retrieval.png")
    write_whole(output / "report.md", report_markdown(report))
    write_whole(output / "report.json", text)


def run(arguments: Sequence[str] | None = None) -> None:
    """The command: what a user got wrong ends it with one message, without a traceback."""
    settings = parse_settings(arguments)
    try:
        inputs = load_inputs(settings)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"evaluate_clear.py: error: {error}") from None
    evaluate(inputs, settings)
    print(f"Report in {settings.output_dir}")


if __name__ == "__main__":
    run()
