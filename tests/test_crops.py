import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts.person_dataset import person_features
from clear_par.processing_clear import ClearProcessor
from clear_par.training.crops import Augmentation, PersonCrops, labels_of, positive_ratios

SCHEMA = AttributeSchema.from_names(["hat", "glasses", "backpack"])
LABELS = [[1, 0, -100], [0, 0, -100], [1, 1, -100], [-100, 1, -100], [0, 1, -100]]
MODES = ["RGB", "L", "RGBA", "RGB", "P"]
SIZES = [(20, 50), (32, 64), (7, 9), (300, 200), (1, 1)]


def picture(index: int) -> Image.Image:
    width, height = SIZES[index]
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(MODES[index])


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    records = [
        {
            "image": picture(index),
            "labels": labels,
            "person_id": index,
            "camera": -1,
            "image_name": f"{index}.png",
            "category_id": index,
        }
        for index, labels in enumerate(LABELS)
    ]
    return datasets.Dataset.from_list(records, features=person_features(SCHEMA))


@pytest.fixture(scope="module")
def processor() -> ClearProcessor:
    return ClearProcessor.for_schema(SCHEMA, 64, 32, query_kind="hard")


@pytest.fixture
def crop() -> np.ndarray:
    """No black pixel, and every pixel another colour: (24, 16, 3)."""
    red = np.arange(1, 24 * 16 + 1).reshape(24, 16)
    return np.stack([red % 251 + 1, red // 251 + 1, 255 - red % 101], axis=-1).astype(np.uint8)


# ---- augmentation -----------------------------------------------------------------------------

PLAIN = {"padding": 0, "jitter": 0.0, "erasing": 0.0}


@pytest.mark.parametrize("change", [{"padding": 5}, {"jitter": 0.5}, {"erasing": 1.0}, {}])
def test_augmentation_keeps_shape_and_type(crop, change):
    for index in range(20):
        changed = Augmentation(**{**PLAIN, **change})(crop, 1, index)
        assert changed.shape == crop.shape
        assert changed.dtype == np.uint8


def test_augmentation_is_a_function_of_seed_epoch_and_index(crop):
    places = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in range(3)]
    first = {p: Augmentation(p[0])(crop, *p[1:]) for p in places}
    again = {p: Augmentation(p[0])(crop, *p[1:]) for p in reversed(places)}
    assert all(np.array_equal(first[place], again[place]) for place in places)
    assert len({image.tobytes() for image in first.values()}) == len(places)


def test_augmentation_leaves_its_input_alone(crop):
    before = crop.copy()
    for index in range(20):
        Augmentation(erasing=1.0, padding=0)(crop, 0, index)
    assert np.array_equal(crop, before)


def test_flip_alone_is_one_of_two_images(crop):
    flips = 0
    for index in range(400):
        changed = Augmentation(**PLAIN)(crop, 0, index)
        is_flipped = np.array_equal(changed, crop[:, ::-1])
        assert is_flipped or np.array_equal(changed, crop)
        flips += is_flipped
    assert 160 <= flips <= 240  # 200 +- 4 standard deviations


def moved(crop: np.ndarray, down: int, right: int) -> np.ndarray:
    """The crop moved over black, pixel by pixel."""
    height, width, _ = crop.shape
    result = np.zeros_like(crop)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[y, x] = crop[y - down, x - right]
    return result


def test_shift_moves_by_at_most_the_padding_over_black(crop):
    steps = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    expected = {step: moved(crop, *step) for step in steps}
    mirrored = {step: image[:, ::-1] for step, image in expected.items()}
    seen = set()
    for index in range(300):
        changed = Augmentation(**{**PLAIN, "padding": 2})(crop, 0, index)
        found = [
            step
            for step in steps
            if np.array_equal(changed, expected[step]) or np.array_equal(changed, mirrored[step])
        ]
        assert len(found) == 1
        seen.update(found)
    assert seen == set(steps)


def test_erasing_fills_one_rectangle_anywhere_with_one_colour(crop):
    shares, touched = [], np.zeros(crop.shape[:2], dtype=bool)
    for index in range(800):
        changed = Augmentation(**{**PLAIN, "erasing": 1.0})(crop, 0, index)
        both = [(source != changed).any(axis=-1) for source in (crop, crop[:, ::-1])]
        erased = min(both, key=np.sum)  # of the crop or of its mirror image, whichever it was
        ys, xs = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
        box = changed[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        assert len(np.unique(box.reshape(-1, 3), axis=0)) == 1
        shares.append(box.shape[0] * box.shape[1] / erased.size)
        touched |= erased
    assert max(shares) <= 0.2
    assert min(shares) < 0.03
    assert touched.all()


def test_erasing_happens_with_its_probability(crop):
    changed = 0
    for index in range(400):
        image = Augmentation(**{**PLAIN, "erasing": 0.25})(crop, 0, index)
        changed += not (np.array_equal(image, crop) or np.array_equal(image, crop[:, ::-1]))
    assert 65 <= changed <= 135  # 100 +- 4 standard deviations


def test_jitter_is_one_line_through_all_grey_levels():
    ramp = np.repeat(np.arange(60, 200, dtype=np.uint8)[:, None, None], 3, axis=2)
    slopes, means = [], []
    for index in range(200):
        changed = Augmentation(**{**PLAIN, "jitter": 0.2})(ramp, 0, index).astype(float)
        slope, start = np.polyfit(ramp[:, 0, 0], changed[:, 0, 0], 1)
        clear = changed[:, 0, 0] < 255
        line = slope * ramp[:, 0, 0] + start
        if clear.all():
            assert np.abs(line - changed[:, 0, 0]).max() <= 1.0  # rounding alone
            slopes.append(slope)
            means.append((changed.mean() + 0.5) / ramp.mean())
    assert 0.79 <= min(slopes) < 0.85
    assert 1.15 < max(slopes) <= 1.21
    assert 0.79 <= min(means) < 0.85
    assert 1.15 < max(means) <= 1.21


def test_randaugment_changes_crops_and_no_other_random_number(crop):
    augmentation = Augmentation(**PLAIN, randaugment=2)
    state = torch.get_rng_state()
    drawn = [augmentation(crop, 1, index) for index in range(20)]
    assert torch.equal(torch.get_rng_state(), state)
    again = [augmentation(crop, 1, index) for index in range(20)]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    plain = [Augmentation(**PLAIN)(crop, 1, index) for index in range(20)]
    differing = sum(not np.array_equal(one, other) for one, other in zip(drawn, plain, strict=True))
    assert differing > 10
    assert {(image.shape, image.dtype.name) for image in drawn} == {(crop.shape, "uint8")}


def test_without_jitter_and_erasing_pixels_are_the_crops_or_black(crop):
    colours = {tuple(colour) for colour in crop.reshape(-1, 3)} | {(0, 0, 0)}
    for index in range(50):
        changed = Augmentation(padding=5, jitter=0.0, erasing=0.0)(crop, 3, index)
        assert {tuple(colour) for colour in changed.reshape(-1, 3)} <= colours


# ---- the data set -----------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_plain_crop_is_exactly_what_the_processor_gives(rows, processor, cache):
    crops = PersonCrops(rows, processor, None, cache)
    for index in range(len(rows)):
        item = crops[index]
        expected = processor(images=rows[index]["image"], return_tensors="pt")["pixel_values"][0]
        assert item["pixel_values"].dtype == expected.dtype == torch.float32
        assert torch.equal(item["pixel_values"], expected)
        assert item["labels"].tolist() == LABELS[index]
        assert item["index"] == index


def test_cache_changes_nothing_and_survives_augmentation(rows, processor):
    augmentation = Augmentation(erasing=1.0)
    cached, fresh = (PersonCrops(rows, processor, augmentation, cache) for cache in (True, False))
    before = cached.cache.clone()
    for epoch in (0, 1):
        cached.epoch = fresh.epoch = epoch
        for index in range(len(rows)):
            assert torch.equal(cached[index]["pixel_values"], fresh[index]["pixel_values"])
    assert torch.equal(cached.cache, before)


def test_augmented_crop_follows_the_epoch(rows, processor):
    crops = PersonCrops(rows, processor, Augmentation())
    first = crops[0]["pixel_values"]
    crops.epoch = 1
    second = crops[0]["pixel_values"]
    crops.epoch = 0
    assert not torch.equal(first, second)
    assert torch.equal(first, crops[0]["pixel_values"])


def test_augmented_crop_is_normalised_after_the_change(rows, processor):
    augmentation = Augmentation(seed=7)
    crops = PersonCrops(rows, processor, augmentation)
    crops.epoch = 3
    plain = np.asarray(rows[0]["image"].resize((32, 64), Image.Resampling.BILINEAR))
    changed = Image.fromarray(augmentation(plain, 3, 0))
    expected = processor(images=changed, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(crops[0]["pixel_values"], expected)


@pytest.fixture(scope="module")
def broken_rows(rows) -> datasets.Dataset:
    """The same rows; the image of the third is none."""
    table = rows.cast_column("image", datasets.Image(decode=False)).to_list()
    table[2]["image"] = {"bytes": b"no picture", "path": None}
    return datasets.Dataset.from_list(table, features=rows.features)


@pytest.mark.parametrize("cache", [True, False])
def test_unreadable_image_is_skipped_when_asked(rows, broken_rows, processor, cache):
    crops = PersonCrops(broken_rows, processor, None, cache, on_bad_image="skip")
    whole = PersonCrops(rows, processor, None, cache)
    items = [crops[index] for index in range(len(crops))]
    assert [item["is_readable"].item() for item in items] == [True, True, False, True, True]
    assert (items[2]["labels"] == -100).all()
    assert items[2]["pixel_values"].isfinite().all()
    for index in (0, 1, 3, 4):
        assert torch.equal(items[index]["labels"], torch.tensor(LABELS[index]))
        assert torch.equal(items[index]["pixel_values"], whole[index]["pixel_values"])


def test_rows_are_counted_over_several_data_sets(rows, processor):
    crops = PersonCrops(rows, processor)
    crops.first_row = 100
    assert [(crops[index]["index"], crops[index]["row"]) for index in (0, 4)] == [
        (0, 100),
        (4, 104),
    ]


@pytest.mark.parametrize("cache", [True, False])
def test_unreadable_image_is_named(broken_rows, processor, cache):
    rows = broken_rows
    with pytest.raises(ValueError, match=r"`rows` must hold readable images, got '2\.png'"):
        PersonCrops(rows, processor, None, cache)[2]


# ---- labels -----------------------------------------------------------------------------------


def test_labels_of_reads_rows_in_order_without_images(rows):
    assert labels_of(rows).tolist() == LABELS
    assert labels_of(rows.select([3, 0])).tolist() == [LABELS[3], LABELS[0]]
    assert labels_of(datasets.concatenate_datasets([rows, rows])).tolist() == LABELS + LABELS


def test_positive_ratios_count_known_labels_only():
    # hat: 2 of 4 known; glasses: 3 of 5; backpack: never known
    assert positive_ratios(np.array(LABELS)) == [0.5, 0.6, 0.5]
    assert positive_ratios(np.array([[1, 0], [1, 0]])) == [1.0, 0.0]
