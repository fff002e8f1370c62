"""The Space without a browser: what it recognises, finds, marks and writes down.

The model is the embedded default; what is expected comes from the public calls of the project.
"""

import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "space"
sys.path.insert(0, str(SPACE))  # the Space imports its own files by their plain names

import cards  # noqa: E402
import engine as engine_file  # noqa: E402
import find  # noqa: E402
import heatmap  # noqa: E402
import recognise  # noqa: E402
import uploads  # noqa: E402
from engine import Engine  # noqa: E402

SAMPLES = [str(ROOT / f"assets/samples/{number:05d}.jpg") for number in range(12)]
QUERY = {"gender": "female", "upper colour": "red", "backpack": True, "hat": False}
KINDS = ["soft+hard", "soft", "words", "hard"]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(ROOT)


@pytest.fixture(scope="module")
def crops(engine):
    return engine.read(uploads.read_crops(SAMPLES, []), keep_pixels=True)


@pytest.fixture(scope="module")
def plain():
    """Model and processor by the public calls, the adapter active."""
    model = AutoModel.from_pretrained(ROOT, trust_remote_code=True)
    model.load_adapter(str(ROOT / "adapters/peta"))
    return model, AutoProcessor.from_pretrained(ROOT, trust_remote_code=True)


# ---- the engine -------------------------------------------------------------------------------


@torch.no_grad()
def test_crops_are_recognised_and_embedded_as_by_the_public_calls(engine, crops, plain):
    model, processor = plain
    output = model(**processor(images=SAMPLES, return_tensors="pt"))
    torch.testing.assert_close(crops.logits, output.logits, rtol=1e-4, atol=1e-4)
    embeds = engine.embed_crops(crops, "peta")
    torch.testing.assert_close(embeds, output.image_embeds, rtol=1e-4, atol=1e-4)
    assert engine.embed_crops(crops, "peta") is embeds  # once


@torch.no_grad()
def test_queries_are_embedded_as_by_the_public_calls(engine, plain):
    model, processor = plain
    labels = processor.query_values(QUERY)
    expected = model.get_query_features(**processor(queries=[QUERY], return_tensors="pt"))[0]
    torch.testing.assert_close(engine.embed_query(labels, "peta", "soft+hard"), expected)


def test_each_half_of_a_query_is_its_half_alone(engine):
    labels = engine.schema.query_values(QUERY)
    whole = engine.embed_query(labels, "peta", "soft+hard")
    middle = len(whole) // 2
    assert engine.kinds("peta") == KINDS
    for kind, part, rest in (
        ("soft", slice(middle), slice(middle, None)),
        ("hard", slice(middle, None), slice(middle)),
    ):
        got = engine.embed_query(labels, "peta", kind)
        assert got.norm().item() == pytest.approx(1, abs=1e-5)
        assert not got[rest].any()
        torch.testing.assert_close(got[part], whole[part] / whole[part].norm())
    words = engine.embed_query(labels, "peta", "words")
    assert not torch.allclose(words, engine.embed_query(labels, "peta", "soft"), atol=1e-2)


def test_the_sentence_is_the_one_that_is_sent(engine, plain):
    _, processor = plain
    labels = processor.query_values(QUERY)
    assert engine.sentence(labels, "soft+hard") == processor.describe(QUERY)
    assert engine.sentence(labels, "words") == "gender female, upper colour red, backpack"
    assert engine.sentence(labels, "hard") == ""


def test_an_unset_model_is_the_enclosing_repository_and_never_the_hub(monkeypatch, tmp_path):
    monkeypatch.delenv("CLEAR_MODEL", raising=False)
    monkeypatch.setattr(engine_file, "snapshot_download", lambda _: pytest.fail("asked the Hub"))
    assert engine_file.model_folder() == ROOT
    monkeypatch.setenv("CLEAR_MODEL", str(tmp_path))
    assert engine_file.model_folder() == tmp_path
    monkeypatch.setattr(engine_file, "snapshot_download", lambda repo: f"/cache/{repo}")
    monkeypatch.setenv("CLEAR_MODEL", "me/clear")
    assert engine_file.model_folder() == Path("/cache/me/clear")
    monkeypatch.delenv("CLEAR_MODEL")
    monkeypatch.setattr(engine_file, "ENCLOSING", tmp_path)  # a pushed Space stands alone
    assert engine_file.model_folder() == Path("/cache", engine_file.HUB_ID)


def test_no_image_at_all_gets_a_message(engine):
    with pytest.raises(uploads.UploadError, match="no image among the files"):
        engine.read([])


