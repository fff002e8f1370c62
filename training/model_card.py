"""The card of a finished run: what it is, how it was made, what it scored, and no more.

Scores go into the card's `model-index` and, where the data set lies on the Hub, into
`.eval_results/*.yaml`, the form that the Hub shows now (huggingface_hub's `EvalResultEntry`).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from ..datasets_scripts.converted import HubData
from ..datasets_scripts.person_data import Terms
from ..reporting.provenance import hardware
from .adapter_base import published_base
from .held_out import is_held_out, keeps_last, kept_epoch
from .run_folder import write_whole
from .settings import TrainingSettings, dataset_schema

CARD, EVAL_RESULTS = "README.md", ".eval_results"
TASKS = {"recognition": "person-attribute-recognition", "retrieval": "person-attribute-retrieval"}
TASK_TYPES = {"recognition": "image-classification", "retrieval": "image-retrieval"}
METRICS = {
    "mean_accuracy": "mA",
    "instance_accuracy": "instance accuracy",
    "instance_precision": "instance precision",
    "instance_recall": "instance recall",
    "instance_f1": "instance F1",
    "mean_average_precision": "mAP",
    "mean_average_precision_trapezoid": "mAP (trapezoid)",
    "mean_inverse_negative_penalty": "mINP",
    "rank_1": "Rank-1",
    "rank_5": "Rank-5",
    "rank_10": "Rank-10",
}
# What a reader needs to judge a run; the rest stands in training_args.json.
SHOWN = {
    "recognition": (
        *("checkpoint", "preset", "text_source", "recipe", "epochs", "batch_size"),
        *("num_processes", "gradient_accumulation_steps", "learning_rate", "optimizer", "schedule"),
        *("weight_decay", "ema_decay", "store_half", "mixed_precision", "num_synthetic", "seed"),
    ),
    "retrieval": (
        *("checkpoint", "base_name", "recipe", "query_kind", "embed_dim", "epochs", "batch_size"),
        *("num_processes", "learning_rate", "optimizer", "schedule", "margin_kind", "margin"),
        *("scale", "partial_weight", "mixed_precision", "seed"),
    ),
}
LOADING = {
    "recognition": """\
```python
from transformers import AutoModel, AutoProcessor

repo = "THIS_REPOSITORY"  # its id on the Hub, or a folder
model = AutoModel.from_pretrained(repo, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
logits = model(**processor(images="crop.jpg", return_tensors="pt")).logits
print(processor.decode(logits)[0])
```""",
    "retrieval": """\
```python
from transformers import AutoModel, AutoProcessor

base = "{base}"  # the very model it was trained on
model = AutoModel.from_pretrained(base, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(base, trust_remote_code=True, query_kind="{query_kind}")
model.load_adapter("THIS_REPOSITORY")  # its id on the Hub, or a folder
images = model.get_image_features(**processor(images=["crop.jpg"], return_tensors="pt"))
query = model.get_query_features(**processor(queries={query}, return_tensors="pt"))
print(query @ images.T)
```""",
}
USE = """\
Meant for research on attributes of persons, and for search in footage that one may lawfully hold,
with a person who checks each result. The labels are what annotators saw in small crops; they say
nothing about who somebody is. Not for identifying, tracking or profiling persons without a lawful
basis and their knowledge, nor for decisions about people.

