import json
import os
import subprocess
import sys

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn import functional

from clear_par import peft_clear
from clear_par.modeling_clear import ClearForAttributeRecognition, ClearModel
from clear_par.peft_clear import (
    ClearAdapterConfig,
    Standardization,
    active_adapter_config,
    save_adapter,
)
from clear_par.retrieval_loss_clear import margin_softmax_loss

pytestmark = [  # PEFT's remarks on what these tests do on purpose: a second adapter, a deleted one
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.filterwarnings("ignore:Adapter peta was active which is now deleted"),
    pytest.mark.filterwarnings("ignore:Could not find a config file in"),
]

SLOTS = ("visual_projection", "text_projection", "attribute_projection")
NO_ADAPTER = "Retrieval needs an active adapter, got none: call `model.load_adapter"
ABSENT_PEFT = 'import sys; sys.modules["peft"] = None\n'


@pytest.fixture
def queries() -> dict[str, torch.Tensor]:
    """Three queries of both kinds, one of them shorter."""
    return {
        "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0], [8, 9, 3, 1]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]),
        "query_attributes": torch.tensor(
            [[1, 0, -100, -100, 1, 0], [-100, -100, 1, 1, 0, -100], [0, 0, 0, 1, 1, 1]]
        ),
    }


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def inputs(images, queries) -> dict[str, torch.Tensor]:
    return {"pixel_values": images, **queries}


def adapter(kind: str = "soft+hard", **changes) -> ClearAdapterConfig:
    """A small adapter for the micro model."""
    fields = {"embed_dim": 8, "query_kind": kind, "num_attributes": 6}
    return ClearAdapterConfig(**{**fields, **changes})


def wrap(model: ClearModel, *args, **changes) -> PeftModel:
    return get_peft_model(model, adapter(*args, **changes)).eval()


@torch.no_grad()
def embed(model, **inputs):
    """(image_embeds, query_embeds) of one forward pass."""
    output = model(**inputs)
    return output.image_embeds, output.query_embeds


@torch.no_grad()
def logits_of(model, images: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=images).logits


