r"""Evaluate a checkpoint on a data set: recognition and retrieval, as JSON, Markdown and pictures.

    python evaluate_clear.py --checkpoint . --adapter adapters/peta --dataset peta \
        --data_dir PETA_FOLDER --split test --output_dir reports/peta

Recognition is reported at the threshold 0.5 and, beside it, at calibrated thresholds: those that
the checkpoint stores, or those that `--calibrate_on validation` chooses now.

Retrieval, exact categories: each distinct vector of the evaluated attributes is one query, the
gallery is the whole split, and the images with exactly that vector are relevant. Partial queries:
up to 500 queries for each of 1, 2, 3 and 5 attributes, drawn from what random images of the gallery
have; relevant are all images with the named attributes, whatever else they have.

The data set has the attributes of the adapter. Where these are not the checkpoint's, recognition is
left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from clear_par.attributes_clear import PRESENT
from clear_par.datasets_scripts.retrieval_protocols import RetrievalSplit
from clear_par.metrics.calibration import CRITERIA
from clear_par.modeling_clear import ClearModel
from clear_par.peft_clear import active_adapter_config, shared_vocabulary
from clear_par.processing_clear import ClearProcessor
from clear_par.reporting.adapter import load_adapter_of_data, require_same_attributes
from clear_par.reporting.calibration import calibrate, require_storable, store_calibration
from clear_par.reporting.embedding_map import draw_map, require_scikit_learn
from clear_par.reporting.figures import draw_attribute_precision, draw_attributes, draw_retrieval
from clear_par.reporting.markdown import report_markdown
from clear_par.reporting.provenance import provenance
from clear_par.reporting.recognition import recognition_report
from clear_par.reporting.reliability import draw_reliability
from clear_par.reporting.retrieval import (
    ExactQueries,
    Scorer,
    chosen_queries,
    plotted_queries,
    retrieval_report,
)
from clear_par.reporting.retrieval_gallery import ADAPTER, EvaluatedGallery
from clear_par.training.checkpoint import load_checkpoint
from clear_par.training.command_line import parse_command_line
from clear_par.training.crops import PersonCrops, labels_of
from clear_par.training.evaluation import crop_loader, predict
from clear_par.training.held_out import split_names
from clear_par.training.run_folder import write_whole
from clear_par.training.settings import (
    DataSettings,
    dataset_schema,
    option,
    public_name,
)

Picture = Callable[[Path], None]  # draws into a file
Pictures = dict[str, Picture]  # name of the file -> what draws it


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
    fusion_weight: float | None = option(
        None, "Weight of the classifier's evidence beside the cosine; None: the adapter's, 0: none."
    )
    num_partial: int = option(500, "Partial queries of each size, at most; 0: none.")
    figures: bool = option(
        False, "Draw the joint space (needs scikit-learn) and each attribute's precision as well."
    )
    calibrate_on: str | None = option(
        None, "Split that thresholds are chosen on, not the one reported; None: the stored ones."
    )
    calibration: str = option(
        "balanced_accuracy",
        f"What a threshold maximises for its attribute: {' or '.join(CRITERIA)}.",
    )
    store_thresholds: bool = option(False, "Write the chosen thresholds into the checkpoint.")
    interval_by: str = option(
        "images", "What the confidence intervals resample: images, or persons with all theirs."
    )

    def __post_init__(self):
        super().__post_init__()
        self._require_positive("batch_size")
        if (self.fusion_weight or 0) < 0:
            raise ValueError(f"`fusion_weight` must not be negative, got {self.fusion_weight}.")
        for name, values in (("calibration", CRITERIA), ("interval_by", ("images", "persons"))):
            if getattr(self, name) not in values:
                raise ValueError(f"`{name}` must be one of {values}, got {getattr(self, name)!r}.")
        if self.calibrate_on is not None and share_rows(self.calibrate_on, self.split):
            raise ValueError(
                f"`calibrate_on` must not be in the reported split, got {self.calibrate_on!r} and "
                f"{self.split!r}: thresholds flatter the split that they were chosen on."
            )
        if self.store_thresholds and self.calibrate_on is None:
            raise ValueError(
                "`calibrate_on` must name a split when thresholds are stored, got None."
            )


def share_rows(one: str, other: str) -> bool:
    """Whether two splits have rows in common, by their names; two other slices of one have none.

    >>> share_rows("validation", "trainval"), share_rows("test[:9]", "test[9:]")
    (True, False)
    """
    pairs = [(a, b) for a in one.split("+") for b in other.split("+")]
    return any(
        split_names(a) & split_names(b) and (a == b or not ("[" in a and "[" in b))
        for a, b in pairs
    )


@dataclass(frozen=True)
class Inputs:
    """What a report is computed from.

    seen_labels: (images, attributes), None: no retrieval. calibration_crops: None: no calibration.
    left_out: why recognition is; None: it is reported.
    """

    model: ClearModel
    processor: ClearProcessor
    crops: PersonCrops
    seen_labels: np.ndarray | None
    calibration_crops: PersonCrops | None = None
    left_out: str | None = None


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
    names = dataset_schema(settings.dataset).attributes
    model, processor = load_checkpoint(settings.checkpoint)
    seen_labels = left_out = None
    if settings.figures:
        require_scikit_learn()
    if settings.adapter is None:
        require_same_attributes(
            "checkpoint", settings.checkpoint, processor.schema.attributes, names
        )
    else:
        left_out = load_adapter_of_data(model, processor, settings.adapter, settings.dataset, names)
        if left_out is not None and settings.calibrate_on is not None:
            raise ValueError(
                f"`calibrate_on` must be None for this data set, got {settings.calibrate_on!r}. "
                f"Recognition is left out: {left_out}"
            )
        if settings.fusion_weight is not None:
            active_adapter_config(model).fusion_weight = settings.fusion_weight
        seen_labels = labels_of(settings.load_rows(settings.seen_split))
    if settings.store_thresholds:
        require_storable(settings.checkpoint)
    splits = [settings.split, *filter(None, [settings.calibrate_on])]
    crops = [
        PersonCrops(settings.load_rows(split), processor, None, settings.cache_images)
        for split in splits
    ]
    calibration_crops = crops[1] if len(crops) > 1 else None
    return Inputs(model.eval(), processor, crops[0], seen_labels, calibration_crops, left_out)


def evaluate(inputs: Inputs, settings: EvaluationSettings) -> dict:
    """Compute the whole report, then write it, and the thresholds if that is asked for."""
    accelerator, crops = Accelerator(), inputs.crops
    model = accelerator.prepare(inputs.model)

    def outputs(crops: PersonCrops) -> tuple[torch.Tensor, torch.Tensor]:
        loader = accelerator.prepare(crop_loader(crops, settings.batch_size))
        return predict(model, loader, accelerator)

    calibration = inputs.processor.calibration
    if inputs.calibration_crops is not None:
        logits, _ = outputs(inputs.calibration_crops)
        calibration = calibration_of(logits, inputs, settings)
    logits, features = outputs(crops)
    report = provenance(settings, len(crops), accelerator.num_processes)
    if inputs.left_out is None:
        interval_by = settings.interval_by
        report["recognition"] = evaluate_recognition(inputs, logits, calibration, interval_by)
    else:
        report["recognition_left_out"] = f"Left out: {inputs.left_out}"
    pictures = {}
    if inputs.seen_labels is not None:
        report["retrieval"], pictures = evaluate_retrieval(inputs, logits, features, settings)
    if accelerator.is_main_process:
        write_report(Path(settings.output_dir), report, pictures)
        if settings.store_thresholds:
            store_calibration(settings.checkpoint, calibration)
    return report


def probabilities_of(logits: torch.Tensor) -> np.ndarray:
    """In double precision, as the metrics compute."""
    return torch.sigmoid(logits.double()).numpy()


def calibration_of(logits: torch.Tensor, inputs: Inputs, settings: EvaluationSettings) -> dict:
    """Thresholds of all attributes, chosen on the calibration split.

    Args: logits: (images of that split, attributes).
    """
    crops, name = inputs.calibration_crops, public_name(settings.dataset)
    data = " ".join(filter(None, (name, settings.config_name, settings.calibrate_on)))
    return calibrate(
        probabilities_of(logits),
        crops.labels.numpy(),
        inputs.processor.schema,
        settings.calibration,
        f"{data}, {len(crops):,} images",
    )


def evaluate_recognition(
    inputs: Inputs, logits: torch.Tensor, calibration: dict | None, interval_by: str
) -> dict:
    """The recognition report, at 0.5 and at the calibrated thresholds, if there are any.

    Args: logits: (images, attributes). calibration: as `ClearProcessor` stores it.
    """
    processor, persons, thresholds = inputs.processor, None, None
    if calibration is not None:
        processor.calibration = calibration
        thresholds = processor.thresholds
    if interval_by == "persons":
        rows = inputs.crops.rows.select_columns("person_id")
        persons = np.asarray(rows.with_format("numpy")[:]["person_id"], dtype=np.int64)
        others = persons.max() + 1 + np.arange(len(persons))
        persons = np.where(persons < 0, others, persons)  # -1, unknown: each a person of their own
    labels = inputs.crops.labels.numpy()
    report = recognition_report(
        probabilities_of(logits), labels, processor.schema, thresholds, persons
    )
    report["interval_by"] = interval_by
    if calibration is not None:
        report["calibration"] = {name: calibration[name] for name in ("criterion", "data")}
    return report


def evaluate_retrieval(
    inputs: Inputs, logits: torch.Tensor, features: torch.Tensor, settings: EvaluationSettings
) -> tuple[dict, Pictures]:
    """Rank the gallery for whole categories and for partial queries, in every way there is.

    Args:
        logits: (gallery, attributes of the checkpoint). features: (gallery, feature_dim).
    """
    labels, processor = inputs.crops.labels.numpy(), inputs.processor
    schema = processor.schema
    gallery = EvaluatedGallery.of(inputs.model, processor, labels, logits, features)
    exact = ExactQueries.of(labels, inputs.seen_labels, schema, settings.category_attributes)
    split, rows = exact.split, exact.rows
    scorers = gallery.scorers(rows)
    report = {
        "num_queries": len(split.queries),
        "num_unseen": int(exact.unseen.sum()),
        "seen_split": settings.seen_split,
        "gallery_size": len(features),
        "query_kind": processor.query_kind,
        "fusion_weight": active_adapter_config(inputs.model).fusion_weight,
        "query_attributes": [schema.attributes[column] for column in exact.columns],
        "rows": retrieval_report(scorers, split, exact.unseen),
        "partial": gallery.partial_report(settings.num_partial),
        "attributes": gallery.attribute_report(),
    }
    if inputs.left_out is not None:
        known = shared_vocabulary(inputs.model)[0].num_attributes
        report["shared"] = {"known": known, "all": schema.num_attributes}
    chosen = chosen_queries(split)
    sheet = top_sheet(inputs, rows, split.relevance(chosen), chosen, scorers)
    pictures = {"retrieval.png": partial(draw_retrieval, **sheet)}
    if settings.figures:
        pictures["embedding_map.png"] = map_picture(gallery, split, rows)
        if report["attributes"]:
            found = report["attributes"]
            pictures["attribute_precision.png"] = partial(draw_attribute_precision, found)
    report["figures"] = list(pictures)
    return report, pictures


def map_picture(gallery: EvaluatedGallery, split: RetrievalSplit, rows: np.ndarray) -> Picture:
    """The joint space with ten queries and up to twenty images of each."""
    plotted = plotted_queries(split)
    queries = rows[[numbers[0] for numbers in plotted]]
    embeds = gallery.image_embeds.cpu().numpy()
    schema = gallery.processor.schema
    return partial(
        draw_map,
        gallery.query_embeds(queries).cpu().numpy(),
        [embeds[numbers[1:]] for numbers in plotted],
        [schema.describe(q) if (q == PRESENT).any() else "nothing of all" for q in queries],
    )


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
        scores = scorers[ADAPTER](np.array([number]))[0]
        best = np.argsort(-scores, kind="stable")[:count]
        found = [
            (inputs.crops.rows[int(i)]["image"], bool(relevant[i]), f"{rank}: {scores[i]:.2f}")
            for rank, i in enumerate(best, start=1)
        ]
        sentence = inputs.processor.schema.describe(queries[number])
        texts.append(f"{sentence}\n({relevant.sum()} in the gallery)")
        results.append(found)
    return {"queries": texts, "results": results}


def write_report(output: Path, report: dict, pictures: Pictures) -> None:
    """Write pictures and texts, each whole or not at all; a number that is none is an error."""
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    attributes, reliability = (output / name for name in ("attributes.png", "reliability.png"))
    if "recognition" in report:
        recognition = report["recognition"]
        draw_attributes(recognition["attributes"], attributes)
        errors = {n: s["expected_calibration_error"] for n, s in recognition["sets"].items()}
        draw_reliability(recognition["reliability"], errors, reliability)
    else:  # those of an earlier report must not stay beside this one
        attributes.unlink(missing_ok=True)
        reliability.unlink(missing_ok=True)
    for name, draw in pictures.items():
        draw(path=output / name)
    write_whole(output / "report.md", report_markdown(report))
    write_whole(output / "report.json", text)


def run(arguments: Sequence[str] | None = None) -> None:
    """The command: what a user got wrong ends it with one message, without a traceback."""
    settings = parse_settings(arguments)
    try:
        inputs = load_inputs(settings)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"evaluate_clear.py: error: {error}") from None
    report = evaluate(inputs, settings)
    if "recognition_left_out" in report:
        print(f"Recognition. {report['recognition_left_out']}")
    print(f"Report in {settings.output_dir}")


if __name__ == "__main__":
    run()