It knows the attributes and the kind of pictures of its training data. How far it is right on other
pictures, or for different groups of people, has not been measured here. Probabilities are not
calibrated unless `processor_config.json` holds a calibration."""


@dataclass(frozen=True)
class RunFacts:
    """What a card may say of a finished run.

    Args:
        name: of the run's folder. record: settings as published. history: metrics of each epoch.
        score: the metric that selects. hub_dataset: Hub id of the data set, if it lies there.
        num_crops, num_validation: crops of the training and the validation split.
        num_evaluated: attributes that the metrics are taken over. example: one of them.
    """

    name: str
    record: dict
    history: list[dict]
    score: str
    terms: Terms
    hub_dataset: str | None
    num_crops: int
    num_validation: int
    num_evaluated: int
    example: str
    date: str
    hardware: str

    @property
    def stage(self) -> str:
        """recognition or retrieval."""
        return self.record["stage"]

    @property
    def kept(self) -> dict:
        """Metrics of the epoch whose weights were kept."""
        return kept_epoch(self.record, self.history, self.score)

    @property
    def scores(self) -> dict[str, float]:
        """Metrics of the kept epoch in percent."""
        known = {name: self.kept[name] for name in METRICS if name in self.kept}
        return {name: round(100 * value, 2) for name, value in known.items()}

    @property
    def rule(self) -> str:
        """How the kept epoch was chosen."""
        epoch, total = self.kept["epoch"], len(self.history)
        if keeps_last(self.record):
            return f"the last of {total} epochs, whatever it scored"
        split = self.record["validation_split"]
        return f"epoch {epoch} of {total}, the best by {METRICS[self.score]} on `{split}`"


def gather_facts(
    output: Path, settings: TrainingSettings, record: dict, history: list[dict], score: str
) -> RunFacts:
    """What the card says of this run; rows are counted, not read."""
    data, schema = settings.data, dataset_schema(settings.dataset)
    return RunFacts(
        name=output.resolve().name,
        record=record,
        history=history,
        score=score,
        terms=data.terms,
        hub_dataset=settings.dataset if isinstance(data, HubData) else None,
        num_crops=len(settings.load_rows(settings.train_split)),
        num_validation=len(settings.load_rows(settings.validation_split)),
        num_evaluated=len(schema.evaluated_indices),
        example=schema.attributes[schema.evaluated_indices[0]],
        date=datetime.now(UTC).date().isoformat(),
        hardware=hardware(),
    )


def write_card(
    output: Path, settings: TrainingSettings, record: dict, history: list[dict], score: str
) -> None:
    """Write README.md and, for a data set of the Hub, `.eval_results/*.yaml` into a run."""
    facts = gather_facts(output, settings, record, history, score)
    if facts.hub_dataset and is_held_out(record):
        path = output / EVAL_RESULTS / f"{TASKS[facts.stage]}.yaml"
        path.parent.mkdir(exist_ok=True)
        write_whole(path, eval_results(record, facts.hub_dataset, facts.kept[score]))
    write_whole(output / CARD, card_text(facts))


def eval_results(record: dict, dataset: str, value: float) -> str:
    """One score as the Hub's `.eval_results` file, in YAML.

    The Hub shows it when the data set is a registered benchmark with a task of the name that
    TASKS gives.

    Args:
        dataset: Hub id, with "@revision" or without. value: in [0, 1].
    """
    name, _, revision = dataset.partition("@")
    is_commit = re.fullmatch(r"[0-9a-f]{40}", revision) is not None
    chose = "" if keeps_last(record) else ", which chose the epoch"
    entry = EvalResultEntry(
        dataset_id=name,
        task_id=TASKS[record["stage"]],
        value=round(100 * value, 2),
        dataset_revision=revision if is_commit else None,
        notes=f"{record['validation_split']} split{chose}",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def card_text(facts: RunFacts) -> str:
    """The whole card."""
    what = {
        "recognition": "A CLEAR model that recognises the attributes",
        "retrieval": "A retrieval adapter for CLEAR that finds persons by the attributes",
    }[facts.stage]
    sections = [
        f"---\n{front_matter(facts)}\n---",
        f"# {facts.name}",
        f"{what} of `{facts.record['dataset']}`; see "
        "[arXiv 2403.06119](https://arxiv.org/abs/2403.06119). Written by its training run.",
        f"## Load\n\n{loading(facts)}",
        f"## Scores\n\n{scores_section(facts)}",
        f"## Data\n\n{data_section(facts)}",
        f"## Training\n\n{training_section(facts)}",
        f"## Intended use and limits\n\n{USE}",
    ]
    return "\n\n".join(sections) + "\n"


def front_matter(facts: RunFacts) -> str:
    """The YAML that the Hub reads, `model-index` included."""
    is_adapter, record = facts.stage == "retrieval", facts.record
    base = is_adapter and published_base(record["base_name"], record["checkpoint"])
    dataset = facts.hub_dataset and facts.hub_dataset.partition("@")[0]
    data = ModelCardData(
        license="other",
        license_name="code-apache-2.0-weights-see-card",
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=None if is_adapter else "image-classification",
        base_model=base or None,
        tags=[TASKS[facts.stage], "pedestrian", "custom_code"],
        datasets=[dataset] if dataset else None,
        model_name=facts.name,
        eval_results=model_index(facts) or None,
    )
    return data.to_yaml()


def model_index(facts: RunFacts) -> list[EvalResult]:
    """The scores of the kept epoch; none where the split was trained on."""
    if not is_held_out(facts.record):
        return []
    over = f" ({facts.num_evaluated} attributes)" if facts.stage == "recognition" else ""
    return [
        EvalResult(
            task_type=TASK_TYPES[facts.stage],
            task_name=TASKS[facts.stage],
            dataset_type=facts.hub_dataset or facts.record["dataset"],
            dataset_name=facts.record["dataset"],
            dataset_config=facts.record["config_name"],
            dataset_split=facts.record["validation_split"],
            metric_type=name,
            metric_name=METRICS[name] + over,
            metric_value=value,
        )
        for name, value in facts.scores.items()
    ]


def loading(facts: RunFacts) -> str:
    """The snippet that loads the run."""
    record, text = facts.record, LOADING[facts.stage]
    base = record["base_name"] or record["checkpoint"]
    for name, value in (("base", base), ("query_kind", record["query_kind"])):
        text = text.replace("{" + name + "}", str(value))
    return text.replace("{query}", repr([[facts.example]]))


def scores_section(facts: RunFacts) -> str:
    """The table, and what must be known to read it."""
    split, count = facts.record["validation_split"], facts.num_validation
    over = {
        "recognition": f"over the {facts.num_evaluated} evaluated attributes",
        "retrieval": "over the exact categories of the split",
    }[facts.stage]
    rows = [f"| {METRICS[name]} | {value:.2f} |" for name, value in facts.scores.items()]
    lines = [
        f"On `{split}` ({count:,} crops), in percent, {over}. Kept: {facts.rule}.",
        "",
        *("| metric | value |", "|---|---|", *rows),
        "",
    ]
    if not is_held_out(facts.record):
        lines += ["The split was trained on as well: these are no results on new crops."]
    elif not keeps_last(facts.record):
        lines += ["The split chose the epoch, which flatters; no other split was read."]
    return "\n".join(lines)


def data_section(facts: RunFacts) -> str:
    """What was learned from, and on what terms."""
    record, terms = facts.record, facts.terms
    config = f", configuration `{record['config_name']}`" if record["config_name"] else ""
    drawn = record["num_synthetic"] if facts.stage == "recognition" else 0
    lines = [
        f"`{record['dataset']}`{config}: `{record['train_split']}`, {facts.num_crops:,} crops"
        f"{f', and {drawn:,} drawn ones' if drawn else ''}.",
        f"Licence of the data, as its owners state it: {terms.license}. It may bind these weights "
        "too; the code is under Apache-2.0.",
    ]
    lines += [f"Home: <{terms.homepage}>"] if terms.homepage else []
    lines += [f"Cite: {terms.citation}"] if terms.citation else []
    return "\n\n".join(lines)


def training_section(facts: RunFacts) -> str:
    """Settings that matter, code and machine."""
    record, count = facts.record, facts.record["num_processes"]
    rows = [f"| `{n}` | {record[n]} |" for n in SHOWN[facts.stage] if record[n] is not None]
    return "\n".join(
        [
            f"Finished on {facts.date}; code at commit `{record['commit'] or 'unknown'}`, torch "
            f"{record['torch']}; {count} process{'' if count == 1 else 'es'}, on "
            f"{facts.hardware}.",
            "",
            *("| setting | value |", "|---|---|", *rows),
            "",
            "All settings: `training_args.json`. Metrics of each epoch: `metrics.json`, "
            "`training_curve.png`.",
        ]
    )
