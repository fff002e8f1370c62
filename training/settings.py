"""Settings of train.py, each with its reason; every field is a command-line option."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from datasets import Dataset
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..adapter_config_clear import ATTRIBUTE_ENCODINGS
from ..attributes_clear import QUERY_KINDS, AttributeSchema
from ..configuration_clear import PRESETS
from ..datasets_scripts.person_data import PersonData
from ..datasets_scripts.person_dataset import (
    open_person_dataset,
    person_schema,
    require_dataset_name,
)
from ..retrieval_loss_clear import MARGIN_KINDS
from .adapter_base import hub_id, require_published_base
from .launching import launched_precision


def option(default, reason: str):
    """A field whose help text says why it has this default."""
    return field(default=default, metadata={"help": reason})


@dataclass
class DataSettings:
    """The data set that a command reads."""

    dataset: str = option(
        "peta",
        "Name of a builder in datasets_scripts, folder of a converted data set or of your own "
        "data, JSON file of a mixture, or Hub id of a converted data set.",
    )
    data_dir: str | None = option(
        None, "For a builder: folder that holds the data set as its owners ship it."
    )
    config_name: str | None = option(
        None, "Configuration of the data set, such as partition0; default: the one papers use."
    )
    dataset_options: str = option(
        "{}", "Options of the builder as JSON, such as '{\"allow_partial\": true}'."
    )
    category_attributes: str = option(
        "evaluated",
        "Whose values make a person category: the evaluated attributes, or all (SAL's protocol).",
    )
    cache_images: bool = option(
        True, "Keep resized crops in memory: 25 kB each at 128 x 64; off for very large data sets."
    )

    def __post_init__(self):
        self._require_json_object("dataset_options", '{"allow_partial": true}')
        self._require_one_of("category_attributes", ("evaluated", "all"))

    def _require_json_object(self, name: str, example: str) -> None:
        try:
            is_object = isinstance(json.loads(getattr(self, name)), dict)
        except json.JSONDecodeError:
            is_object = False
        if not is_object:
            raise ValueError(
                f"`{name}` must be a JSON object, got {getattr(self, name)!r}. Write it like "
                f"'{example}'."
            )

    def _require_one_of(self, name: str, values: tuple[str, ...]) -> None:
        if getattr(self, name) not in values:
            raise ValueError(f"`{name}` must be one of {values}, got {getattr(self, name)!r}.")

    def _require_positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")

    @cached_property
    def data(self) -> PersonData:
        """The data set, opened on the first use."""
        options = json.loads(self.dataset_options)
        return open_person_dataset(self.dataset, self.data_dir, self.config_name, **options)

    def load_rows(self, split: str) -> Dataset:
        """One split of the data set."""
        return self.data.load(split)


LABEL_WEIGHTS = ("exponential", "balanced", "none")
# What a recipe sets; an option on the command line wins.
RECIPES = {
    "scratch": {},
    "authors": {  # authors' public code
        "optimizer": "adam",
        "schedule": "plateau",
        "learning_rate": 1e-5,
        "weight_decay": 0.0,
        "epochs": 20,
        "ema_decay": 0.0,
        "padding": 10,
        "jitter": 0.0,
        "erasing": 0.0,
        "store_half": False,
    },
    "modern": {
        "learning_rate": 2e-4,
        "layer_decay": 0.75,
        "drop_path_rate": 0.1,
        "randaugment": 2,
        "jitter": 0.0,
        "ema_decay": 0.9998,
    },
    "asmr": {  # of the retrieval stage: ASMR (ICCV 2021), its encoders and loss on our features
        "query_kind": "hard",
        "attribute_encoding": "one_hot",
        "embed_dim": 128,
        "hidden_dims": [512, 128],
        "adapter_dropout": 0.0,
        "margin_kind": "angular",
        "margin": 0.2,
        "scale": 12.0,
        "partial_weight": 0.0,
        "semantic_weight": 4.0,
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "query_rate": 15.0,
        "weight_decay": 5e-4,
        "ema_decay": 0.0,
    },
}


@dataclass
class TrainingSettings(DataSettings):
    """One run of train.py."""

    stage: str = option(
        "recognition",
        "recognition: learn backbone and classifier; retrieval: freeze both and learn an adapter.",
    )
    output_dir: str = option("runs/clear", "Folder of the finished run, a loadable repository.")

    # What is learned from
    train_split: str = option(
        "train",
        "train (select on validation) or trainval (the papers' protocol). The last epoch is kept "
        "where crops of the validation split are trained on.",
    )
    validation_split: str = option(
        "validation",
        "Split that selects the best epoch; of a mixture also one data set: peta:validation.",
    )
    num_synthetic: int = option(
        0, "Drawn crops mixed into the training split, so that drawings are recognised too."
    )

    # What learns
    checkpoint: str | None = option(
        None, "Folder or Hub id to start from; needed by the retrieval stage."
    )
    preset: str = option("clear-tiny", f"Sizes of a new model, one of {', '.join(PRESETS)}.")
    text_model: str | None = option(
        None, "Folder or Hub id of the frozen language model of a new model; None: none."
    )
    text_revision: str | None = option(None, "Hub revision of the language model, to pin it.")
    text_source: str | None = option(
        None, "Name of the language model kept as provenance; default: `text_model`."
    )
    model_options: str = option(
        "{}",
        "Fields of ClearConfig of a new model as JSON: '{\"use_channel_attention\": false}'.",
    )
    drop_path_rate: float = option(0.0, "Stochastic depth of both branches.")

    # How it learns
    recipe: str = option(
        "scratch",
        "Defaults of the settings below: scratch (new weights), authors (Adam 1e-5, plateau, 20 "
        "epochs) or modern (pre-trained weights: layer-wise decay, RandAugment, drop-path); for "
        "retrieval: asmr, the baseline of ICCV 2021 on the frozen features.",
    )
    epochs: int = option(30, "Passes over the training split.")
    batch_size: int = option(64, "Crops per process and step; the authors' value.")
    learning_rate: float = option(1e-3, "Peak rate; for pre-trained weights take 1e-5 to 1e-4.")
    optimizer: str = option("adamw", "adamw, adam (the authors'), or sgd with Nesterov's momentum.")
    schedule: str = option(
        "cosine",
        "cosine, constant or, for recognition, plateau (the authors': a tenth when validation "
        "stands still).",
    )
    weight_decay: float = option(0.05, "Decay of matrices; biases and norms have none.")
    layer_decay: float = option(
        1.0, "Factor of the rate for each layer below the last; 0.75 suits pre-trained weights."
    )
    warmup_share: float = option(0.05, "Share of all steps in which the rate rises to its peak.")
    max_grad_norm: float = option(10.0, "Gradient norm is clipped here; the authors' value.")
    ema_decay: float = option(
        0.998, "Average of the weights, which is evaluated and saved: over 500 steps; 0: off."
    )
    padding: int = option(5, "Black border before the random crop; the authors' 10 at height 256.")
    jitter: float = option(0.2, "Largest relative change of brightness and of contrast.")
    erasing: float = option(0.25, "Probability that a random rectangle is erased.")
    randaugment: int = option(0, "Random operations of RandAugment on each crop, magnitude 9.")
    gradient_accumulation_steps: int = option(1, "Batches of one update; their gradients add up.")
    early_stopping: int = option(0, "Epochs without a better score after which it ends; 0: never.")
    label_weights: str = option(
        "exponential",
        "Against rare labels: exponential (the authors'), balanced (by inverse frequency), none.",
    )
    store_half: bool = option(
        True, "Round the final weights to half precision, evaluated so: half the file, no loss."
    )

    # The retrieval adapter
    base_name: str | None = option(
        None,
        "Hub id or relative path of the base, as the adapter's users find it; default: "
        "`checkpoint` where that is a Hub id. An adapter that is pushed needs a Hub id.",
    )
    query_kind: str = option("soft+hard", "hard, words, soft or soft+hard.")
    embed_dim: int = option(512, "Width of the joint space.")
    hidden_dims: list[int] = field(
        default_factory=lambda: [512],
        metadata={"help": "Hidden widths of the projections, one or more; 0: linear."},
    )
    attribute_encoding: str = option(
        "signed", "What hard queries are: signed (1, -1, 0) or one_hot choices, ASMR's form."
    )
    standardize_text: bool = option(
        True,
        "Text embeddings enter without their mean over the training categories, and as long as the "
        "attribute vector: descriptions of people are embedded much alike.",
    )
    adapter_dropout: float = option(0.1, "Drop-out inside the projections.")
    margin_kind: str = option("additive", "additive (on the cosine) or angular (on the angle).")
    margin: float = option(0.2, "Margin of the true category; ASMR's value, in radian if angular.")
    scale: float = option(12.0, "Inverse temperature of the soft-max; ASMR's value.")
    query_rate: float = option(1.0, "Factor of the rate for the projections of queries.")
    feature_views: int = option(
        4, "Augmented views of each crop, one the plain crop; 0: a new one in each epoch, uncached."
    )
    cache_features: str = option(
        "memory",
        "Frozen features of all views are computed once: memory for this run; true or a folder: "
        "kept on disk; false: never, the backbone runs in every step.",
    )
    partial_weight: float = option(
        1.0, "Weight of the loss on partial queries (few attributes said, as people ask); 0: off."
    )
    semantic_weight: float = option(0.0, "Weight of ASMR's regulariser of the queries; ASMR's: 4.")
    fusion: bool = option(
        False, "Choose on validation how much the classifier's evidence counts beside the cosine."
    )

    # The machine
    mixed_precision: str = field(
        default_factory=launched_precision,
        metadata={
            "help": "no, bf16 or fp16; bf16 is faster on recent processors; default: what "
            "accelerate launch was configured with, else no."
        },
    )
    num_workers: int = option(0, "Processes that load crops; 0 is fastest with cached crops.")
    seed: int = option(0, "Seed of weights, order and augmentation.")
    on_bad_image: str = option(
        "raise",
        "A crop that cannot be read: raise names it and ends; skip (recognition) trains without, "
        "counted and named.",
    )

    # The life of the run
    resume: str = option(
        "auto", "auto goes on with an interrupted run of the same settings; never starts again."
    )
    overwrite: bool = option(False, "Replace a finished run, or one of other settings.")
    state_every: int = option(
        500, "Updates between two states to resume from; one ends each epoch."
    )
    keep_states: int = option(2, "States on disk; each holds weights, averages and both moments.")
    max_hours: float = option(0.0, "Stop in time, with a state to go on from; 0: no limit.")
    report_to: str = option(
        "auto", "tensorboard, wandb or none; auto: TensorBoard where it is installed."
    )
    push_to_hub: str | None = option(
        None, "Hub id, such as owner/name, that the finished run is pushed to; None: not pushed."
    )
    hub_private: bool = option(True, "Whether a new Hub repository is private.")

    def __post_init__(self):
        self._require_one_of("stage", ("recognition", "retrieval"))
        self._require_one_of("mixed_precision", ("no", "bf16", "fp16"))
        self._require_one_of("preset", tuple(PRESETS))
        self._require_one_of("query_kind", QUERY_KINDS)
        self._require_one_of("margin_kind", MARGIN_KINDS)
        self._require_one_of("attribute_encoding", ATTRIBUTE_ENCODINGS)
        self._require_one_of("recipe", tuple(RECIPES))
        self._require_one_of("optimizer", ("adamw", "adam", "sgd"))
        self._require_one_of("schedule", ("cosine", "plateau", "constant"))
        self._require_one_of("label_weights", LABEL_WEIGHTS)
        self._require_one_of("on_bad_image", ("raise", "skip"))
        self._require_one_of("resume", ("auto", "never"))
        self._require_one_of("report_to", ("auto", "tensorboard", "wandb", "none"))
        require_dataset_name(self.dataset)
        if self.stage == "retrieval" and self.checkpoint is None:
            raise ValueError(
                "`checkpoint` must name the trained model whose features the adapter reads: "
                "run --stage recognition first."
            )
        super().__post_init__()
        self._require_json_object("model_options", '{"use_channel_attention": false}')
        self._require_positive("epochs", "batch_size")
        if self.feature_views < (0 if self.cache_features == "false" else 1):
            raise ValueError(
                f"`feature_views` must be at least 1, got {self.feature_views}; a new view in each "
                'epoch (0) needs `cache_features` "false".'
            )
        self._require_of_stage()
        if self.stage == "retrieval":
            self.base_name = self.base_name or hub_id(self.checkpoint)
        if self.push_to_hub is not None:
            require_repo_id("push_to_hub", self.push_to_hub)
            if self.stage == "retrieval":
                require_published_base(self.base_name, self.checkpoint)
        self._require_positive("gradient_accumulation_steps", "state_every", "keep_states")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"`layer_decay` must be in (0, 1], got {self.layer_decay}.")

    def _require_of_stage(self) -> None:
        """Refuse what the other stage alone can do."""
        values = {"schedule": "plateau", "on_bad_image": "skip"}  # plateau needs validation's loss
        if self.stage == "recognition":
            values = {"recipe": "asmr"}
        elif self.num_synthetic:
            values["num_synthetic"] = self.num_synthetic
        for name, value in values.items():
            if getattr(self, name) == value:
                raise ValueError(
                    f"`{name}` must be another for the stage {self.stage!r}, got {value!r}, which "
                    "only the other stage knows."
                )


def require_repo_id(argument: str, repo_id: str) -> None:
    """Raise ValueError when this cannot be a repository of the Hub."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"`{argument}` must be a Hub id like owner/name, got {repo_id!r}: {error}"
        ) from None


def public_name(value):
    """A setting as it may be published: of an absolute path only the last part."""
    is_private = isinstance(value, str) and Path(value).is_absolute()
    return Path(value).name if is_private else value


def dataset_schema(name: str) -> AttributeSchema:
    """The attribute schema of a data set; drawn crops are labelled like PETA.

    Args: name: As for `dataset`, or the name of a schema.
    Raises: ValueError: it is none.
    """
    return person_schema(name)
