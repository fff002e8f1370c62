"""The users' path: save; load by folder or Hub id in a fresh process, with its own code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from clear_par.attributes_clear import AttributeSchema
from clear_par.configuration_clear import AUTO_MAP
from clear_par.modeling_clear import ClearForAttributeRecognition, ClearModel
from clear_par.processing_clear import ClearProcessor

NAMES = ["hat", "glasses", "backpack", "female", "skirt", "red"]
CODE = {
    *("adapter_config_clear.py", "attributes_clear.py", "backbones_clear.py"),
    *("configuration_clear.py", "evidence_clear.py", "onehot_clear.py"),
    *("lexicon_clear.py", "modeling_clear.py", "peft_clear.py", "phrases_clear.py"),
    *("pipeline_clear.py", "processing_clear.py", "queries_clear.py", "retrieval_loss_clear.py"),
}
SETTINGS = {"config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
REVISION = "0123456789abcdef" * 2 + "01234567"
LOAD = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import (
    AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor, pipeline,
)
source, image, results = sys.argv[1:]
trust = {"trust_remote_code": True}
torch.use_deterministic_algorithms(True)  # memory that nobody initialises holds NaN
processor = AutoProcessor.from_pretrained(source, **trust)
inputs = processor(images=image, return_tensors="pt")
answers = {}
for auto in (AutoModel, AutoModelForImageClassification):
    model, info = auto.from_pretrained(source, output_loading_info=True, **trust)
    tensors = {**model.state_dict(), **dict(model.named_buffers())}
    save_file({n: t.clone() for n, t in tensors.items()}, f"{results}/{auto.__name__}.safetensors")
    with torch.no_grad():
        logits = model(**inputs).logits
    answers[auto.__name__] = {
        "class": type(model).__name__,
        "keys": [sorted(info["missing_keys"]), sorted(info["unexpected_keys"])],
        "training": any(m.training for m in model.modules()),
        "frozen": sorted({n.split(".")[0] for n, p in model.named_parameters()
                          if not p.requires_grad}),
        "logits": logits.tolist(),
    }
    model.save_pretrained(f"{results}/again")
answers["decoded"] = processor.decode(logits)
answers["pixels"] = torch.equal(
    AutoImageProcessor.from_pretrained(source, **trust)(image, return_tensors="pt").pixel_values,
    inputs["pixel_values"])
recognise = pipeline("image-classification", model=source, **trust)
answers["pipeline"] = recognise(image, top_k=6)
processor.save_pretrained(f"{results}/again")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def model(make_micro_config) -> ClearModel:
    """Both backbone families at sizes that neither window nor patch divides; a language model."""
    sizes = {"image_height": 48, "local_window_size": 5, "global_patch_size": 7}
    torch.manual_seed(0)
    return ClearModel(make_micro_config(**sizes, attribute_positive_ratios=[0.5] * 6)).eval()


@pytest.fixture(scope="module")
def processor(make_tokenizer) -> ClearProcessor:
    tokenizer = make_tokenizer("a person with and , .", " ".join(NAMES))
    return ClearProcessor.for_schema(AttributeSchema.from_names(NAMES), 48, 32, tokenizer)


@pytest.fixture(scope="module")
def saved(model, processor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("image") / "crop.png"
    values = np.random.default_rng(0).integers(0, 256, (90, 40, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return str(path)


@pytest.fixture(scope="module")
def hub_cache(saved, tmp_path_factory) -> Path:
    """What the Hub's cache holds after a download of `me/clear`."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / "models--me--clear"
    shutil.copytree(saved, repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return cache


@pytest.fixture(scope="module", params=["folder", "hub"])
def loaded(request, saved, hub_cache, image, tmp_path_factory) -> tuple[dict, Path]:
    """(answers, folder of results) of a fresh process elsewhere, without a network."""
    results = tmp_path_factory.mktemp("results")
    source = str(saved) if request.param == "folder" else "me/clear"
    variables = {"HF_HUB_CACHE": str(hub_cache), "HF_MODULES_CACHE": str(results / "modules")}
    finished = subprocess.run(
        [sys.executable, "-c", LOAD, source, image, str(results)],
        cwd=results,
        env={**os.environ, **variables, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1]), results


def tensors_of(model) -> dict[str, torch.Tensor]:
    return {**model.state_dict(), **dict(model.named_buffers())}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


# ---- in a fresh process ---------------------------------------------------------------------


def test_the_model_loads_bitwise_with_every_buffer(loaded, model):
    tensors = load_file(loaded[1] / "AutoModel.safetensors")
    hidden = tensors.keys() - model.state_dict().keys()
    assert sum("relative_position_index" in name for name in hidden) == 4
    assert sum("attn_mask" in name for name in hidden) == 2
    assert_same(tensors, tensors_of(model))


def test_the_recogniser_loads_bitwise_without_the_language_model(loaded, model):
    tensors = load_file(loaded[1] / "AutoModelForImageClassification.safetensors")
    kept = {n: t for n, t in tensors_of(model).items() if not n.startswith("language_model.")}
    assert_same(tensors, kept)


def test_loading_reports_nothing_missing_and_freezes_what_must_be(loaded):
    whole, recogniser = loaded[0]["AutoModel"], loaded[0]["AutoModelForImageClassification"]
    assert (whole["class"], recogniser["class"]) == ("ClearModel", "ClearForAttributeRecognition")
    for answer in (whole, recogniser):
        assert answer["keys"] == [[], []]
        assert answer["training"] is False
    assert whole["frozen"] == ["language_model"]
    assert recogniser["frozen"] == []


def test_both_answer_as_the_saved_model(loaded, model, processor, image):
    with torch.no_grad():
        logits = model(**processor(images=image, return_tensors="pt")).logits
    for auto in ("AutoModel", "AutoModelForImageClassification"):
        got = torch.tensor(loaded[0][auto]["logits"])
        torch.testing.assert_close(got, logits, rtol=1e-5, atol=1e-6)
    assert loaded[0]["pixels"] is True
    (decoded,) = processor.decode(logits)
    assert loaded[0]["decoded"][0].keys() == decoded.keys()
    for name, (value, probability) in decoded.items():
        assert loaded[0]["decoded"][0][name] == [value, pytest.approx(probability, abs=1e-5)]


def test_the_stock_pipeline_names_each_attribute_by_itself(loaded):
    """A sigmoid for each, not a softmax over all."""
    logits = torch.tensor(loaded[0]["AutoModelForImageClassification"]["logits"][0])
    scores = {entry["label"]: entry["score"] for entry in loaded[0]["pipeline"]}
    expected = dict(zip(NAMES, logits.sigmoid().tolist(), strict=True))
    assert scores == pytest.approx(expected, abs=1e-5)


def test_what_was_loaded_can_be_saved_with_all_its_code(loaded):
    again = loaded[1] / "again"
    assert {path.name for path in again.iterdir()} == CODE | SETTINGS | {"model.safetensors"}
    assert json.loads((again / "config.json").read_text())["auto_map"] == AUTO_MAP


# ---- the folder -----------------------------------------------------------------------------


def test_the_folder_holds_weights_settings_and_code_and_no_local_path(saved, repository):
    assert {path.name for path in saved.iterdir()} == CODE | SETTINGS | {"model.safetensors"}
    for name in CODE:
        assert (saved / name).read_text() == (repository / name).read_text()
    for name in SETTINGS:
        text = (saved / name).read_text()
        assert str(saved) not in text
        assert str(Path.home()) not in text
        assert "transformers_modules" not in text


def stored_types(folder: Path) -> dict[str, set[torch.dtype]]:
    types: dict[str, set[torch.dtype]] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        types.setdefault(name.split(".")[0], set()).add(tensor.dtype)
    return types


def test_an_ordinary_model_is_stored_in_single_precision(saved):
    parts = ("backbone", "classifier", "language_model")
    assert stored_types(saved) == {part: {torch.float32} for part in parts}


def test_only_a_part_that_half_precision_holds_exactly_is_stored_so(make_micro_config, tmp_path):
    torch.manual_seed(0)
    model = ClearModel(make_micro_config())
    for parameter in model.language_model.parameters():
        parameter.data = parameter.half().float()
    with torch.no_grad():
        model.language_model.embeddings.LayerNorm.bias[0] = -0.0
    model.save_pretrained(tmp_path)
    single, half = {torch.float32}, {torch.float16}
    types = {"backbone": single, "classifier": single, "language_model": half}
    assert stored_types(tmp_path) == types
    assert_same(tensors_of(ClearModel.from_pretrained(tmp_path)), tensors_of(model))


@pytest.mark.parametrize("value", [1 + 2**-11, 1e5, 1e-8, float("nan")])
def test_one_value_that_half_precision_lacks_keeps_its_part_whole(
    make_micro_config, tmp_path, value
):
    torch.manual_seed(0)
    model = ClearModel(make_micro_config()).round_to_half()
    with torch.no_grad():
        model.classifier.bias[2] = value
    model.save_pretrained(tmp_path)
    single, half = {torch.float32}, {torch.float16}
    types = {"backbone": half, "classifier": single, "language_model": half}
    assert stored_types(tmp_path) == types
    again = ClearModel.from_pretrained(tmp_path)
    assert again.dtype == torch.float32
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    stored = load_file(tmp_path / "model.safetensors")["classifier.bias"]
    assert stored[2].isnan() if value != value else stored[2] == value


def test_rounding_moves_no_weight_by_more_than_half_a_step(micro_model):
    before = {name: p.clone() for name, p in micro_model.named_parameters()}
    micro_model.round_to_half()
    for name, parameter in micro_model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, parameter.half().float())
        assert ((parameter - before[name]).abs() <= before[name].abs() * 2**-11 + 2**-25).all()


