"""Which epoch is kept, by the crops of both splits and by their names."""

import io

import datasets
import pytest
from PIL import Image

from clear_par.training.held_out import (
    is_held_out,
    keeps_last,
    kept_epoch,
    require_choice_left,
    share_a_crop,
)


def rows_of(crops: dict[str, int], folder=None) -> datasets.Dataset:
    """Rows of crops of one grey each; in files where a folder is given."""
    images = []
    for name, grey in crops.items():
        content = io.BytesIO()
        Image.new("L", (4, 8), grey).save(content, "PNG")
        image = {"bytes": content.getvalue(), "path": name}
        if folder is not None:
            path = folder / f"{grey}.png"
            path.write_bytes(image["bytes"])
            image = {"bytes": None, "path": str(path)}
        images.append(image)
    kinds = {"image_name": datasets.Value("string"), "image": datasets.Image()}
    columns = {"image_name": list(crops), "image": images}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def test_a_crop_is_shared_when_name_and_file_are(tmp_path):
    validation = rows_of({"1.png": 10, "2.png": 20})
    assert share_a_crop([rows_of({"3.png": 30}), rows_of({"2.png": 20})], validation)
    assert share_a_crop([rows_of({"2.png": 20}, tmp_path)], validation)
    assert not share_a_crop([rows_of({"3.png": 10, "4.png": 20})], validation)


def test_a_crop_is_found_behind_another_of_its_name():
    """As where the parts of a mixture count their crops alike."""
    validation = datasets.concatenate_datasets([rows_of({"1.png": 10}), rows_of({"1.png": 20})])
    assert share_a_crop([rows_of({"1.png": 10})], validation)
    assert share_a_crop([rows_of({"1.png": 20})], validation)
    assert not share_a_crop([rows_of({"1.png": 30})], validation)


def test_equal_names_of_other_files_are_no_shared_crop(tmp_path):
    """As where each split counts its crops from 1."""
    train = rows_of({"1.png": 30, "2.png": 40}, tmp_path)
    assert not share_a_crop([train], rows_of({"1.png": 10, "2.png": 20}))
    for path in tmp_path.iterdir():
        path.unlink()  # what cannot be read is known by its place
    assert not share_a_crop([train], rows_of({"1.png": 10}))
    assert share_a_crop([train], train)


def record(train_split: str, validation_split: str, found: bool | None = None) -> dict:
    known = {} if found is None else {"validation_held_out": found}
    return {"train_split": train_split, "validation_split": validation_split, **known}


@pytest.mark.parametrize(
    ("train_split", "validation_split", "is_last"),
    [
        ("train", "validation", False),
        ("trainval", "validation", True),
        ("peta:trainval", "peta:validation", True),
        ("peta:trainval", "validation", True),
        ("train+validation", "validation", True),
        ("validation + train", "validation[:50]", True),
        ("peta:train+peta:validation+own:train", "test", True),
        ("trainval", "test", True),
        ("train", "test", False),
        ("validation", "train", False),
        ("peta:trainval+own:train", "own:validation", False),
    ],
)
def test_names_of_the_splits_tell_which_epoch_is_kept(train_split, validation_split, is_last):
    said = record(train_split, validation_split)
    assert keeps_last(said) is is_last
    require_choice_left(said, 0)
    if is_last:
        with pytest.raises(ValueError, match=r"`early_stopping` must be 0 .*, got 3: no crops"):
            require_choice_left(said, 3)
    else:
        require_choice_left(said, 3)
    history = [{"epoch": epoch, "score": score} for epoch, score in ((1, 0.5), (2, 0.7), (3, 0.6))]
    assert kept_epoch(said, history, "score")["epoch"] == (3 if is_last else 2)


def test_what_a_run_has_found_wins_over_the_names():
    assert is_held_out(record("train[:80%]", "train[80%:]", True))
    assert not keeps_last(record("train[:80%]", "train[80%:]", True))
    assert keeps_last(record("train", "validation", False))
