"""What a published adapter costs and carries: its size, its base, evidence, encoding."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn import functional

from clear_par import peft_clear
from clear_par.adapter_config_clear import SLOT_INPUTS
from clear_par.attributes_clear import AttributeSchema
from clear_par.configuration_clear import ClearConfig
from clear_par.modeling_clear import ClearModel
from clear_par.peft_clear import (
    ClearAdapterConfig,
    active_adapter_config,
    save_adapter,
    search_scores,
    weights_fingerprint,
)
from clear_par.reporting.adapter import load_adapter

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def adapter(kind: str = "soft+hard", **changes) -> ClearAdapterConfig:
    fields = {"embed_dim": 8, "query_kind": kind, "num_attributes": 6}
    return ClearAdapterConfig(**{**fields, **changes})


def wrap(model: ClearModel, *args, **changes) -> PeftModel:
    return get_peft_model(model, adapter(*args, **changes)).eval()


@torch.no_grad()
def image_embeds(model, images) -> torch.Tensor:
    return model.get_image_features(pixel_values=images)


LARGEST = 8_000_000  # bytes of a published adapter


@pytest.mark.parametrize(("hidden_dims", "bytes_each"), [([], 4), ([512], 2)])
def test_an_adapter_of_the_papers_size_is_small(hidden_dims, bytes_each):
    """105 attributes on 2,048 features and GPT-2, in the types that `save_adapter` stores."""
    assert ClearConfig.preset("clear-base").feature_dim == 2048
    config = adapter(
        embed_dim=512, num_attributes=105, visual_dim=2048, text_dim=768, hidden_dims=hidden_dims
    )
    count = 0
    for slot in SLOT_INPUTS:
        in_features, out_features = config.slot_sizes(slot)
        projection = peft_clear.Projection([in_features, *hidden_dims, out_features], 0.0)
        count += sum(p.numel() for p in projection.parameters())
    assert 1_000_000 < count < LARGEST / bytes_each


def test_weights_that_half_precision_holds_are_stored_in_half_the_space(
    micro_model, make_micro_config, tmp_path, images
):
    model = wrap(micro_model, hidden_dims=[5])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "visual_projection" in name:
                parameter.copy_(parameter.half())
    expected = image_embeds(model, images)
    save_adapter(model, tmp_path, base="base")
    weights = load_file(tmp_path / "adapter_model.safetensors")
    for name, value in weights.items():
        is_half = "visual_projection" in name or not value.any()
        assert value.dtype == (torch.float16 if is_half else torch.float32), name
    for route in ("transformers", "PeftModel"):
        torch.manual_seed(0)
        again = ClearModel(make_micro_config()).eval()
        if route == "PeftModel":
            again = PeftModel.from_pretrained(again, tmp_path)
        else:
            again.load_adapter(str(tmp_path))
        assert {p.dtype for p in again.parameters()} == {torch.float32}
        assert torch.equal(image_embeds(again, images), expected)


def test_fingerprint_is_of_the_weights_of_the_base_alone(micro_model, tmp_path):
    expected = weights_fingerprint(micro_model)
    model = wrap(micro_model)
    assert weights_fingerprint(model) == weights_fingerprint(micro_model) == expected
    micro_model = model.unload()
    micro_model.save_pretrained(tmp_path)
    assert weights_fingerprint(ClearModel.from_pretrained(tmp_path)) == expected
    with torch.no_grad():
        micro_model.backbone.cross_fusion.local_norm.weight[0] += 1e-3
    assert weights_fingerprint(micro_model) != expected


@pytest.mark.parametrize("is_same", [True, False])
def test_an_adapter_trained_on_other_weights_is_warned_of(micro_model, tmp_path, recwarn, is_same):
    schema = AttributeSchema.from_names(micro_model.config.id2label.values())
    changes = {"schema": schema.to_dict(), "base_fingerprint": weights_fingerprint(micro_model)}
    model = wrap(micro_model, "hard", **changes)
    save_adapter(model, tmp_path, base="base")
    base, processor = model.unload(), SimpleNamespace(schema=schema, query_kind="soft")
    if not is_same:
        base.classifier.weight.data[0, 0] += 1
    recwarn.clear()
    load_adapter(base, processor, str(tmp_path))
    assert processor.query_kind == "hard"
    found = [w for w in recwarn if "was trained on other weights" in str(w.message)]
    assert len(found) == (0 if is_same else 1)


# ---- evidence beside the cosine -----------------------------------------------------------------


def test_search_adds_the_evidence_of_shared_attributes(micro_model, images):
    names = ["red", "unknown to the base", "hat"]
    schema = AttributeSchema.from_names(names)
    model = wrap(micro_model, "hard", num_attributes=3, schema=schema.to_dict(), scale=7.0)
    queries = np.array([[1, 0, -100], [-100, 1, -100], [0, -100, 1]])
    with torch.no_grad():
        output = model(pixel_values=images, query_attributes=torch.from_numpy(queries))
    asked = (model, output.query_embeds, output.image_embeds)
    cosines = (output.query_embeds @ output.image_embeds.T).numpy()
    np.testing.assert_array_equal(search_scores(*asked), cosines)
    active_adapter_config(model).fusion_weight = 3.0
    hat, red = (torch.sigmoid(output.logits[:, place]) for place in (0, 5))
    evidence = torch.stack([red.log(), torch.zeros(4), ((1 - red).log() + hat.log()) / 2])
    np.testing.assert_allclose(
        search_scores(*asked, queries, output.logits), 7 * cosines + 3 * evidence.numpy(), rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"`queries` and `logits` must be given: .* is 3\.0"):
        search_scores(*asked)


def test_one_hot_choices_are_read_from_the_same_queries(micro_model, tmp_path):
    schema = AttributeSchema.from_names(micro_model.config.id2label.values())
    changes = {"attribute_encoding": "one_hot", "schema": schema.to_dict()}
    model = wrap(micro_model, "hard", **changes)
    layer = micro_model.attribute_projection.retrieval_projections["default"].layers[0]
    assert layer.weight.shape == (8, 12)
    said = torch.tensor([[1, 0, -100, -100, 1, 0], [-100, -100, 1, 1, 0, -100], [0, 0, 0, 1, 1, 1]])
    one_hot = torch.cat([said == 1, said == 0], dim=1).float()
    with torch.no_grad():
        expected = functional.normalize(layer(one_hot), dim=-1)
        found = model.get_query_features(query_attributes=said)
        torch.testing.assert_close(found, expected)
        save_adapter(model, tmp_path, base="base")
        micro_model.load_adapter(str(tmp_path), "again")
        assert torch.equal(micro_model.get_query_features(query_attributes=said), found)
    with pytest.raises(ValueError, match=r"`query_attributes` must be \(batch, 6\)"):
        model.get_query_features(query_attributes=said[:, :5])
