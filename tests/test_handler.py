"""The handler of Inference Endpoints: answers equal the model's own, and bad requests are named."""

import base64
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clear_par.attributes_clear import AttributeSchema
from clear_par.handler import EndpointHandler, from_bytes
from clear_par.modeling_clear import ClearModel
from clear_par.pipeline_clear import PersonRetrievalPipeline
from clear_par.processing_clear import ClearProcessor
from clear_par.reporting.retrieval_gallery import ADAPTER, FUSED, EvaluatedGallery


@pytest.fixture(scope="module")
def handler(gallery_model) -> EndpointHandler:
    return EndpointHandler(str(gallery_model))


@pytest.fixture(scope="module")
def crops() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 24, 3), dtype=np.uint8)
    return [Image.fromarray(crop) for crop in pixels]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def text(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


@pytest.fixture(scope="module")
def own(gallery_model) -> tuple[ClearModel, ClearProcessor]:
    """The same model, without the handler."""
    model = ClearModel.from_pretrained(gallery_model).eval()
    return model, ClearProcessor.from_pretrained(gallery_model, trust_remote_code=True)


def test_one_image_of_any_form_gets_the_models_probabilities(handler, own, crops):
    model, processor = own
    with torch.no_grad():
        logits = model(**processor(images=crops[0], return_tensors="pt")).logits[0]
    expected = dict(zip(processor.schema.attributes, logits.sigmoid().tolist(), strict=True))
    forms = [crops[0], png(crops[0]), text(crops[0])]
    forms += [f"data:image/png;base64,{text(crops[0])}"]
    for form in forms:
        answer = handler({"inputs": form})
        assert answer.keys() == expected.keys()
        for name, said in answer.items():
            is_present = expected[name] > 0.5
            likely = expected[name] if is_present else 1 - expected[name]
            assert said == {"value": is_present, "probability": pytest.approx(likely, abs=1e-5)}
    assert json.loads(json.dumps(answer)) == answer


def test_a_list_gets_a_list_and_batches_do_not_show(handler, crops):
    images = [text(crop) for crop in crops]
    alone = [handler({"inputs": image}) for image in images]
    for size in (1, 2, 5):
        answers = handler({"inputs": images, "parameters": {"batch_size": size}})
        assert len(answers) == 5
        for one, other in zip(alone, answers, strict=True):
            expected = {
                name: pytest.approx(said["probability"], abs=1e-5) for name, said in one.items()
            }
            assert {name: said["probability"] for name, said in other.items()} == expected
    assert isinstance(handler({"inputs": images[:1]}), list)


def test_the_threshold_decides_what_is_present(handler, crops):
    at = [handler({"inputs": crops[0], "parameters": {"threshold": t}}) for t in (0.0, 1.0)]
    assert {said["value"] for said in at[0].values()} == {True}
    assert {said["value"] for said in at[1].values()} == {False}


@pytest.mark.parametrize("name", ["peta", "other"])
def test_a_query_ranks_the_images_by_the_adapters_cosine(handler, own, gallery_model, crops, name):
    model, processor = own
    model.load_adapter(str(gallery_model / "adapters" / name), adapter_name=name)
    parameters = {} if name == "peta" else {"adapter": name}  # "peta" is the default
    for query in ({"hat": True, "red": False}, ["backpack", "red"], "hat"):
        with torch.no_grad():
            output = model(**processor(images=crops, queries=[query], return_tensors="pt"))
        cosines = (output.query_embeds @ output.image_embeds.T)[0]
        request = {"query": query, "images": [text(crop) for crop in crops]}
        hits = handler({"inputs": request, "parameters": parameters})
        assert [hit["index"] for hit in hits] == cosines.argsort(descending=True).tolist()
        scores = cosines.sort(descending=True).values.tolist()
        assert [hit["score"] for hit in hits] == pytest.approx(scores, abs=1e-5)
        assert handler({**request, "parameters": {**parameters, "top_k": 2}}) == hits[:2]


def test_two_adapters_rank_by_their_own_weights(handler, crops):
    request = {"query": ["hat"], "images": crops}
    answers = [handler({**request, "parameters": {"adapter": n}}) for n in ("peta", "other")]
    assert answers[0] != answers[1]
    assert handler({**request, "parameters": {"adapter": "peta"}}) == answers[0]


# ---- evidence of the classifier -----------------------------------------------------------------


@pytest.fixture(scope="module")
def fused(gallery_model, tmp_path_factory) -> EndpointHandler:
    """A handler whose adapter "peta" ranks with evidence, "other" without."""
    folder = tmp_path_factory.mktemp("fused") / "model"
    shutil.copytree(gallery_model, folder)
    settings = folder / "adapters/peta/adapter_config.json"
    names = ClearProcessor.from_pretrained(folder, trust_remote_code=True).schema.attributes
    schema = AttributeSchema.from_names(names).to_dict()
    changed = json.loads(settings.read_text()) | {"fusion_weight": 5.0, "schema": schema}
    settings.write_text(json.dumps(changed))
    handler = EndpointHandler(str(folder))
    torch.manual_seed(1)
    torch.nn.init.normal_(handler.model.classifier.weight)  # else the evidence changes no ranking
    return handler


def test_evidence_joins_the_cosine_where_the_adapter_has_a_weight(fused, crops):
    query = {"hat": True, "red": False}
    processor = fused.processors["peta"]
    fused.model.set_adapter("peta")
    with torch.no_grad():
        inputs = processor(images=crops, queries=[query], return_tensors="pt")
        output = fused.model(**inputs)
    cosines = (output.query_embeds @ output.image_embeds.T)[0].tolist()
    hat, red = (processor.schema.index(name) for name in ("hat", "red"))
    expected = [
        12.0 * cosine - 5.0 * (math.log1p(math.exp(-row[hat])) + math.log1p(math.exp(row[red]))) / 2
        for cosine, row in zip(cosines, output.logits.tolist(), strict=True)
    ]
    request = {"query": query, "images": crops}
    for scores, parameters in ((expected, {}), (cosines, {"evidence": False})):
        hits = fused({**request, "parameters": parameters})
        order = sorted(range(len(crops)), key=lambda index: -scores[index])
        assert [hit["index"] for hit in hits] == order
        assert [hit["score"] for hit in hits] == pytest.approx(
            [scores[index] for index in order], abs=1e-4
        )
    assert fused({**request, "parameters": {"evidence": True}}) == fused(request)
    assert [h["index"] for h in fused(request)] != [h["index"] for h in hits]
    plain = {"adapter": "other"}
    assert fused({**request, "parameters": plain | {"evidence": False}}) == fused(
        {**request, "parameters": plain}
    )


def test_the_backbone_sees_each_image_once(fused, crops):
    seen = []
    hook = fused.model.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    fused({"query": ["hat"], "images": crops, "parameters": {"batch_size": 2}})
    hook.remove()
    assert seen == [2, 2, 1]


PICTURE = Image.new("RGB", (8, 16))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (["a"], "must be a JSON object"),
        ({}, "must be images in base64, got NoneType"),
        ({"inputs": []}, "1 to 512 images, got 0"),
        ({"inputs": [PICTURE] * 513}, "1 to 512 images, got 513"),
        ({"inputs": "http://169.254.169.254/latest"}, "Addresses and paths are not opened"),
        ({"inputs": "https://example.org/a.jpg"}, "Addresses and paths are not opened"),
        ({"inputs": "/etc/passwd"}, "must be"),
        ({"inputs": "README.md"}, "Addresses and paths are not opened"),
        ({"inputs": "AAAA"}, "must be whole pictures"),
        ({"inputs": png(PICTURE)[:40]}, "must be whole pictures"),
        ({"inputs": 7}, "must be images in base64, got int"),
        ({"inputs": PICTURE, "parameters": {"treshold": 1}}, r"got \['treshold'\]"),
        ({"inputs": PICTURE, "parameters": {"top_k": 1}}, "must fit the task, got top_k"),
        ({"inputs": PICTURE, "parameters": {"threshold": 2}}, "`threshold` must be"),
        ({"inputs": PICTURE, "parameters": {"batch_size": 0}}, "`batch_size` must be a whole"),
        ({"inputs": {"query": "hat"}}, '"query" and "images"'),
        ({"inputs": {"images": [PICTURE]}}, '"query" and "images"'),
        ({"query": ["hat"], "images": PICTURE}, "`images` must be a list"),
        ({"query": ["hat"], "images": []}, "1 to 512 images, got 0"),
        ({"query": ["crown"], "images": [PICTURE]}, "crown"),
        (
            {"query": ["hat"], "images": [PICTURE], "parameters": {"adapter": "../x"}},
            r"`adapter` must be one of \['other', 'peta'\]",
        ),
        ({"inputs": PICTURE, "parameters": {"evidence": True}}, "must fit the task, got evidence"),
        (
            {"query": ["hat"], "images": [PICTURE], "parameters": {"evidence": 1}},
            "`evidence` must be true or false, got 1",
        ),
        (
            {"query": ["hat"], "images": [PICTURE], "parameters": {"top_k": True}},
            "`top_k` must be a whole number",
        ),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(handler, request_, message):
    with pytest.raises(ValueError, match=message):
        handler(request_)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(monkeypatch):
    data = png(Image.new("1", (8_000, 7_000)))
    assert len(data) < 100_000
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="at most 50,000,000 pixels"):
        from_bytes(data)
    with pytest.raises(ValueError, match="at most 20,000,000 bytes each"):
        from_bytes(bytes(20_000_001))


