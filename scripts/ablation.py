r"""Repeat the ablations of the paper on one data set, and write one table.

    python scripts/ablation.py --checkpoint CHECKPOINT --data_dir PETA_FOLDER --config_name sal \
        --category_attributes all --output_dir reports/ablation

Retrieval: query kinds (HA hard, W words, SP soft, soft and hard), margins, partial queries in
training, fusion with the classifier's evidence, and the baseline ASMR, all as adapters on the
features of one frozen checkpoint. With `--backbone_epochs`, parts of the backbone as well: each
variant is trained from scratch for so many epochs, then gets an adapter.

Every cell of the table (row and seed) is a file of its own, so that the same command goes on where
it was stopped. Adapters are chosen on the validation split; the test split is reported.
"""

import json
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from clear_par import train
from clear_par.peft_clear import active_adapter_config
from clear_par.reporting.adapter import load_adapter
from clear_par.reporting.figures import pyplot, save_figure
from clear_par.reporting.retrieval import ExactQueries, retrieval_report
from clear_par.reporting.retrieval_gallery import ADAPTER, FUSED, EvaluatedGallery
from clear_par.training.checkpoint import load_checkpoint
from clear_par.training.command_line import parse_command_line
from clear_par.training.crops import PersonCrops, labels_of
from clear_par.training.evaluation import recognition_scores
from clear_par.training.feature_cache import FrozenFeatures
from clear_par.training.run_folder import (
    changed_settings,
    read_record,
    running_commit,
    write_json,
    write_whole,
)
from clear_par.training.settings import (
    RECIPES,
    DataSettings,
    TrainingSettings,
    option,
    public_name,
)

OPTIMISATION = ("optimizer", "learning_rate", "query_rate", "weight_decay", "ema_decay")
ADAPTERS = {
    "HA (hard)": {"query_kind": "hard"},
    "W (words)": {"query_kind": "words"},
    "SP (soft)": {"query_kind": "soft"},
    "Soft+Hard": {},
    "Soft+Hard, text as it is": {"standardize_text": False},
    "ASMR on our features": {**RECIPES["asmr"], "recipe": "asmr"},
    # The method apart from its optimiser, which a few hundred updates do not bring far.
    "ASMR, optimiser of the others": {
        name: value for name, value in RECIPES["asmr"].items() if name not in OPTIMISATION
    },
    "Soft+Hard, angular margin": {"margin_kind": "angular"},
    "Soft+Hard, no margin": {"margin": 0.0},
    "Soft+Hard, no partial queries": {"partial_weight": 0.0},
    "Soft+Hard, with evidence": {"fusion": True},
}
BACKBONES = {
    "whole backbone": {},
    "without channel attention": {"use_channel_attention": False},
    "without cross-fusion": {"use_local_fusion": False, "use_global_fusion": False},
    "local branch alone": {"use_global_branch": False},
    "global branch alone": {"use_local_branch": False},
}
# Column -> key of a cell.
COLUMNS = {
    "mA": "mean_accuracy",
    "F1": "instance_f1",
    "mAP": "all/mean_average_precision",
    "Rank-1": "all/rank_1",
    "mAP unseen": "unseen/mean_average_precision",
    "partial 1": "partial/1",
    "partial 2": "partial/2",
    "partial 3": "partial/3",
    "partial 5": "partial/5",
}


@dataclass
class AblationSettings(DataSettings):
    """One table."""

    checkpoint: str | None = option(
        None, "Trained model that all adapters share; None: only parts of the backbone."
    )
    output_dir: str = option("reports/ablation", "Folder of the table and of what it is made from.")
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds of every row (0 1 2)."}
    )
    rows: list[str] = field(
        default_factory=list,
        metadata={"help": f"Rows to compute, default all: {', '.join([*ADAPTERS, *BACKBONES])}."},
    )
    train_split: str = option("train", "Split that adapters and backbones learn from.")
    validation_split: str = option("validation", "Split that chooses the best epoch.")
    test_split: str = option("test", "Split that is reported.")
    seen_split: str = option("train+validation", "Categories of these splits are not unseen.")
    adapter_settings: str = option(
        '{"epochs": 60, "batch_size": 256}', "Settings of train.py for every adapter, as JSON."
    )
    backbone_epochs: int = option(0, "Epochs of each variant of the backbone; 0: none of them.")
    backbone_settings: str = option(
        '{"mixed_precision": "bf16", "drop_path_rate": 0.05}',
        "Settings of train.py for every variant of the backbone, as JSON.",
    )

    def __post_init__(self):
        super().__post_init__()
        self._require_json_object("adapter_settings", '{"epochs": 60}')
        self._require_json_object("backbone_settings", '{"batch_size": 64}')
        known = [*ADAPTERS, *BACKBONES]
        if unknown := set(self.rows) - set(known):
            raise ValueError(f"`rows` must be among {known}, got {sorted(unknown)}.")
        if self.checkpoint is None and not self.backbone_epochs:
            raise ValueError(
                "`checkpoint` must name a trained model, or `backbone_epochs` say how long to "
                "train variants; got neither."
            )

    def wants(self, row: str) -> bool:
        """Whether the row was asked for."""
        is_possible = self.checkpoint is not None if row in ADAPTERS else self.backbone_epochs > 0
        return is_possible and (not self.rows or row in self.rows)

    def data_fields(self) -> dict:
        """The fields of DataSettings, for the settings of a run."""
        return {f.name: getattr(self, f.name) for f in fields(DataSettings)}