def test_files_without_an_image_get_their_own_messages(engine, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"Dear sir")
    paths = [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    with pytest.raises(uploads.UploadError, match=r"^a.jpg is no JPEG.* b.jpg is no JPEG"):
        engine.read_files(paths, 9)
    crops, problems = engine.read_files([*paths, *SAMPLES[:3]], 2)
    assert crops.names == ["00000.jpg", "00001.jpg"]
    assert [problem.split()[0] for problem in problems] == ["Only", "a.jpg", "b.jpg"]


def test_large_images_are_read_a_few_at_a_time(engine, crops, monkeypatch):
    sizes, features = [], engine._features
    monkeypatch.setattr(
        engine,
        "_features",
        lambda images, kept: sizes.append(len(images)) or features(images, kept),
    )
    area = engine_file.area(uploads.open_crop(SAMPLES[0]))
    monkeypatch.setattr(engine_file, "BATCH_PIXELS", 4 * area)
    read = engine.read(uploads.read_crops(SAMPLES, []))
    assert sizes == [4, 4, 4]
    torch.testing.assert_close(read.features, crops.features, rtol=1e-4, atol=1e-4)
    tensors = read.features.numel() + read.logits.numel()
    assert read.size == 4 * tensors + sum(map(len, read.thumbnails))


# ---- recognition ------------------------------------------------------------------------------


def test_every_attribute_has_its_place_and_its_probability(engine, crops):
    logits, schema = crops.logits[3], engine.schema
    (decoded,) = engine.decode(logits, 0.5)
    found = recognise.findings(schema, logits, engine.thresholds(0.5), decoded)
    order = ["gender", "age", "hair", "upper", "lower", "footwear", "accessories", "carried"]
    assert list(found) == order
    names = [finding.name for section in found.values() for finding in section]
    assert sorted(names) == sorted(e.name for e in (*schema.groups, *schema.flags))
    chance = dict(zip(schema.attributes, torch.sigmoid(logits).tolist(), strict=True))
    for finding in (f for section in found.values() for f in section):
        first = finding.bars[0]
        if finding.is_choice:
            assert (first.name, pytest.approx(first.probability)) == decoded[finding.name]
            assert [bar.is_said for bar in finding.bars] == [True] + [False] * len(finding.bars[1:])
        else:
            (flag,) = (f for f in schema.flags if f.name == finding.name)
            assert first.probability == pytest.approx(chance[flag.attribute], abs=1e-6)
            assert first.is_said == (chance[flag.attribute] > 0.5)


def test_the_threshold_moves_what_is_said(engine, crops):
    def said(threshold):
        decoded = engine.decode(crops.logits, threshold)
        limits = engine.thresholds(threshold)
        return sum(
            finding.bars[0].is_said
            for logits, one in zip(crops.logits, decoded, strict=True)
            for section in recognise.findings(engine.schema, logits, limits, one).values()
            for finding in section
            if not finding.is_choice
        )

    assert said(0.05) > said(0.5) > said(0.95)


def test_calibrated_thresholds_are_the_default(engine, crops, monkeypatch):
    hat, backpack = (engine.schema.index(n) for n in ("accessoryHat", "carryingBackpack"))
    calibration = {"thresholds": {"accessoryHat": 0.0}, "criterion": "F1", "data": "here"}
    monkeypatch.setattr(engine.processor, "calibration", calibration)
    assert engine.is_calibrated
    limits = engine.thresholds(None)
    assert (limits[hat], limits[backpack]) == (0.0, 0.5)
    assert all(one["hat"][0] for one in engine.decode(crops.logits, None))
    assert engine.thresholds(0.3)[hat] == 0.3


def test_downloads_hold_every_crop_and_attribute(engine, crops):
    decoded = engine.decode(crops.logits, None)
    table = recognise.rows(engine.schema, crops.names, decoded)
    read = list(csv.DictReader(io.StringIO(recognise.to_csv(table))))
    assert len(read) == 12 * (len(engine.schema.groups) + len(engine.schema.flags))
    row = next(r for r in read if (r["crop"], r["attribute"]) == ("00007.jpg", "upper colour"))
    value, probability = decoded[7]["upper colour"]
    assert (row["value"], float(row["probability"])) == (
        value,
        pytest.approx(probability, abs=1e-4),
    )
    stored = json.loads(recognise.to_json(engine.schema, crops.names, crops.logits, decoded))
    assert [one["crop"] for one in stored] == crops.names
    chance = torch.sigmoid(crops.logits[7, engine.schema.index("accessoryHat")]).item()
    assert stored[7]["probabilities"]["accessoryHat"] == pytest.approx(chance, abs=1e-4)
    assert stored[7]["decisions"]["upper colour"]["value"] == value


@pytest.mark.parametrize("name", ["=1+1.jpg", "+1.jpg", "-1.jpg", "@a.jpg", "\t=1.jpg"])
def test_a_file_name_is_no_formula_of_a_spreadsheet(name):
    row = {"crop": name, "section": "a", "attribute": "b", "value": "c", "probability": 1}
    (read,) = csv.DictReader(io.StringIO(recognise.to_csv([row])))
    assert read == row | {"crop": f"'{name}", "probability": "1"}
    (plain,) = csv.DictReader(io.StringIO(recognise.to_csv([row | {"crop": "a=b.jpg"}])))
    assert plain["crop"] == "a=b.jpg"


def test_no_file_name_begins_a_row_of_its_own():
    row = {"crop": "a\r=1+1.jpg", "value": "c"}
    assert recognise.to_csv([row]) == "crop,value\na =1+1.jpg,c\n"


# ---- heat maps --------------------------------------------------------------------------------


def test_a_heat_map_adds_up_to_what_the_crop_changes(engine, crops):
    """Completeness: the sum is the logit less that of a crop of one colour, but for the steps."""
    errors, sizes = [], []
    for index in range(4):
        pixels = crops.pixel_values[index : index + 1]
        blank = pixels.mean((2, 3), keepdim=True).expand_as(pixels)
        with torch.no_grad():
            change = (engine.model(pixels).logits - engine.model(blank).logits)[0]
        place = change.abs().argmax().item()
        total = heatmap.attribute_map(engine.model, pixels, place).sum().item()
        errors.append(abs(total - change[place].item()))
        sizes.append(abs(change[place].item()))
    assert sum(errors) < 0.35 * sum(sizes)


def blank_cells(pixels: torch.Tensor, places, side: int) -> torch.Tensor:
    columns = pixels.shape[3] // side
    blanked = pixels.clone()
    for place in places:
        rows = slice(place // columns * side, (place // columns + 1) * side)
        span = slice(place % columns * side, (place % columns + 1) * side)
        blanked[:, :, rows, span] = pixels.mean((2, 3), keepdim=True)
    return blanked


def test_blanking_what_is_marked_lowers_the_logit_more_than_blanking_elsewhere(engine, crops):
    """An eighth of each crop, for its two surest attributes, against the mean of random eighths."""
    rng, marked, elsewhere = np.random.default_rng(0), [], []
    side = crops.pixel_values.shape[3] // heatmap.CELL_SHARE
    for index in range(0, 12, 3):
        pixels = crops.pixel_values[index : index + 1]
        for place in crops.logits[index].topk(2).indices.tolist():
            heat = heatmap.cells(heatmap.attribute_map(engine.model, pixels, place)).flatten()
            count = len(heat) // 8
            chosen = [heat.topk(count).indices.tolist()]
            chosen += [rng.choice(len(heat), count, replace=False) for _ in range(4)]
            batch = torch.cat([blank_cells(pixels, cells, side) for cells in chosen])
            with torch.no_grad():
                drops = crops.logits[index, place] - engine.model(batch).logits[:, place]
            marked.append(drops[0].item())
            elsewhere.append(drops[1:].mean().item())
    assert np.mean(marked) > 2 * abs(np.mean(elsewhere)) + 0.2
    assert np.mean(np.array(marked) > np.array(elsewhere)) > 0.8


def test_a_heat_map_is_drawn_over_the_crop(engine, crops):
    values = torch.zeros(crops.pixel_values.shape[2:])
    values[:32] = 1.0
    drawn = uploads.open_crop(heatmap.blend(crops.image(0), values))
    crop = np.asarray(crops.image(0).convert("L"), dtype=float)
    assert drawn.size == crops.image(0).size
    red, green, blue = np.asarray(drawn, dtype=float).transpose(2, 0, 1)
    assert (red - blue)[:40].mean() > 80  # warm at the top
    assert np.abs(red - blue)[-80:].mean() < 6  # grey below
    assert np.corrcoef(green[-80:].ravel(), crop[-80:].ravel())[0, 1] > 0.99


# ---- retrieval --------------------------------------------------------------------------------


def test_the_form_says_what_is_chosen(engine):
    chosen = {"gender": "female", "upper colour": ["red"], "age": None, "lower colour": []}
    query = find.build_query(engine.schema, chosen, ["backpack"], ["hat"])
    expected = engine.schema.query_values(QUERY)
    assert engine.schema.query_values(query) == expected
    with pytest.raises(ValueError, match="hat cannot be both with and without"):
        find.build_query(engine.schema, {}, ["hat"], ["hat"])


def test_text_is_read_and_what_means_nothing_is_named(engine):
    query, unknown = find.read_text(engine.schema, "a tall woman with a red top")
    assert engine.schema.query_values(query) == engine.schema.query_values(
        {"gender": "female", "upper colour": "red"}
    )
    assert unknown == ("tall",)


def test_the_ranking_is_by_score_without_the_question():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.9])
    assert [i for i, _ in find.ranking(scores, 3)] == [1, 3, 2]
    assert [i for i, _ in find.ranking(scores, 9, without=1)] == [3, 2, 0]


