"""Which epoch a run keeps, and whether its validation split tells anything about new crops.

Among epochs only crops that were not trained on may choose. Where the validation split shares a
crop with the training split, or none is left for it because all of train and validation is trained
on, the last epoch is kept.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import datasets


def keeps_last(record: dict) -> bool:
    """Whether a run keeps its last epoch, whatever it scored."""
    is_choice_left = "validation" in {base_of(n) for n in split_names(record["validation_split"])}
    takes_all = trains_on_whole_validation(record["train_split"])
    return not is_held_out(record) or (takes_all and not is_choice_left)


def require_choice_left(record: dict, patience: int) -> None:
    """Refuse to stop early by crops that must not choose the epoch.

    Args: patience: `early_stopping` of the settings.
    Raises: ValueError.
    """
    if patience and keeps_last(record):
        raise ValueError(
            f"`early_stopping` must be 0 where the last epoch is kept, got {patience}: no crops of "
            f"validation are left to choose by in {record['validation_split']!r}. Leave it out, or "
            "hold crops back: --train_split 'trainval[:90%]' --validation_split 'trainval[90%:]'."
        )


def kept_epoch(record: dict, history: list[dict], score: str) -> dict:
    """Metrics of the epoch whose weights a run kept; the first of equal ones."""
    return history[-1] if keeps_last(record) else max(history, key=lambda epoch: epoch[score])


def is_held_out(record: dict) -> bool:
    """Whether the validation split shares no crop with the training split.

    A run compares the crops themselves (`share_a_crop`) and records what it found; without such a
    record the names of the splits tell.
    """
    if (found := record.get("validation_held_out")) is not None:
        return found
    trained, validated = (split_names(record[f"{n}_split"]) for n in ("train", "validation"))
    # A split without the name of a data set is that of all parts of a mixture.
    return not (trained & with_wholes(validated) or with_wholes(trained) & validated)


def share_a_crop(parts: Iterable[datasets.Dataset], validation: datasets.Dataset) -> bool:
    """Whether a crop, by its name and its file, is among the training rows and in `validation`.

    Names alone do not tell: each split of one's own data may count its crops from 1.
    """
    places, known = defaultdict(list), undecoded(validation)  # parts of a mixture share names
    for row, name in enumerate(validation["image_name"][:]):
        places[name].append(row)
    for rows in parts:
        images = undecoded(rows)
        for row, name in enumerate(rows["image_name"][:]):
            if name not in places:
                continue
            content = content_of(images, row)
            if any(content == content_of(known, place) for place in places[name]):
                return True
    return False


def undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """The files of the images."""
    return rows.select_columns("image").cast_column("image", datasets.Image(decode=False))


def content_of(images: datasets.Dataset, row: int) -> bytes | str:
    """The file of an image; its path where it cannot be read."""
    image = images[row]["image"]
    try:
        return image["bytes"] or Path(image["path"]).read_bytes()
    except OSError:
        return image["path"]


# ---- the names of splits ----------------------------------------------------------------------


def trains_on_whole_validation(expression: str) -> bool:
    """Whether a training split takes in all of a train and of its validation split.

    >>> trains_on_whole_validation("peta:trainval"), trains_on_whole_validation("trainval[:90%]")
    (True, False)
    """
    names = split_names("+".join(part for part in expression.split("+") if "[" not in part))
    ends = {name.removesuffix("validation") for name in names if base_of(name) == "validation"}
    return any(f"{start}train" in names for start in ends)


def base_of(name: str) -> str:
    """Name of a split without that of its data set: "train" of "peta:train"."""
    return name.rpartition(":")[2]


def with_wholes(names: set[str]) -> set[str]:
    """Names of splits, and of those that hold the parts of a mixture among them.

    >>> sorted(with_wholes({"peta:train", "test"}))
    ['peta:train', 'test', 'train']
    """
    return names | set(map(base_of, names))


def split_names(expression: str) -> set[str]:
    """Names of the splits that an expression is made of.

    >>> sorted(split_names("peta:trainval+test[:50]"))
    ['peta:train', 'peta:trainval', 'peta:validation', 'test']
    """
    names = {part.split("[")[0].strip() for part in expression.split("+")}
    whole = {name.removesuffix("val") for name in names if name.endswith("trainval")}
    return names | whole | {f"{name.removesuffix('train')}validation" for name in whole}
