"""Kept features: never stale, whole or absent, and the same training with and without them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file

from clear_par import train
from clear_par.training import feature_cache, retrieval, tensor_store
from clear_par.training.checkpoint import load_checkpoint
from clear_par.training.crops import Augmentation, PersonCrops
from clear_par.training.feature_cache import FrozenFeatures, cache_folder, images_fingerprint
from clear_par.training.feature_rows import CropRows, FeatureRows, views_of_epoch
from clear_par.training.fusion import choose_fusion_weight
from clear_par.training.settings import RECIPES
from clear_par.training.tensor_store import TensorStore


@pytest.fixture(scope="module")
def saved_base(tmp_path_factory) -> Path:
    """Filled by the first test that trains a base."""
    return tmp_path_factory.mktemp("base") / "base"


@pytest.fixture
def make_stage_settings(make_settings, saved_base):
    """Settings of retrieval runs of seconds on one micro base."""
    if not saved_base.is_dir():
        train.main(make_settings(epochs=1, output_dir=str(saved_base)))
    shutil.rmtree("run", ignore_errors=True)
    usual = {"stage": "retrieval", "checkpoint": str(saved_base), "query_kind": "hard"}
    usual["base_name"] = "base"

    def make(**changes):
        return make_settings(**{**usual, "embed_dim": 32, "hidden_dims": [16], **changes})

    return make


class Counted(FrozenFeatures):
    """Counts how often the backbone runs over a whole split."""

    runs = 0

    def _view(self, *args):
        before = feature_cache.predict

        def predict(*inputs):
            Counted.runs += 1
            return before(*inputs)

        feature_cache.predict = predict
        try:
            return super()._view(*args)
        finally:
            feature_cache.predict = before


@pytest.fixture
def frozen(make_stage_settings, tmp_path):
    """A function that computes two views of the training split; returns (features, runs)."""
    settings = make_stage_settings(cache_features=str(tmp_path / "kept"))
    base, processor = load_checkpoint(settings.checkpoint)
    accelerator, rows = Accelerator(), settings.load_rows("train")

    def compute(change=None, augmentation=None, rows=rows, **changes):
        Counted.runs = 0
        used = replace(settings, **changes)
        features = Counted(base, processor, used, accelerator)
        if change is not None:
            change(base, processor)
        augmentation = augmentation or Augmentation.from_settings(used)
        crops = PersonCrops(rows, processor, None, cache=False)
        return features.views(crops, augmentation, 2), Counted.runs

    compute.rows = rows
    return compute


# ---- the store ----------------------------------------------------------------------------------


def test_the_store_gives_back_what_it_keeps_under_the_same_key_alone(tmp_path):
    store, tensor = TensorStore(tmp_path / "kept", "features"), torch.randn(3, 4)
    assert store.load({"a": 1}) is None
    store.save({"a": 1, "b": [2.5, None]}, tensor, {"texts": ["x"]})
    found, notes = store.load({"b": [2.5, None], "a": 1})
    assert torch.equal(found, tensor)
    assert notes == {"texts": ["x"]}
    for other in ({"a": 1}, {"a": 2, "b": [2.5, None]}, {"a": 1, "b": [2.5, 0]}):
        assert store.load(other) is None
    assert TensorStore(tmp_path / "kept", "texts").load({"a": 1, "b": [2.5, None]}) is None


def test_a_file_under_a_wrong_name_or_damaged_is_not_read(tmp_path):
    store, key = TensorStore(tmp_path, "features"), {"a": 1}
    store.save({"a": 2}, torch.ones(2))
    shutil.copy(store.path({"a": 2}), store.path(key))  # as if two keys had one digest
    assert store.load(key) is None
    store.save(key, torch.ones(2))
    whole = store.path(key).read_bytes()
    for damaged in (whole[:-3], whole[:20], b"", b"not safetensors at all"):
        store.path(key).write_bytes(damaged)
        assert store.load(key) is None
    save_file({"tensor": torch.ones(2)}, store.path(key))  # without the key inside
    assert store.load(key) is None


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    store, key = TensorStore(tmp_path, "features"), {"a": 1}
    store.save(key, torch.ones(2))

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tensor_store, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        store.save(key, torch.zeros(2))
    assert torch.equal(store.load(key)[0], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == [store.path(key).name]


# ---- what a feature depends on ------------------------------------------------------------------


def test_kept_features_are_those_that_were_computed(frozen, tmp_path):
    features, runs = frozen()
    assert (features.shape[:2], runs) == ((2, 48), 2)
    again, runs = frozen()
    assert runs == 0
    assert torch.equal(again, features)
    assert not torch.allclose(features[0], features[1])
    files = list((tmp_path / "kept").iterdir())
    assert len(files) == 2
    with safe_open(files[0], framework="pt") as file:
        assert str(tmp_path) not in json.dumps(file.metadata())


def weights(base, processor):
    next(base.backbone.parameters()).data += 1e-4


def statistics(base, processor):
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]


def shape(base, processor):
    base.config.channel_attention_published_layout = True


@pytest.mark.parametrize(
    ("changes", "views"),
    [
        ({"change": weights}, 2),
        ({"change": statistics}, 2),
        ({"change": shape}, 2),
        ({"mixed_precision": "bf16"}, 2),
        ({"seed": 1}, 1),  # of the augmentation: the plain view does not depend on it
        ({"padding": 3}, 1),
        ({"jitter": 0.3}, 1),
        ({"erasing": 0.5}, 1),
        ({"randaugment": 1}, 1),
    ],
)
def test_what_changes_features_makes_them_anew(frozen, changes, views):
    frozen()
    assert frozen(**changes)[1] == views


def test_other_images_code_and_libraries_make_features_anew(frozen, monkeypatch):
    frozen()
    image = frozen.rows[7]["image"].copy()
    image.putpixel((3, 5), tuple(255 - value for value in image.getpixel((3, 5))))
    changed = frozen.rows.map(
        lambda row, index: {"image": image if index == 7 else row["image"]},
        with_indices=True,
        new_fingerprint="other",
    )
    assert frozen(rows=changed)[1] == 2
    assert frozen(rows=frozen.rows.select(range(47, -1, -1)))[1] == 2  # another order
    assert frozen()[1] == 0
    monkeypatch.setattr(feature_cache, "code_version", lambda: "changed")
    assert frozen()[1] == 2
    monkeypatch.setattr(feature_cache.timm, "__version__", "9")
    assert frozen()[1] == 2


def test_the_code_version_is_of_every_file_on_the_way(monkeypatch, tmp_path):
    version = feature_cache.code_version.__wrapped__
    for name in feature_cache.CODE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(feature_cache.ROOT / name, tmp_path / name)
    expected = version()
    monkeypatch.setattr(feature_cache, "ROOT", tmp_path)
    assert version() == expected
    for name in feature_cache.CODE:
        path = tmp_path / name
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert version() != expected, name
        path.write_bytes(before)


def test_images_are_known_by_their_content(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_bytes(f"content {number}".encode())

    def fingerprint() -> str:
        rows = datasets.Dataset.from_dict({"image": list(map(str, paths))})
        return images_fingerprint(rows.cast_column("image", datasets.Image()))

    expected = fingerprint()
    assert fingerprint() == expected
    paths[1].write_bytes(b"content 2")
    assert fingerprint() != expected


@pytest.mark.parametrize("setting", ["memory", "false"])
def test_nothing_is_kept_unless_asked_for(setting):
    assert cache_folder(setting) is None
    assert cache_folder("true").name == "clear_features"
    assert cache_folder("some/where") == Path("some/where")


# ---- training -----------------------------------------------------------------------------------


def test_views_are_drawn_anew_each_epoch_and_alike_for_both_kinds_of_rows():
    views = views_of_epoch(400, 4, seed=1, epoch=2)
    assert set(views) == {0, 1, 2, 3}
    assert np.array_equal(views, views_of_epoch(400, 4, 1, 2))
    assert not np.array_equal(views, views_of_epoch(400, 4, 1, 3))
    assert not np.array_equal(views, views_of_epoch(400, 4, 2, 2))
    assert views_of_epoch(3, 0, 1, 7).tolist() == [7, 7, 7]


def test_a_batch_of_features_is_its_rows():
    rows = FeatureRows(torch.randn(3, 20, 5), np.arange(20) % 7, seed=2)
    rows.epoch = 4
    batch = rows.__getitems__([3, 11, 0])
    for place, index in enumerate((3, 11, 0)):
        single = rows[index]
        assert torch.equal(batch["features"][place], single["features"])
        assert batch["categories"][place] == single["categories"]
    assert batch["index"].tolist() == [3, 11, 0]


@pytest.mark.parametrize("views", [1, 3])
def test_training_is_the_same_with_kept_features_and_with_the_backbone_in_every_step(
    make_stage_settings, tmp_path, views
):
    losses = {}
    kept = str(tmp_path / "kept")
    for number, cache_features in enumerate(["false", "memory", kept, kept]):
        history = train.main(
            make_stage_settings(
                cache_features=cache_features, feature_views=views, output_dir=f"run{number}"
            )
        )
        losses[number] = [epoch["loss"] for epoch in history]
        scores = [epoch["mean_average_precision"] for epoch in history]
        losses[number] += scores
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[1] == losses[2] == losses[3]


def test_without_kept_features_each_epoch_may_have_views_of_its_own(make_stage_settings):
    settings = make_stage_settings(cache_features="false", feature_views=0)
    stage = retrieval.RetrievalStage(settings, Accelerator())
    assert isinstance(stage.rows, CropRows)
    pixels = []
    for epoch in (1, 2, 1):
        stage.start_epoch(epoch)
        pixels.append(stage.rows[5]["pixel_values"])
    assert torch.equal(pixels[0], pixels[2])
    assert not torch.equal(pixels[0], pixels[1])
    with pytest.raises(ValueError, match=r"a new view in each epoch .* needs `cache_features`"):
        make_stage_settings(feature_views=0)


def test_training_changes_the_adapter_alone(make_stage_settings):
    stage = retrieval.RetrievalStage(make_stage_settings(), Accelerator())
    before = {n: v.clone() for n, v in stage.model.state_dict().items()}
    model, optimizer = stage.model.train(), torch.optim.SGD(stage.model.parameters(), 0.1)
    for batch in stage.loaders()[0]:
        stage.loss(model, batch).backward()
        optimizer.step()
    changed = {n for n, v in stage.model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed
    assert all(".retrieval_projections." in name for name in changed)
    assert changed == {n for n, p in stage.model.named_parameters() if p.requires_grad}


# ---- ASMR, fusion -------------------------------------------------------------------------------


def test_the_recipe_asmr_trains_its_encoders_with_its_loss(make_stage_settings):
    settings = make_stage_settings(**RECIPES["asmr"])
    stage = retrieval.RetrievalStage(settings, Accelerator())
    model = stage.model.eval()
    layers = stage.base.attribute_projection.retrieval_projections["default"].layers
    values = 105 + len(stage.schema.groups) + len(stage.schema.flags)
    assert [tuple(layer.weight.shape) for layer in layers] == [
        (512, values),
        (128, 512),
        (128, 128),
    ]
    layers = stage.base.visual_projection.retrieval_projections["default"].layers
    assert [layer.weight.shape[0] for layer in layers] == [512, 128, 128]
    batch = next(iter(stage.loaders()[0]))
    loss = stage.loss(model, batch)
    settings.semantic_weight = 0.0
    plain = stage.loss(model, batch)
    queries = model.get_query_features(**stage.category_queries)
    cosines = (queries @ queries.T).double()
    rows, total = stage.category_queries["query_attributes"], 0.0
    from clear_par.evidence_clear import choice_columns

    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    mean = sum(cosines[pair] for pair in pairs) / len(pairs)
    for i, j in pairs:
        differing = [c for c in choice_columns(stage.schema) if (rows[i, c] != rows[j, c]).any()]
        total += (cosines[i, j] - mean - torch.sigmoid(torch.tensor(1 - len(differing) / 10))) ** 2
    assert (loss - plain).item() == pytest.approx(4 * (total / len(pairs)).item(), rel=1e-3)
    settings.semantic_weight = 4.0
    stage.loss(model, batch).backward()
    assert model.group_weights.grad.abs().min() > 0
    assert stage.rate_scale("x.attribute_projection.y") == 15.0
    assert stage.rate_scale("x.visual_projection.y") == 1.0


def test_the_recipe_asmr_runs_and_its_weights_stay_out_of_the_file(make_stage_settings):
    train.main(make_stage_settings(**RECIPES["asmr"], epochs=1))
    stored = json.loads(Path("run/adapter_config.json").read_text())
    assert stored["attribute_encoding"] == "one_hot"
    assert stored["semantic_weight"] == 4.0
    with safe_open("run/adapter_model.safetensors", framework="pt") as file:
        assert all("retrieval_projections" in name for name in file.keys())  # noqa: SIM118


def test_recipes_are_options_of_the_command():
    settings = train.parse_settings(
        ["--stage", "retrieval", "--checkpoint", ".", "--recipe", "asmr", "--scale", "9"]
    )
    assert (settings.optimizer, settings.query_rate, settings.scale) == ("sgd", 15.0, 9.0)
    assert settings.hidden_dims == [512, 128]


def test_fusion_takes_the_weight_that_ranks_best():
    relevance = np.array([[True, False, False]])
    cosines, evidence = np.array([[0.0, 0.5, -1.0]]), np.array([[-1.0, -2.0, -9.0]])
    # 12 * 0.5 is made up for by a weight of 6 or more; the smallest that does is taken.
    exact = (cosines, evidence, relevance)
    assert choose_fusion_weight(exact, [exact], 12.5) == 8.0
    assert choose_fusion_weight((-cosines[:, ::-1], evidence, relevance), [], 12.0) == 0.0
    useless = (np.array([[1.0, 0.5, -1.0]]), evidence, relevance)
    assert choose_fusion_weight(useless, [useless], 12.0) == 0.0


def test_fusion_weight_is_chosen_on_validation_and_saved(make_stage_settings):
    train.main(make_stage_settings(epochs=1, fusion=True))
    stored = json.loads(Path("run/adapter_config.json").read_text())
    assert stored["fusion_weight"] in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
    stage = retrieval.RetrievalStage(make_stage_settings(), Accelerator())
    scores = []

    def note(exact, partial, scale):
        scores.append((exact, partial, scale))
        return 2.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "choose_fusion_weight", note)
        assert stage.fusion_weight() == 2.0
    ((exact, partial, scale),) = scores
    assert scale == 12.0
    assert exact[0].shape == exact[1].shape == exact[2].shape
    assert [len(task[2]) > 0 for task in partial] == [True] * 4
    assert all(task[2].any(axis=1).all() for task in partial)
