"""What every test shares: an offline Hub, module files of its own, the optional shared folder."""

import json
import os
import tempfile
from pathlib import Path

import pytest

# Set before any test imports a Hugging Face library: they read both once, at import.
os.environ["HF_HUB_OFFLINE"] = "1"
# Workers share the processors already; threads of torch would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Remote code is cached by content; a cache of one run cannot hand back another run's files.
_modules_cache = tempfile.TemporaryDirectory(prefix="clear_par_modules_")
os.environ["HF_MODULES_CACHE"] = _modules_cache.name

REPOSITORY = Path(__file__).resolve().parents[1]
INPUT_NAMES = ["input_ids", "attention_mask"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real annotations and reference values, which the repository may not carry."""
    folder = Path(os.environ.get("CLEAR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data folder, not found at {folder}; set CLEAR_SHARED")
    return folder


@pytest.fixture(scope="session")
def make_micro_config():
    """A function that builds the smallest ClearConfig with every part on, fields replaced."""
    from transformers import BertConfig

    from clear_par.configuration_clear import ClearConfig

    def make(**changes) -> ClearConfig:
        text_config = BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
        )
        sizes = {
            "image_height": 32,
            "image_width": 32,
            "local_window_size": 4,
            "local_embed_dim": 8,
            "local_depths": (2, 2),
            "local_num_heads": (1, 2),
            "global_patch_size": 8,
            "global_embed_dim": 16,
            "global_depth": 2,
            "global_num_heads": 2,
            "fusion_embed_dim": 16,
            "fusion_num_heads": 2,
            "text_config": text_config,
            "id2label": dict(enumerate(["hat", "glasses", "backpack", "female", "skirt", "red"])),
        }
        return ClearConfig(**{**sizes, **changes})

    return make


@pytest.fixture
def micro_config(make_micro_config):
    """The smallest ClearConfig with every part on: six attributes, a language model of 16."""
    return make_micro_config()


@pytest.fixture
def micro_model(micro_config):
    """A ClearModel of `micro_config`, the same random weights each time, in evaluation mode."""
    import torch

    from clear_par.modeling_clear import ClearModel

    torch.manual_seed(0)
    return ClearModel(micro_config).eval()


@pytest.fixture(scope="session")
def make_tokenizer():
    """A function that builds a tokenizer of whole words, in the layout of BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    def make(*texts: str) -> PreTrainedTokenizerFast:
        words = {word for text in texts for word in text.lower().replace(",", " , ").split()}
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        vocabulary = {word: i for i, word in enumerate([*special, *sorted(words)])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_input_names": INPUT_NAMES}
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)

    return make


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> Path:
    """Where the drawn crops of training runs are kept between tests."""
    return tmp_path_factory.mktemp("tables")


@pytest.fixture
def make_settings(tables, tmp_path, monkeypatch, make_micro_config):
    """A function that makes the settings of a run of seconds: a micro model, 48 drawn crops."""
    import datasets
    from accelerate.state import AcceleratorState, GradientState

    from clear_par.configuration_clear import PRESETS
    from clear_par.training.settings import TrainingSettings

    config = make_micro_config(text_config=None).to_dict()
    kept = {"image_height", "image_width", "fusion_embed_dim", "fusion_num_heads"}
    kept |= {n for n in config if n.startswith(("local_", "global_"))}
    monkeypatch.setitem(PRESETS, "micro", {name: config[name] for name in kept})
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tables)
    monkeypatch.chdir(tmp_path)
    sizes = {"train_size": 48, "validation_size": 24, "test_size": 8, "width": 32, "height": 64}

    def make(**changes):
        usual = {"dataset": "synthetic", "preset": "micro", "dataset_options": json.dumps(sizes)}
        usual |= {"epochs": 2, "batch_size": 16, "output_dir": "run", "report_to": "none"}
        return TrainingSettings(**{**usual, **changes})

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def bad_crops(monkeypatch):
    """A function that makes rows of the training split unreadable and returns their names."""
    import datasets

    from clear_par.training.settings import TrainingSettings

    load, bad = TrainingSettings.load_rows, []

    def load_rows(self, split: str) -> datasets.Dataset:
        rows = load(self, split)
        table = rows.cast_column("image", datasets.Image(decode=False)).to_list()
        for row in bad if split == "train" else ():
            table[row]["image"] = {"bytes": b"no picture", "path": None}
        return datasets.Dataset.from_list(table, features=rows.features)

    def spoil(*rows: int) -> list[str]:
        bad[:] = rows
        return [f"train_{row:05d}.png" for row in rows]

    monkeypatch.setattr(TrainingSettings, "load_rows", load_rows)
    return spoil


@pytest.fixture(scope="session")
def gallery_model(make_micro_config, tmp_path_factory) -> Path:
    """The folder of a micro checkpoint for hard queries, with two adapters: "peta" and "other"."""
    import torch

    from clear_par.attributes_clear import AttributeSchema
    from clear_par.modeling_clear import ClearModel
    from clear_par.peft_clear import ClearAdapterConfig, save_adapter
    from clear_par.processing_clear import ClearProcessor

    folder = tmp_path_factory.mktemp("gallery_model")
    config = make_micro_config()
    schema = AttributeSchema.from_names(config.id2label.values())
    ClearProcessor.for_schema(schema, 32, 32, query_kind="hard").save_pretrained(folder)
    for number, name in enumerate(("peta", "other")):
        torch.manual_seed(0)
        model = ClearModel(config).eval()
        torch.manual_seed(number)
        model.add_adapter(ClearAdapterConfig(embed_dim=8, query_kind="hard", num_attributes=6))
        save_adapter(model, folder / "adapters" / name, base="micro")
    model.delete_adapter("default")
    model.save_pretrained(folder)
    return folder
