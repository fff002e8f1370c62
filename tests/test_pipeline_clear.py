"""The pipelines, as users start them: by task and folder or Hub id, in a fresh process too."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

from clear_par.adapter_config_clear import ClearAdapterConfig
from clear_par.attributes_clear import AttributeSchema
from clear_par.configuration_clear import CUSTOM_PIPELINES
from clear_par.modeling_clear import ClearModel
from clear_par.peft_clear import active_adapter_config, save_adapter, search_scores
from clear_par.pipeline_clear import PersonAttributePipeline, PersonRetrievalPipeline
from clear_par.processing_clear import ClearProcessor

NAMES = ["hat", "glasses", "backpack", "female", "skirt", "red"]
RECOGNISE, FIND = CUSTOM_PIPELINES
REVISION = "0123456789abcdef" * 2 + "01234567"
QUERY = {"hat": True, "backpack": True}
FRESH = """
import json, sys
from transformers import pipeline
source, saved, *images = sys.argv[1:]
trust = {"model": source, "trust_remote_code": True}
recognise = pipeline("person-attribute-recognition", **trust)
find = pipeline("person-attribute-retrieval", **trust)
found = find(images, query={"hat": True, "backpack": True})
recognise.save_pretrained(saved)
again = pipeline("person-attribute-recognition", model=saved, trust_remote_code=True)
print(json.dumps([recognise(images), found, again(images[0])]))
"""


@pytest.fixture(scope="module")
def saved(make_micro_config, make_tokenizer, tmp_path_factory) -> Path:
    """A micro checkpoint with adapters/peta, made as a training run makes it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    schema = AttributeSchema.from_names(NAMES)
    model = ClearModel(make_micro_config())
    torch.nn.init.normal_(model.classifier.weight, std=0.5)  # else all is close to one half
    model.save_pretrained(folder)
    tokenizer = make_tokenizer("a person with and , .", " ".join(NAMES))
    ClearProcessor.for_schema(schema, 32, 32, tokenizer).save_pretrained(folder)
    adapted = get_peft_model(model, ClearAdapterConfig(embed_dim=16, schema=schema))
    save_adapter(adapted, folder / "adapters" / "peta", ".")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[str]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (60, 30, 3), dtype=np.uint8)).save(path)
    return list(map(str, paths))