@dataclass(frozen=True)
class Cell:
    """One row of the table with one seed."""

    row: str
    seed: int

    def folder(self, output: Path) -> Path:
        """Where its runs and its result are kept."""
        words = "".join(c if c.isalnum() else " " for c in self.row.lower().replace("+", " and "))
        return output / "cells" / f"{'_'.join(words.split())}-seed{self.seed}"


def cells(settings: AblationSettings) -> Iterator[Cell]:
    """All cells that were asked for; seeds outside, so that a first table is there early."""
    for seed in settings.seeds:
        for row in (*ADAPTERS, *BACKBONES):
            if settings.wants(row):
                yield Cell(row, seed)


def train_once(folder: Path, cell: Cell, settings: AblationSettings, changes: dict) -> Path:
    """Train a run of a cell, unless it is finished, and return its folder.

    Args: changes: settings of train.py beside those that all cells share.
    """
    if not read_record(folder).get("finished"):
        common = {
            **settings.data_fields(),
            "train_split": settings.train_split,
            "validation_split": settings.validation_split,
            "seed": cell.seed,
            "output_dir": str(folder),
            "report_to": "none",
        }
        train.main(TrainingSettings(**{**common, **changes}))
    return folder


def train_adapter(
    checkpoint: str, changes: dict, cell: Cell, settings: AblationSettings, output: Path
) -> Path:
    """Train the adapter of a cell; returns its folder."""
    adapter = {
        **json.loads(settings.adapter_settings),
        "stage": "retrieval",
        "checkpoint": checkpoint,
        "cache_features": str(output / "features"),
        **changes,
    }
    return train_once(cell.folder(output) / "adapter", cell, settings, adapter)


def train_backbone(cell: Cell, settings: AblationSettings, output: Path) -> Path:
    """Train a variant of the backbone; returns its folder."""
    common = json.loads(settings.backbone_settings)
    options = {**json.loads(common.get("model_options", "{}")), **BACKBONES[cell.row]}
    backbone = {
        **common,
        "model_options": json.dumps(options),
        "epochs": settings.backbone_epochs,
    }
    return train_once(cell.folder(output) / "backbone", cell, settings, backbone)


@torch.no_grad()
def score_cell(
    checkpoint: str, adapter: Path, settings: AblationSettings, output: Path
) -> dict[str, float]:
    """All metrics of one adapter, and of the classifier below it, on the test split."""
    model, processor = load_checkpoint(checkpoint)
    load_adapter(model, processor, str(adapter))
    run = TrainingSettings(**settings.data_fields(), cache_features=str(output / "features"))
    crops = PersonCrops(settings.load_rows(settings.test_split), processor, None, cache=False)
    features = FrozenFeatures(model, processor, run, Accelerator()).views(crops)[0]
    logits, labels = model.classifier(features), crops.labels.numpy()
    seen, schema = labels_of(settings.load_rows(settings.seen_split)), processor.schema
    exact = ExactQueries.of(labels, seen, schema, settings.category_attributes)
    gallery = EvaluatedGallery.of(model.eval(), processor, labels, logits, features)
    method = FUSED if active_adapter_config(model).fusion_weight else ADAPTER
    scorers = {method: gallery.scorers(exact.rows)[method]}
    scores = {
        f"{row['queries']}/{name}": value
        for row in retrieval_report(scorers, exact.split, exact.unseen)
        for name, value in row.items()
        if isinstance(value, float)
    }
    partial = gallery.partial_report(method=method)
    scores |= {f"partial/{entry['size']}": entry["mean_average_precision"] for entry in partial}
    recognition = recognition_scores(logits, labels, schema.evaluated_indices)
    return scores | {n: recognition[n] for n in ("mean_accuracy", "instance_f1")}