# ---- loading with changes -------------------------------------------------------------------


@pytest.fixture
def poisoned_memory():
    """Memory that nobody initialises holds NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned_memory")
def test_a_load_in_bfloat16_rebuilds_the_buffers(saved, model, processor, image):
    again = ClearModel.from_pretrained(saved, dtype=torch.bfloat16)
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    for name, buffer in model.named_buffers():
        got = again.get_buffer(name)
        assert torch.equal(got.to(buffer.dtype), buffer), name
    with torch.no_grad():
        inputs = processor(images=image, return_tensors="pt")
        logits, expected = again(**inputs).logits, model(**inputs).logits
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.03)


def deviation(model, *ends: str) -> float:
    found = [p.flatten() for n, p in model.named_parameters() if n.endswith(ends)]
    return torch.cat(found).std().item()


@pytest.mark.usefixtures("poisoned_memory")
def test_what_a_checkpoint_lacks_is_initialised(saved, model, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    save_file({}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.manual_seed(1)
    again, info = ClearModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == set(model.state_dict())
    for name, tensor in tensors_of(again).items():
        assert tensor.isfinite().all(), name
    for ends in ("pos_embed", "relative_position_bias_table", "qkv.weight", "query.weight"):
        assert 0.01 < deviation(again, ends) < 0.03, ends
    assert 1e-7 < deviation(again, "cls_token") < 1e-5
    for name, parameter in again.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        elif "norm" in name.lower():
            assert (parameter == 1).all(), name
    for name, buffer in model.named_buffers():
        assert torch.equal(again.get_buffer(name), buffer), name


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("part", ["pos_embed", "relative_position_bias_table", "cls_token"])
def test_one_missing_weight_leaves_the_others_as_stored(saved, model, tmp_path, part):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if part not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = tensors_of(ClearModel.from_pretrained(tmp_path))
    for name, tensor in tensors_of(model).items():
        same = part not in name
        assert torch.equal(again[name], tensor) is same, name
        assert again[name].isfinite().all(), name


@pytest.mark.usefixtures("poisoned_memory")
def test_another_set_of_attributes_gets_a_new_classifier_alone(saved, model):
    changes = {
        "id2label": {0: "hat", 1: "scarf"},
        "label2id": {"hat": 0, "scarf": 1},
        "attribute_positive_ratios": None,
    }
    again = ClearForAttributeRecognition.from_pretrained(
        saved, ignore_mismatched_sizes=True, **changes
    )
    assert again.config.num_labels == 2
    assert again.classifier.weight.shape == (2, 32)
    assert again.classifier.weight.isfinite().all()
    assert_same(tensors_of(again.backbone), tensors_of(model.backbone))
    with pytest.raises(ValueError, match="one value for each of the 2 attributes, got 6"):
        ClearForAttributeRecognition.from_pretrained(
            saved, id2label=changes["id2label"], ignore_mismatched_sizes=True
        )


def test_loading_keeps_a_change_of_a_switch(saved, model):
    again = ClearModel.from_pretrained(saved, channel_attention_dropout=0.5)
    rates = {stage.channel_attention.dropout.p for stage in again.backbone.local_branch.layers}
    assert rates == {0.5}
    assert_same(again.state_dict(), model.state_dict())


def test_a_checkpoint_with_an_unknown_switch_is_not_loaded_without_it(saved, tmp_path):
    settings = json.loads((saved / "config.json").read_text())
    settings["local_dilation"] = 2
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="Names must be fields of ClearConfig, got `local_dila"):
        ClearModel.from_pretrained(tmp_path)


def test_the_code_is_not_run_without_trust(saved):
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoConfig.from_pretrained(saved, trust_remote_code=False)