def test_an_adapters_repository_takes_its_base_from_the_hub(gallery_model, tmp_path, crops):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((gallery_model / "adapters" / "other" / name).read_bytes())
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(gallery_model)
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    hits = EndpointHandler(str(tmp_path))({"query": ["hat"], "images": crops})
    assert sorted(hit["index"] for hit in hits) == [0, 1, 2, 3, 4]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`path` must hold a CLEAR model or adapter"):
        EndpointHandler(str(tmp_path))


def test_a_model_without_adapters_says_so(handler, monkeypatch):
    monkeypatch.setattr(handler, "processors", {})
    with pytest.raises(ValueError, match="this repository has none"):
        handler({"query": ["hat"], "images": [PICTURE]})


@pytest.fixture(scope="module")
def default(repository) -> tuple[EndpointHandler, list[str]]:
    """A handler of the default checkpoint, and the sample crops."""
    paths = sorted((repository / "assets" / "samples").glob("*.jpg"))
    return EndpointHandler(str(repository)), list(map(str, paths))


@pytest.mark.slow
def test_the_default_checkpoint_recognises(default):
    handler, paths = default
    images = [base64.b64encode(Path(path).read_bytes()).decode() for path in paths]
    answers = handler({"inputs": images})
    assert len(answers) == len(paths) == 12
    for answer in answers:
        assert answer["gender"]["value"] in ("male", "female")
        assert all(0 <= said["probability"] <= 1 for said in answer.values())