def recipe(cell: Cell, settings: AblationSettings) -> dict:
    """All settings that the scores of a cell depend on, as they may be published."""
    others = {"output_dir", "seeds", "rows", "data_dir", "cache_images"}
    others |= {"backbone_epochs", "backbone_settings"} if cell.row in ADAPTERS else {"checkpoint"}
    chosen = {name: value for name, value in asdict(settings).items() if name not in others}
    return {name: public_name(value) for name, value in chosen.items()}


def require_same_recipe(found: dict, cell: Cell, settings: AblationSettings, path: Path) -> None:
    """Raise ValueError when a kept cell was computed with other settings."""
    earlier = found.get("settings")
    if earlier is not None and (changed := changed_settings(earlier, recipe(cell, settings))):
        raise ValueError(
            f"`output_dir` must hold cells of the same settings, got {str(path)!r}; changed: "
            f"{changed}. Name another folder, or remove that one."
        )


def compute(cell: Cell, settings: AblationSettings, output: Path) -> dict:
    """The scores of a cell: found, or computed and kept.

    Raises: ValueError when what was found is of other settings.
    """
    result = cell.folder(output) / "scores.json"
    if not result.is_file():
        if cell.row in ADAPTERS:
            checkpoint, changes = settings.checkpoint, ADAPTERS[cell.row]
        else:
            checkpoint = str(train_backbone(cell, settings, output))
            changes = {"query_kind": "hard"}  # these backbones have no language model
        adapter = train_adapter(checkpoint, changes, cell, settings, output)
        scores = score_cell(checkpoint, adapter, settings, output)
        kept = {"row": cell.row, "seed": cell.seed, "settings": recipe(cell, settings)}
        write_json(result, {**kept, "scores": scores})
        shutil.rmtree(adapter)
    found = json.loads(result.read_text())
    require_same_recipe(found, cell, settings, result.parent)
    return found["scores"]


def table(scores: dict[str, list[dict]]) -> str:
    """Mean and sample standard deviation over the seeds, in percent, as Markdown."""
    lines = [f"| row | seeds | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 2)]
    for row, found in scores.items():
        values = [
            spread([100 * one[key] for one in found if key in one]) for key in COLUMNS.values()
        ]
        lines.append(f"| {row} | {len(found)} | {' | '.join(values)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean, and deviation where there are several."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def write_table(scores: dict[str, list[dict]], settings: AblationSettings, output: Path) -> None:
    """The table so far, with all that repeats it."""
    record = {name: public_name(value) for name, value in asdict(settings).items()}
    data = " ".join(filter(None, (public_name(settings.dataset), settings.config_name)))
    text = (
        f"# Ablation on {data}, split `{settings.test_split}`\n\n"
        f"Learned from `{settings.train_split}`, best epoch by mAP on "
        f"`{settings.validation_split}`, categories by {settings.category_attributes} attributes. "
        f"In percent, mean and standard deviation over seeds; partial n: mAP of queries that name "
        f"n attributes. Commit {running_commit()}, torch {torch.__version__}, "
        f"{'GPU' if torch.cuda.is_available() else 'CPU'}.\n\n{table(scores)}\n"
    )
    write_json(output / "ablation.json", {"settings": record, "scores": scores})
    write_whole(output / "ablation.md", text)
    draw(scores, output / "ablation.png")


def draw(scores: dict[str, list[dict]], path: Path) -> None:
    """Mean average precision of each row as bars, with its deviation."""
    means = [
        [100 * one["all/mean_average_precision"] for one in found] for found in scores.values()
    ]
    figure, axis = pyplot.subplots(figsize=(8, 0.5 + 0.4 * len(means)), layout="constrained")
    deviations = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in means]
    axis.barh(range(len(means)), [np.mean(v) for v in means], xerr=deviations, color="tab:blue")
    axis.set_yticks(range(len(means)), list(scores))
    axis.invert_yaxis()
    axis.set_xlabel("mAP, exact categories, %")
    save_figure(figure, path)


def main(settings: AblationSettings) -> dict[str, list[dict]]:
    """Compute all cells that are missing; returns row -> scores of each seed."""
    output = Path(settings.output_dir)
    todo, scores = list(cells(settings)), {}
    for cell in tqdm(todo, "cells"):
        scores.setdefault(cell.row, []).append(compute(cell, settings, output))
        write_table(scores, settings, output)
    return scores


def parse_settings(arguments: Sequence[str] | None = None) -> AblationSettings:
    """Settings of the command line; a wrong one ends the program with one line that says so."""
    usage = "%(prog)s [--option value ...]; --help explains each"
    return parse_command_line(AblationSettings, __doc__, usage, arguments)


if __name__ == "__main__":
    print(table(main(parse_settings())))