def run_python(code: str, folder, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a new process in another folder, with no module cache but its own."""
    variables = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), **environment}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# ---- what an adapter computes -------------------------------------------------------------------


def test_linear_projections_equal_their_formulas(micro_model, inputs):
    model = wrap(micro_model)
    image_embeds, query_embeds = embed(model, **inputs)
    weights = {
        slot: [getattr(micro_model, slot).retrieval_projections["default"].layers[0]]
        for slot in SLOTS
    }
    visual, text, attributes = ((lay.weight, lay.bias) for (lay,) in weights.values())
    with torch.no_grad():
        features = micro_model.extract_features(inputs["pixel_values"])
        expected = features @ visual[0].T + visual[1]
        torch.testing.assert_close(image_embeds, expected / expected.norm(dim=1, keepdim=True))
        said = micro_model.encode_text(inputs["input_ids"], inputs["attention_mask"])
        signs = {1: 1.0, 0: -1.0, -100: 0.0}
        vector = torch.tensor(
            [[signs[v] for v in row] for row in inputs["query_attributes"].tolist()]
        )
        halves = [said @ text[0].T + text[1], vector @ attributes[0].T + attributes[1]]
        expected = torch.cat(halves, dim=1)
    torch.testing.assert_close(query_embeds, expected / expected.norm(dim=1, keepdim=True))


def test_hidden_layers_are_a_perceptron_with_relu(micro_model, images):
    model = wrap(micro_model, hidden_dims=[7, 5])
    layers = micro_model.visual_projection.retrieval_projections["default"].layers
    assert [tuple(layer.weight.shape) for layer in layers] == [(7, 32), (5, 7), (8, 5)]
    with torch.no_grad():
        hidden = micro_model.extract_features(images)
        for layer in layers[:-1]:
            hidden = torch.clamp(hidden @ layer.weight.T + layer.bias, min=0)
        expected = hidden @ layers[-1].weight.T + layers[-1].bias
    torch.testing.assert_close(
        embed(model, pixel_values=images)[0], expected / expected.norm(dim=1, keepdim=True)
    )


def test_standardized_texts_have_no_mean_and_the_length_asked_for():
    embeds = functional.normalize(torch.randn(50, 6) + 4, dim=1)  # nearly alike
    found = Standardization(6).fit(embeds, 5.0)(embeds)
    torch.testing.assert_close(found.mean(0), torch.zeros(6), rtol=0, atol=1e-4)
    assert found.square().sum(1).mean().item() == pytest.approx(25, rel=1e-4)
    cosines = functional.cosine_similarity(found[0], found[1:])
    expected = functional.cosine_similarity(embeds[0] - embeds.mean(0), embeds[1:] - embeds.mean(0))
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-4)


def test_equal_texts_are_not_blown_up_by_standardization():
    same = functional.normalize(torch.ones(3, 6), dim=1)
    assert Standardization(6).fit(same, 5.0)(same).abs().max() < 1e-2


def test_a_standardized_half_reads_what_its_standardization_gives(micro_model, queries):
    model = wrap(micro_model, "soft", standardize_text=True)
    projection = micro_model.text_projection.retrieval_projections["default"]
    with torch.no_grad():
        said = micro_model.encode_text(queries["input_ids"], queries["attention_mask"])
        projection.encoder.fit(said, 3.0)
        text, mean = projection.layers[0], said.mean(0)
        spread = (said - mean).norm(dim=1).square().mean().sqrt()
        expected = (said - mean) / spread * 3 @ text.weight.T + text.bias
        found = model.get_query_features(**queries)
    torch.testing.assert_close(found, functional.normalize(expected, dim=1))


@pytest.mark.parametrize("kind", ["hard", "words", "soft", "soft+hard"])
def test_every_kind_fills_the_joint_space(micro_model, inputs, kind):
    image_embeds, query_embeds = embed(wrap(micro_model, kind), **inputs)
    assert image_embeds.shape == (4, 8)
    assert query_embeds.shape == (3, 8)
    for embeds in (image_embeds, query_embeds):
        torch.testing.assert_close(embeds.norm(dim=1), torch.ones(len(embeds)))


@pytest.mark.parametrize(("kind", "unread"), [("hard", "input_ids"), ("soft", "query_attributes")])
def test_a_half_that_the_adapter_does_not_have_is_not_read(micro_model, queries, kind, unread):
    model = wrap(micro_model, kind)
    with torch.no_grad():
        expected = model.get_query_features(**queries)
        del queries[unread]
        torch.testing.assert_close(model.get_query_features(**queries), expected)


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("soft+hard", ["input_ids"]),
        ("soft+hard", ["query_attributes"]),
        ("soft+hard", ["input_ids", "query_attributes"]),
        ("hard", ["query_attributes"]),
        ("words", ["input_ids"]),
    ],
)
def test_a_half_that_is_not_given_is_an_error(micro_model, queries, kind, missing):
    for name in missing:
        del queries[name]
    names = " and ".join(f"`{name}`" for name in missing)
    with pytest.raises(ValueError, match=f"{names} must be given: the retrieval adapter reads"):
        wrap(micro_model, kind).get_query_features(**queries)


def test_a_vector_of_another_vocabulary_is_an_error(micro_model, queries):
    queries["query_attributes"] = queries["query_attributes"][:, :5]
    message = r"`query_attributes` must be \(batch, 6\) for .* 'default', got \(3, 5\)"
    with pytest.raises(ValueError, match=message):
        wrap(micro_model).get_query_features(**queries)


def test_drop_out_acts_in_training_only(micro_model, images):
    model = wrap(micro_model, dropout=0.5)
    assert torch.equal(*(embed(model, pixel_values=images)[0] for _ in range(2)))
    model.train()
    assert not torch.equal(*(embed(model, pixel_values=images)[0] for _ in range(2)))


def test_a_new_adapter_takes_the_mode_of_the_base(micro_model):
    get_peft_model(micro_model, adapter(dropout=0.5))
    assert not any(part.training for part in micro_model.modules())


# ---- the base stays what it is ------------------------------------------------------------------


def test_recognition_is_the_same_to_the_last_bit(micro_model, images):
    expected = logits_of(micro_model, images)
    model = wrap(micro_model, hidden_dims=[5])
    assert torch.equal(logits_of(model, images), expected)
    with model.disable_adapter():
        assert torch.equal(logits_of(model, images), expected)
    assert torch.equal(logits_of(model.unload(), images), expected)


def test_gradients_reach_every_part_of_the_adapter_and_nothing_else(micro_model, inputs):
    model = wrap(micro_model, hidden_dims=[16]).train()
    output = model(**inputs)
    categories = torch.tensor([0, 1, 2, 0])
    margin_softmax_loss(output.image_embeds, output.query_embeds, categories).backward()
    for name, parameter in model.named_parameters():
        if ".retrieval_projections.default." in name:
            assert parameter.requires_grad, name
            assert parameter.grad is not None, f"no gradient for {name}"
            assert parameter.grad.abs().sum() > 0, f"zero gradient for {name}"
        else:
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name


def test_frozen_parts_stay_in_evaluation_mode(make_micro_config, images):
    model = ClearModel(make_micro_config(local_drop_path_rate=0.5)).eval()
    with torch.no_grad():
        expected = model.extract_features(images)
    model = wrap(model).train()
    frozen = [model.backbone, model.classifier, model.language_model]
    assert not any(part.training for top in frozen for part in top.modules())
    assert all(getattr(model, slot).training for slot in SLOTS)
    with torch.no_grad():
        assert torch.equal(model.extract_features(images), expected)


@pytest.mark.parametrize("ask", ["get_image_features", "get_query_features"])
def test_the_base_asked_to_retrieve_says_what_to_do(micro_model, inputs, ask):
    with pytest.raises(ValueError, match=NO_ADAPTER):
        getattr(micro_model, ask)(**inputs)
    assert micro_model(pixel_values=inputs["pixel_values"]).image_embeds is None


def test_disabled_adapters_do_not_retrieve(micro_model, inputs):
    model = wrap(micro_model)
    expected = embed(model, **inputs)[0]
    with model.disable_adapter():
        assert model(pixel_values=inputs["pixel_values"]).image_embeds is None
        with pytest.raises(ValueError, match=NO_ADAPTER):
            model.get_query_features(**inputs)
    assert torch.equal(embed(model, **inputs)[0], expected)


def test_unloading_restores_the_base(micro_model, images):
    expected = {name: value.clone() for name, value in micro_model.state_dict().items()}
    model = wrap(micro_model).unload()
    assert model is micro_model
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert all(type(getattr(model, slot)) is torch.nn.Identity for slot in SLOTS)
    with pytest.raises(ValueError, match=NO_ADAPTER):
        model.get_image_features(images)


def test_deleting_the_last_adapter_restores_the_base(micro_model, images):
    expected, names = logits_of(micro_model, images), micro_model.state_dict().keys()
    micro_model.add_adapter(adapter(), "peta")
    micro_model.delete_adapter("peta")
    assert micro_model.state_dict().keys() == names
    assert torch.equal(logits_of(micro_model, images), expected)
    assert not micro_model.is_retrieval_ready
    with pytest.raises(ValueError, match=NO_ADAPTER):
        micro_model.get_image_features(images)


@pytest.mark.parametrize("merge", ["merge_and_unload", "merge_adapter"])
def test_merging_is_refused_and_changes_nothing(micro_model, inputs, merge):
    model = wrap(micro_model)
    expected = embed(model, **inputs)
    with pytest.raises(ValueError, match=r"must stay apart.*`unload\(\)`"):
        getattr(model, merge)()
    assert all(map(torch.equal, embed(model, **inputs), expected))
    with pytest.raises(ValueError, match="must stay apart"):
        micro_model.visual_projection.merge()


def test_a_base_in_half_precision(micro_model, inputs):
    model = wrap(micro_model.to(torch.bfloat16))
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    embeds = embed(model, **inputs)
    assert all(e.dtype == torch.float32 and e.isfinite().all() for e in embeds)


def test_adapters_come_to_the_device_of_the_base(micro_model):
    model = wrap(micro_model.to("meta"))
    assert {p.device.type for p in model.parameters() if p.requires_grad} == {"meta"}


@pytest.mark.parametrize("adapted", [False, True])
def test_compiled_as_one_graph(micro_model, inputs, adapted):
    model = wrap(micro_model) if adapted else micro_model
    inputs = inputs if adapted else {"pixel_values": inputs["pixel_values"]}
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected, found = model(**inputs), compiled(**inputs)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(dict(found), dict(expected))


def test_nothing_frozen_changes_in_training(micro_model, inputs):
    before = {name: value.clone() for name, value in micro_model.state_dict().items()}
    model = wrap(micro_model, hidden_dims=[5], dropout=0.1).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    started = [p.detach().clone() for p in weights]
    optimizer = torch.optim.AdamW(weights, lr=0.1)
    for _ in range(3):
        output = model(**inputs)
        loss = margin_softmax_loss(
            output.image_embeds, output.query_embeds, torch.tensor([0, 1, 2, 0])
        )
        loss.backward()
        optimizer.step()
    assert not any(map(torch.equal, weights, started))
    after = micro_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    buffers = dict(micro_model.named_buffers())
    assert buffers
    again = dict(ClearModel(micro_model.config).named_buffers())
    assert all(torch.equal(value, again[name]) for name, value in buffers.items())


# ---- several adapters ---------------------------------------------------------------------------


@pytest.fixture
def two_adapters(micro_model) -> PeftModel:
    """ "default": linear, 6 attributes; "other": perceptron, 4 attributes, a larger space."""
    model = wrap(micro_model)
    model.add_adapter("other", adapter(embed_dim=12, hidden_dims=[5], num_attributes=4))
    return model.eval()


def test_adapters_of_different_shapes_take_turns(two_adapters, inputs):
    expected = embed(two_adapters, **inputs)
    other = {**inputs, "query_attributes": inputs["query_attributes"][:, :4]}
    two_adapters.set_adapter("other")
    assert [e.shape for e in embed(two_adapters, **other)] == [(4, 12), (3, 12)]
    trained = {n for n, p in two_adapters.named_parameters() if p.requires_grad}
    assert trained
    assert all(".other." in name for name in trained)
    two_adapters.set_adapter("default")
    assert all(map(torch.equal, embed(two_adapters, **inputs), expected))
    two_adapters.delete_adapter("other")
    assert all(map(torch.equal, embed(two_adapters, **inputs), expected))


def test_which_adapter_is_active_after_the_second(two_adapters, make_micro_config, images):
    assert active_adapter_config(two_adapters).embed_dim == 8  # PEFT: the first stays
    model = ClearModel(make_micro_config()).eval()
    for name, config in two_adapters.peft_config.items():
        model.add_adapter(config, name)
    assert active_adapter_config(model).embed_dim == 12  # transformers: the last one added
    assert embed(model, pixel_values=images)[0].shape == (4, 12)
    model.set_adapter("default")
    assert embed(model, pixel_values=images)[0].shape == (4, 8)


def test_two_at_once_are_refused(two_adapters):
    with pytest.raises(ValueError, match="`adapter_name` must be one name: each adapter has"):
        two_adapters.base_model.set_adapter(["default", "other"])


def test_a_mixed_batch_equals_one_by_one(two_adapters, inputs):
    two_adapters.add_adapter("third", adapter(hidden_dims=[3]))
    two_adapters.eval()
    names = {"pixel_values": ["third", "default", "third", "default"]}
    names["queries"] = names["pixel_values"][:3]
    alone = {}
    for name in ("default", "third"):
        two_adapters.set_adapter(name)
        alone[name] = embed(two_adapters, **inputs)
    assert not torch.allclose(alone["default"][0], alone["third"][0])
    image_rows = [alone[name][0][row] for row, name in enumerate(names["pixel_values"])]
    query_rows = [alone[name][1][row] for row, name in enumerate(names["queries"])]
    pixels = inputs.pop("pixel_values")
    with torch.no_grad():
        for model in (two_adapters, two_adapters.get_base_model()):
            mixed = model(pixel_values=pixels, adapter_names=names["pixel_values"])
            torch.testing.assert_close(mixed.image_embeds, torch.stack(image_rows))
            mixed = model(**inputs, adapter_names=names["queries"])
            torch.testing.assert_close(mixed.query_embeds, torch.stack(query_rows))
            direct = model.get_image_features(pixels, adapter_names=names["pixel_values"])
            torch.testing.assert_close(direct, torch.stack(image_rows))
    assert torch.equal(embed(two_adapters, **inputs)[1], alone["third"][1])  # nothing stays behind


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["default"] * 3, "one adapter for each row of `features`, got 3 names for 4 rows"),
        (["default", "default", "default", "hat"], "must name loaded adapters .*, got 'hat'"),
        (["default", "other", "other", "default"], "must name adapters of one width in `features`"),
    ],
)
def test_a_mixed_batch_that_cannot_be(two_adapters, images, names, message):
    with pytest.raises(ValueError, match=message):
        two_adapters(pixel_values=images, adapter_names=names)


@pytest.mark.parametrize("name", ["clear", "update", "training", "two.words"])
def test_names_that_cannot_be_are_refused_and_leave_nothing(micro_model, images, name):
    message = "`adapter_name` must have no dot and be no attribute of nn.ModuleDict"
    with pytest.raises(ValueError, match=message):
        get_peft_model(micro_model, adapter(), adapter_name=name)
    model = wrap(micro_model)
    with pytest.raises(ValueError, match=message):
        model.add_adapter(name, adapter())
    assert list(model.peft_config) == ["default"]
    assert embed(model, pixel_values=images)[0].shape == (4, 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"visual_dim": 2048}, "`visual_dim` must be 32, the width of this base, got 2048: the"),
        ({"text_dim": 768}, "`text_dim` must be 16, the width of this base, got 768: the"),
    ],
)
def test_an_adapter_of_another_base_is_refused(micro_model, config, message):
    with pytest.raises(ValueError, match=message):
        wrap(micro_model, **config)
    wrap(micro_model)


def test_bases_that_cannot_take_an_adapter(make_micro_config):
    silent = ClearModel(make_micro_config(text_config=None))
    with pytest.raises(ValueError, match="`query_kind` must be 'hard' for a base without a lang"):
        wrap(silent)
    assert wrap(silent, "hard").is_retrieval_ready
    recognition = ClearForAttributeRecognition(make_micro_config())
    with pytest.raises(ValueError, match=r"`model` must be a ClearModel .* got ClearForAttribute"):
        wrap(recognition)


def test_no_vocabulary_without_an_active_adapter(micro_model):
    with pytest.raises(ValueError, match="`model` must have an active retrieval adapter"):
        active_adapter_config(micro_model)
    schema = {"name": "four", "attributes": ["hat", "skirt", "red", "blue"]}
    micro_model.add_adapter(adapter(schema=schema, num_attributes=4), "four")
    assert active_adapter_config(micro_model).schema == schema
    micro_model.disable_adapters()
    with pytest.raises(ValueError, match="got none"):
        active_adapter_config(micro_model)


# ---- files --------------------------------------------------------------------------------------

WEIGHTS = {
    f"base_model.model.{slot}.retrieval_projections.layers.{layer}.{kind}"
    for slot in SLOTS
    for layer in (0, 1)
    for kind in ("weight", "bias")
}


@pytest.mark.parametrize("save", ["helper", "helper on the base", "PeftModel"])
def test_the_files_hold_the_adapter_and_nothing_else(micro_model, tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    micro_model.name_or_path = str(tmp_path / "runs" / "base")
    model = wrap(micro_model, hidden_dims=[5])
    model.add_adapter("other", adapter())
    if save == "PeftModel":
        model.save_pretrained(tmp_path / "adapter", selected_adapters=["default"])
        (tmp_path / "adapter" / "README.md").unlink()  # the only one with the local path
    else:
        save_adapter(model if save == "helper" else micro_model, tmp_path / "adapter")
    files = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert weights.keys() == WEIGHTS
    for name, value in weights.items():
        within = name.removeprefix("base_model.model.").replace(".layers", ".default.layers")
        assert torch.equal(value, micro_model.state_dict()[within])
    text = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert str(tmp_path) not in text
    assert "transformers_modules" not in text
    stored = json.loads(text)
    assert stored["base_model_name_or_path"] == "runs/base"
    assert (stored["visual_dim"], stored["text_dim"]) == (32, 16)
    assert stored["inference_mode"] is True


def test_the_saved_base_is_the_one_that_is_asked_for(micro_model, tmp_path):
    micro_model.add_adapter(adapter(), "peta")
    save_adapter(micro_model, tmp_path, base="me/clear")
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] == "me/clear"
    assert active_adapter_config(micro_model).inference_mode is False  # still being trained


def test_a_save_that_fails_leaves_the_old_files(micro_model, tmp_path, monkeypatch):
    model = wrap(micro_model)
    save_adapter(model, tmp_path, base="me/clear")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def half(weights, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(peft_clear, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_adapter(model, tmp_path, base="me/clear")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_transformers_loads_several_and_misses_nothing(make_micro_config, tmp_path, inputs):
    torch.manual_seed(0)
    model, expected = ClearModel(make_micro_config()).eval(), {}
    for name in ("peta", "rap"):
        model.add_adapter(adapter(hidden_dims=[5]), name)
        save_adapter(model.eval(), tmp_path / name, base="base")
        expected[name] = embed(model, **inputs)
    torch.manual_seed(0)
    again = ClearModel(make_micro_config()).eval()
    for name in ("peta", "rap"):
        found = again.load_adapter(str(tmp_path / name), adapter_name=name)
        assert not found.missing_keys
        assert not found.unexpected_keys
        assert all(map(torch.equal, embed(again, **inputs), expected[name]))
    again.set_adapter("peta")
    assert all(map(torch.equal, embed(again, **inputs), expected["peta"]))
    again.delete_adapter("peta")
    assert all(map(torch.equal, embed(again, **inputs), expected["rap"]))


def test_weights_may_be_made_without_memory_first(micro_model, make_micro_config, tmp_path, images):
    model = wrap(micro_model)
    save_adapter(model, tmp_path, base="base")
    torch.manual_seed(0)
    base = ClearModel(make_micro_config()).eval()
    again = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=True, torch_device="cpu")
    assert torch.equal(*(embed(m, pixel_values=images)[0] for m in (model, again)))


def test_a_sub_folder_is_named_in_adapter_kwargs(micro_model, make_micro_config, tmp_path, images):
    model = wrap(micro_model)
    save_adapter(model, tmp_path / "adapters" / "peta", base="base")
    torch.manual_seed(0)
    again = ClearModel(make_micro_config()).eval()
    again.load_adapter(str(tmp_path), adapter_kwargs={"subfolder": "adapters/peta"})
    assert torch.equal(*(embed(m, pixel_values=images)[0] for m in (model, again)))


def test_a_model_with_an_adapter_saves_the_adapter_alone(micro_model, tmp_path):
    micro_model.add_adapter(adapter(hidden_dims=[5]), "peta")
    micro_model.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    assert load_file(tmp_path / "adapter_model.safetensors").keys() == WEIGHTS


FRESH = """
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel

try:
    PeftConfig.from_pretrained("adapters/micro")
except KeyError as error:
    print("before the base:", error)
load = lambda folder: AutoModel.from_pretrained(folder, trust_remote_code=True)
base = load("base")
print("after the base:", PeftConfig.from_pretrained("adapters/micro").query_kind)
base.load_adapter("adapters/micro")
routes = {
    "load_adapter": base,
    "PeftModel": PeftModel.from_pretrained(load("base"), "adapters/micro"),
    "AutoModel": load("adapters/micro"),
}
inputs, outputs = load_file("inputs.safetensors"), {}
for route, model in routes.items():
    for parameter in model.parameters():  # memory of a mapped file is not aligned: other kernels
        parameter.data = parameter.data.clone()
    assert not model.training
    with torch.no_grad():
        found = model(**inputs)
    for name in ("logits", "image_embeds", "query_embeds"):
        outputs[f"{route} {name}"] = found[name]
plain = load("base")
with torch.no_grad():
    alone = plain(pixel_values=inputs["pixel_values"]).logits
    sizes = {"small": 26, "large": 105}
    for name in sizes:
        plain.load_adapter(f"adapters/{name}", adapter_name=name)
    for name, count in sizes.items():
        plain.set_adapter(name)
        asked = inputs["long_attributes"][:, :count]
        found = plain(pixel_values=inputs["pixel_values"], query_attributes=asked)
        assert torch.equal(found.logits, alone), name
        outputs[f"{name} image_embeds"] = found.image_embeds
        outputs[f"{name} query_embeds"] = found.query_embeds
    plain.disable_adapters()
    assert torch.equal(plain(pixel_values=inputs["pixel_values"]).logits, alone)
save_file(outputs, "outputs.safetensors")
"""


LONG = torch.randint(0, 2, (3, 105), generator=torch.Generator().manual_seed(2))


def save_small_and_large(folder, images) -> dict[str, torch.Tensor]:
    """Two adapters of other sizes on one base: "small" linear, 26 attributes, "large" deep, 105.

    Returns: their outputs in this process, where each takes its turn on the same base.
    """
    model = ClearModel.from_pretrained(folder.parent / "base").eval()
    alone, outputs = logits_of(model, images), {}
    for name, count, hidden in (("small", 26, []), ("large", 105, [9, 7])):
        config = adapter("hard", num_attributes=count, hidden_dims=hidden, embed_dim=count // 5)
        model.add_adapter(config, name)
        save_adapter(model.eval(), folder / name, base="base")
    for name, count in (("small", 26), ("large", 105), ("small", 26)):
        model.set_adapter(name)
        with torch.no_grad():
            found = model(pixel_values=images, query_attributes=LONG[:, :count])
        assert torch.equal(found.logits, alone)
        outputs |= {f"{name} {key}": found[key] for key in ("image_embeds", "query_embeds")}
    model.disable_adapters()
    assert torch.equal(logits_of(model, images), alone)
    return outputs


def test_a_fresh_process_gives_the_same_embeddings_by_every_route(micro_model, tmp_path, inputs):
    micro_model.save_pretrained(tmp_path / "base")
    model = wrap(micro_model, hidden_dims=[5], standardize_text=True)
    with torch.no_grad():
        said = micro_model.encode_text(inputs["input_ids"], inputs["attention_mask"])
        micro_model.text_projection.retrieval_projections["default"].encoder.fit(said, 2.0)
        expected = model(**inputs)
    save_adapter(model, tmp_path / "adapters" / "micro", base="base")
    save_file({**inputs, "long_attributes": LONG}, tmp_path / "inputs.safetensors")
    others = save_small_and_large(tmp_path / "adapters", inputs["pixel_values"])
    result = run_python(FRESH, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "before the base: 'CLEAR_ADAPTER'",
        "after the base: soft+hard",
    ]
    outputs = load_file(tmp_path / "outputs.safetensors")
    assert len(outputs) == 9 + 4
    for name, found in outputs.items():
        # Weights are equal bit by bit (test_hub.py); outputs depend on memory alignment, slightly.
        wanted = others[name] if name in others else expected[name.split()[1]]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6, msg=name)


WITHOUT_PEFT = """
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification

inputs, outputs = load_file("inputs.safetensors"), {}
for auto in (AutoModel, AutoModelForImageClassification):
    model = auto.from_pretrained("base", trust_remote_code=True)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    with torch.no_grad():
        outputs[auto.__name__] = model(pixel_values=inputs["pixel_values"]).logits
save_file(outputs, "outputs.safetensors")
try:
    AutoModel.from_pretrained("base", trust_remote_code=True).load_adapter("adapter")
except ImportError as error:
    print(error)
"""


def test_recognition_needs_no_peft(micro_model, tmp_path, images):
    micro_model.save_pretrained(tmp_path / "base")
    assert (tmp_path / "base" / "peft_clear.py").is_file()  # it travels, and is not imported
    expected = logits_of(micro_model, images)
    save_file({"pixel_values": images}, tmp_path / "inputs.safetensors")
    result = run_python(ABSENT_PEFT + WITHOUT_PEFT, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "peft" in result.stdout
    outputs = load_file(tmp_path / "outputs.safetensors")
    assert len(outputs) == 2
    for found in outputs.values():  # memory alignment decides about the last bits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_small_training_run_learns_its_categories(micro_model, queries):
    model = wrap(micro_model).train()
    torch.manual_seed(0)
    features = functional.normalize(torch.randn(3, 32), dim=-1).repeat(8, 1)
    categories = torch.arange(3).repeat(8)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
    losses = []
    for _ in range(60):
        output = model(features=features, **queries)
        loss = margin_softmax_loss(output.image_embeds, output.query_embeds, categories)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    found = (output.image_embeds @ output.query_embeds.T).argmax(dim=1)
    assert torch.equal(found, categories)
