import json
import math
from dataclasses import replace

import pytest
from peft import PeftConfig

from clear_par.adapter_config_clear import ClearAdapterConfig, publishable_base
from clear_par.attributes_clear import AttributeSchema
from clear_par.peft_clear import ClearAdapterModel

NAMES = ["hat", "glasses", "backpack"]
FIELDS = {
    *("embed_dim", "query_kind", "hidden_dims", "dropout", "num_attributes", "visual_dim"),
    *("text_dim", "schema", "margin_kind", "margin", "scale", "training_data", "revision"),
    *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode"),
    *("attribute_encoding", "partial_weight", "semantic_weight", "fusion_weight"),
    "standardize_text",
    *("base_model_name_or_path", "base_fingerprint"),
}


@pytest.fixture
def schema() -> AttributeSchema:
    return AttributeSchema.from_names(NAMES)


def test_the_file_holds_the_fields_and_gives_them_back(tmp_path, schema):
    config = ClearAdapterConfig(
        embed_dim=10,
        query_kind="hard",
        hidden_dims=(8, 6),
        dropout=0.25,
        schema=schema,
        margin_kind="angular",
        training_data="drawn crops",
        attribute_encoding="one_hot",
        standardize_text=True,
        partial_weight=0.5,
        semantic_weight=4.0,
        fusion_weight=6.0,
        base_fingerprint="0f",
        revision="abc",
        base_model_name_or_path="me/clear",
    )
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert set(stored) == FIELDS
    assert stored["peft_type"] == "CLEAR_ADAPTER"
    assert stored["hidden_dims"] == [8, 6]
    again = PeftConfig.from_pretrained(tmp_path)
    assert again == config
    assert AttributeSchema.from_dict(again.schema) == schema


def test_the_schema_gives_the_number_of_attributes(schema):
    assert ClearAdapterConfig(schema=schema).num_attributes == 3
    assert ClearAdapterConfig(schema=schema.to_dict(), query_kind="soft").num_attributes == 3


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("soft+hard", [(32, 12), (16, 6), (3, 6)]),
        ("hard", [(32, 12), (16, 0), (3, 12)]),
        ("soft", [(32, 12), (16, 12), (3, 0)]),
        ("words", [(32, 12), (16, 12), (3, 0)]),
    ],
)
def test_halves_of_the_joint_space(kind, sizes):
    config = ClearAdapterConfig(
        embed_dim=12, query_kind=kind, num_attributes=3, visual_dim=32, text_dim=16
    )
    slots = ("visual_projection", "text_projection", "attribute_projection")
    assert [config.slot_sizes(slot) for slot in slots] == sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_kind": "sentence"}, "`query_kind` must be one of"),
        ({"embed_dim": 7}, "`embed_dim` must be a positive multiple of 2 .*, got 7"),
        ({"embed_dim": 0, "query_kind": "hard"}, "`embed_dim` must be a positive multiple of 1"),
        ({"hidden_dims": [8, 0]}, r"`hidden_dims` must be positive widths, got \[8, 0\]"),
        ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), got 1.0"),
        ({"num_attributes": None}, "`num_attributes` must be given for `query_kind` 'soft.hard'"),
        ({"schema": {"attributes": NAMES}}, "`num_attributes` must be .* of `schema`, 3, got 4"),
        ({"schema": {"names": NAMES}}, "`schema` must be `AttributeSchema.to_dict"),
        ({"margin_kind": "cosine"}, "`margin_kind` must be one of"),
        ({"margin": -0.1}, r"`margin` must lie in \[0, 2\) for 'additive', got -0.1"),
        ({"margin": math.pi, "margin_kind": "angular"}, r"`margin` must lie in \[0, 3.142\)"),
        ({"scale": 0.0}, "`scale` must be positive, got 0.0"),
        ({"attribute_encoding": "sum"}, "`attribute_encoding` must be one of .*, got 'sum'"),
        ({"attribute_encoding": "one_hot"}, "`schema` must be given for `attribute_encoding`"),
        ({"fusion_weight": -1.0}, "`fusion_weight` must not be negative, got -1.0"),
        ({"task_type": "RETRIEVAL"}, "Invalid task type"),
    ],
)
def test_errors_name_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ClearAdapterConfig(num_attributes=4), **changes)


def test_without_a_task_no_module_path_can_be_stored():
    assert ClearAdapterConfig(num_attributes=4, task_type=None).task_type == "FEATURE_EXTRACTION"


def test_choices_widen_the_attribute_half_alone(schema):
    config = ClearAdapterConfig(schema=schema, query_kind="hard", attribute_encoding="one_hot")
    assert config.num_attributes == 3
    assert config.slot_sizes("attribute_projection") == (6, 512)  # present and "no" of three flags
    assert replace(config, query_kind="soft").slot_sizes("attribute_projection")[1] == 0


@pytest.mark.parametrize("name", [None, "me/clear", "runs/peta", "."])
def test_names_that_show_nothing_stay(name):
    assert publishable_base(name) == name


def test_local_paths_are_cut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert publishable_base(str(tmp_path / "runs" / "peta")) == "runs/peta"
    assert publishable_base(str(tmp_path)) == "."
    (tmp_path / "elsewhere").mkdir()
    for outside in (tmp_path / "elsewhere", "/"):
        monkeypatch.chdir(outside)
        with pytest.warns(UserWarning, match="saved as 'peta': set `base_model_name_or_path`"):
            assert publishable_base(str(tmp_path / "runs" / "peta")) == "peta"


def test_saving_leaves_the_configuration_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ClearAdapterConfig(num_attributes=4, base_model_name_or_path=str(tmp_path / "base"))
    config.save_pretrained(tmp_path / "adapter")
    assert config.base_model_name_or_path == str(tmp_path / "base")
    assert str(tmp_path) not in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_the_tuner_takes_the_slots_and_nothing_of_the_same_name_inside():
    targets = ClearAdapterModel._check_target_module_exists
    config = ClearAdapterConfig(num_attributes=4)
    assert targets(config, "text_projection")
    assert not targets(config, "language_model.text_projection")