@pytest.fixture(scope="module")
def loaded(saved):
    """Model with its adapter and processor, by the public calls."""
    model = AutoModel.from_pretrained(saved, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(saved, trust_remote_code=True)
    model.load_adapter(str(saved / "adapters/peta"))
    return model, processor


@pytest.fixture(scope="module")
def recognise(loaded):
    model, processor = loaded
    return PersonAttributePipeline(model=model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def find(loaded):
    model, processor = loaded
    return PersonRetrievalPipeline(model=model, processor=processor, device="cpu")


@torch.no_grad()
def expected_ranking(loaded, images, query) -> list[tuple[int, float]]:
    model, processor = loaded
    image_embeds = model.get_image_features(**processor(images=images, return_tensors="pt"))
    query_embeds = model.get_query_features(**processor(queries=[query], return_tensors="pt"))
    scores = (image_embeds @ query_embeds[0]).tolist()
    return sorted(enumerate(scores), key=lambda item: -item[1])


def assert_same_names(got: dict, expected: dict) -> None:
    assert got.keys() == expected.keys()
    for name, (value, probability) in expected.items():
        assert got[name][0] == value
        assert got[name][1] == pytest.approx(probability, abs=1e-5)


# ---- recognition ------------------------------------------------------------------------------


def test_recognition_names_what_the_model_and_the_processor_say(recognise, loaded, images):
    model, processor = loaded
    with torch.no_grad():
        logits = model(**processor(images=images, return_tensors="pt")).logits
    expected = processor.decode(logits)
    assert len({name["hat"] for name in expected}) > 1  # the crops differ
    for got in (recognise(images), recognise(images, batch_size=3)):
        assert len(got) == 5
        for names, wanted in zip(got, expected, strict=True):
            assert_same_names(names, wanted)
    assert_same_names(recognise(Image.open(images[2])), expected[2])


def test_the_threshold_decides_about_flags(recognise, images):
    assert not any(there for there, _ in recognise(images[0], threshold=1.0).values())
    assert all(there for there, _ in recognise(images[0], threshold=0.0).values())


def test_unknown_arguments_are_refused(recognise, find, images):
    with pytest.raises(TypeError, match="must be threshold or those of Pipeline, got treshold"):
        recognise(images[0], treshold=0.3)
    with pytest.raises(TypeError, match=r"must be query, .*, adapter or those of .* got topk"):
        find(images, query=QUERY, topk=3)


# ---- retrieval --------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [QUERY, "a person with a backpack", {"hat": False, "red": True}])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_retrieval_ranks_by_the_cosine(find, loaded, images, query, batch_size):
    got = find(images, query=query, batch_size=batch_size)
    expected = expected_ranking(loaded, images, query)
    assert [hit["index"] for hit in got] == [index for index, _ in expected]
    assert [hit["score"] for hit in got] == pytest.approx([s for _, s in expected], abs=1e-5)
    assert [hit["image"] for hit in got] == [images[index] for index, _ in expected]


def test_evidence_joins_the_cosine_as_the_adapter_says(find, loaded, images, monkeypatch):
    model, processor = loaded
    monkeypatch.setattr(active_adapter_config(find.model), "fusion_weight", 20.0)
    queries = [{"hat": False, "red": True}, "a person with a backpack"]
    with torch.no_grad():
        output = model(**processor(images=images, queries=queries, return_tensors="pt"))
    rows = np.array([[0, -100, -100, -100, -100, 1], [-100, -100, 1, -100, -100, -100]])
    expected = search_scores(
        model, output.query_embeds, output.image_embeds, rows, output.logits
    ).tolist()
    plain = [expected_ranking(loaded, images, query) for query in queries]
    for batch_size in (1, 3):
        found = find(images, query=queries, batch_size=batch_size)
        for hits, scores in zip(found, expected, strict=True):
            wanted = sorted(enumerate(scores), key=lambda item: -item[1])
            assert [hit["index"] for hit in hits] == [index for index, _ in wanted]
            assert [hit["score"] for hit in hits] == pytest.approx([s for _, s in wanted], abs=1e-4)
    off = find(images, query=queries, evidence=False)
    assert [[h["index"] for h in hits] for hits in off] == [[i for i, _ in r] for r in plain]
    assert [[h["index"] for h in hits] for hits in off] != [
        [h["index"] for h in hits] for hits in found
    ]


def test_the_backbone_sees_each_image_once(find, images):
    seen = []
    hook = find.model.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    find(images, query=QUERY, batch_size=2)
    hook.remove()
    assert seen == [2, 2, 1]


def test_several_queries_give_several_rankings_cut_to_the_best(find, images):
    queries = [QUERY, ["red"], "a person with a skirt"]
    got = find(images, query=queries, top_k=2)
    for ranking, query in zip(got, queries, strict=True):
        whole = find(images, query=[query])[0]
        assert [hit["index"] for hit in ranking] == [hit["index"] for hit in whole[:2]]


def test_equal_crops_keep_their_order(find, images):
    got = find([images[1], images[0], images[1], images[1]], query=QUERY)
    same = [hit["index"] for hit in got if hit["index"] != 1]
    assert same == [0, 2, 3]


@pytest.mark.parametrize(
    ("inputs", "arguments", "message"),
    [
        (["x"], {}, "`query` must be a dict, free text"),
        ([], {"query": QUERY}, "`inputs` must be a list of images"),
        ("x.png", {"query": QUERY}, "`inputs` must be a list of images"),
        (["x.png"], {"query": []}, r"`query` must be .* got \[\]"),
        (["x.png"], {"query": 5}, "`query` must be .* got 5"),
        (["x.png"], {"query": QUERY, "top_k": 0}, "`top_k` must be positive, got 0"),
        (["x.png"], {"query": QUERY, "evidence": "false"}, "`evidence` must be True or False"),
        (["x.png"], {"query": {"sword": True}}, "got 'sword'"),
        (["no-such-file.png"], {"query": QUERY}, "no-such-file.png"),
    ],
)
def test_what_cannot_be_searched_is_named(find, inputs, arguments, message):
    with pytest.raises(ValueError, match=message):
        find(inputs, **arguments)


def test_the_adapter_of_the_repository_is_loaded_and_the_processor_left_alone(saved, loaded):
    base = AutoModel.from_pretrained(saved, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(saved, trust_remote_code=True, query_kind="words")
    made = PersonRetrievalPipeline(
        model=base, processor=processor, adapter="adapters/peta", device="cpu"
    )
    assert made.model.is_retrieval_ready
    assert (made.processor.query_kind, processor.query_kind) == ("soft+hard", "words")
    with pytest.raises(ValueError, match=r"`adapter` must be a retrieval adapter of .*, got 'adap"):
        PersonRetrievalPipeline(model=base, processor=processor, adapter="adapters/none")


def test_queries_are_in_the_words_of_the_adapter(saved, loaded, images, tmp_path):
    _, processor = loaded
    schema = AttributeSchema.from_names(["coat", *NAMES[:2]])
    base = AutoModel.from_pretrained(saved, trust_remote_code=True)
    config = ClearAdapterConfig(embed_dim=16, schema=schema, query_kind="hard")
    save_adapter(get_peft_model(base, config), tmp_path / "coats", ".")
    made = PersonRetrievalPipeline(
        model=AutoModel.from_pretrained(saved, trust_remote_code=True),
        processor=processor,
        adapter=str(tmp_path / "coats"),
        device="cpu",
    )
    assert len(made(images, query={"coat": True})) == len(images)
    with pytest.raises(ValueError, match="skirt"):
        made(images, query={"skirt": True})
    assert processor.schema.attributes == tuple(NAMES)


# ---- by task, in a fresh process --------------------------------------------------------------


def test_every_saved_model_names_the_pipelines_and_brings_their_code(saved, repository):
    for folder in (saved, repository):
        stored = json.loads((folder / "config.json").read_text())["custom_pipelines"]
        assert stored == CUSTOM_PIPELINES
    code = (repository / "pipeline_clear.py").read_text()
    assert (saved / "pipeline_clear.py").read_text() == code


def test_in_this_process_by_task(saved, images, loaded):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find = pipeline(FIND, model=str(saved), trust_remote_code=True, device="cpu")
    expected = expected_ranking(loaded, images, QUERY)
    assert [hit["index"] for hit in find(images, query=QUERY)] == [i for i, _ in expected]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "hub"])
def test_in_a_fresh_process_offline_and_after_saving(saved, images, loaded, tmp_path, place):
    cache = tmp_path / "hub" / "models--me--clear"
    shutil.copytree(saved, cache / "snapshots" / REVISION)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(REVISION)
    variables = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_MODULES_CACHE": str(tmp_path / "code")}
    source = str(saved) if place == "folder" else "me/clear"
    finished = subprocess.run(
        [sys.executable, "-c", FRESH, source, str(tmp_path / "saved"), *images],
        cwd=tmp_path,
        env={**os.environ, **variables, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    names, found, again = json.loads(finished.stdout.splitlines()[-1])
    model, processor = loaded
    with torch.no_grad():
        logits = model(**processor(images=images, return_tensors="pt")).logits
    for got, wanted in zip(names, processor.decode(logits), strict=True):
        assert_same_names(got, wanted)
    assert_same_names(again, processor.decode(logits)[0])
    assert [hit["index"] for hit in found] == [
        index for index, _ in expected_ranking(loaded, images, QUERY)
    ]