def test_agreement_is_the_classifiers(engine, crops):
    decoded = engine.decode(crops.logits, 0.5)
    for one, logits in zip(decoded, crops.logits, strict=True):
        told = {
            label: (p, ok) for label, p, ok in find.agreement(engine.schema, QUERY, one, logits)
        }
        assert list(told) == ["female", "upper red", "backpack", "no hat"]
        assert told["female"][1] == (one["gender"][0] == "female")
        hat = torch.sigmoid(logits[engine.schema.index("accessoryHat")]).item()
        assert told["no hat"] == (pytest.approx(1 - hat, abs=1e-6), hat <= 0.5)
        backpack = torch.sigmoid(logits[engine.schema.index("carryingBackpack")]).item()
        assert told["backpack"] == (pytest.approx(backpack, abs=1e-6), backpack > 0.5)
        red = torch.sigmoid(logits[engine.schema.index("upperBodyRed")]).item()
        assert told["upper red"][0] == pytest.approx(red, abs=1e-6)


@torch.no_grad()
def test_the_score_is_the_cosine_and_the_classifiers_evidence(engine, crops):
    """By hand: a choice of two is a soft-max, a flag a sigmoid, evidence the mean of logarithms."""
    query = {"gender": "female", "backpack": True, "hat": False}
    labels = engine.schema.query_values(query)
    embed = engine.embed_query(labels, "peta", "soft+hard")
    cosines = engine.embed_crops(crops, "peta") @ embed
    male, female, backpack, hat = (
        crops.logits[:, engine.schema.index(name)]
        for name in ("personalMale", "personalFemale", "carryingBackpack", "accessoryHat")
    )
    told = torch.stack(
        [torch.sigmoid(female - male), torch.sigmoid(backpack), 1 - torch.sigmoid(hat)]
    )
    config = json.loads((ROOT / "adapters/peta/adapter_config.json").read_text())
    expected = config["scale"] * cosines + config["fusion_weight"] * told.log().mean(0)
    assert config["fusion_weight"] > 0
    got = engine.scores(labels, embed, crops, "peta", True)
    torch.testing.assert_close(got.float(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(engine.scores(labels, embed, crops, "peta", False), cosines)


def test_an_adapter_without_a_weight_ranks_by_the_cosine(engine, crops, monkeypatch):
    labels = engine.schema.query_values(QUERY)
    embed = engine.embed_query(labels, "peta", "soft+hard")
    cosines = engine.scores(labels, embed, crops, "peta", False)
    unweighed = {k: v for k, v in engine.adapters["peta"].items() if k != "fusion_weight"}
    monkeypatch.setitem(engine.adapters, "peta", unweighed)
    assert torch.equal(engine.scores(labels, embed, crops, "peta", True), cosines)


# ---- the page ---------------------------------------------------------------------------------


def test_names_of_files_are_text_and_nothing_else(crops):
    evil = "<img src=x onerror=alert(1)>{{value}}${value}`.jpg"
    hit = find.Hit(0, 0.5, ((evil, 0.5, True),))
    pages = [
        cards.strip([evil], crops.thumbnails[:1]),
        cards.person(evil, crops.thumbnails[0], evil, (evil, crops.thumbnails[0])),
        cards.results([hit], [evil], crops.thumbnails[:1]),
        cards.query_box(evil, evil, [evil]),
        cards.note(evil),
    ]
    for page in pages:
        assert "onerror=alert(1)&gt;" in page
        assert not re.search(r"<img src=x|[{}$`]", page)


def test_nothing_is_called_certain():
    assert [cards.percent(p) for p in (0.0, 0.004, 0.5, 0.996, 1.0)] == "1% 1% 50% 99% 99%".split()


def test_the_space_is_complete_in_itself():
    """Only its own files, the libraries of its requirements, and the model repository."""
    own = {path.stem for path in SPACE.glob("*.py")}
    allowed = own | {"gradio", "huggingface_hub", "numpy", "PIL", "torch", "transformers"}
    for path in SPACE.glob("*.py"):
        found = re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)
        roots = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names)
        assert roots <= allowed, path.name
    text = "".join(path.read_text() for path in SPACE.glob("*.[pc]*[ys]*"))
    assert "clear_par" not in text
    assert not re.search(r"https?://", text.replace("http://127.0.0.1", ""))


def test_the_card_of_the_space_is_what_the_hub_reads():
    import yaml

    front = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert front["models"] == [engine_file.HUB_ID]
    wanted = (SPACE / "requirements.txt").read_text()
    assert f"gradio>={front['sdk_version'].rsplit('.', 1)[0]}" in wanted