@pytest.mark.slow
def test_handler_pipeline_and_evaluation_rank_the_samples_alike(default):
    handler, paths = default
    assert handler.model.peft_config["peta"].fusion_weight > 0
    query = "woman with a red top and a backpack"
    images = [Path(path).read_bytes() for path in paths]
    find = PersonRetrievalPipeline(model=handler.model, processor=handler.processor, device="cpu")
    row = np.array([find.processor.query_values(query)])
    with torch.no_grad():
        output = handler.model(**handler.processor(images=paths, return_tensors="pt"))
    labels = np.zeros(output.logits.shape, dtype=int)
    gallery = EvaluatedGallery.of(
        handler.model, find.processor, labels, output.logits, output.features
    )
    scorers = gallery.scorers(row)
    orders = []
    for name, evidence in ((FUSED, True), (ADAPTER, False)):
        scores = scorers[name](np.array([0]))[0]
        order = np.argsort(-scores, kind="stable").tolist()
        request = {"query": query, "images": images}
        ranked = handler({"inputs": request, "parameters": {"evidence": evidence}})
        for hits in (ranked, find(paths, query=query, evidence=evidence)):
            assert [hit["index"] for hit in hits] == order
            found = [hit["score"] for hit in hits]
            assert found == pytest.approx(scores[order].tolist(), abs=1e-4)
        orders.append(order)
    assert orders[0] != orders[1]
