"""The card of a converted data set: what the Hub shows, and what stock `load_dataset` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import yaml

from .person_data import PersonData
from .person_dataset import person_features

CARD_FILE = "README.md"
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)


def dataset_card(
    data: PersonData,
    files: Mapping[str, Sequence[str]],
    repeated: Mapping[str, Sequence[str]],
    content: str,
) -> str:
    """Write the card.

    Args:
        files: Split -> its Parquet files. repeated: Split -> the splits whose rows it repeats.
        content: A name for what is in the files.
    """
    sizes = {split: size for split, size in data.split_sizes.items() if split in files}
    own = {split: size for split, size in sizes.items() if split not in repeated}
    head = yaml.safe_dump(
        _head(data, files, sum(own.values()), content), sort_keys=False, width=1000
    )
    sections = [
        f"---\n{head}---",
        f"# {data.name}",
        f"Person crops with {data.schema.num_attributes} binary attributes, with the bytes of the "
        f"original image files; configuration `{data.config_name}`.",
        "## Use\n\n" + _usage(data),
        "## Splits\n\n" + _splits(sizes, repeated),
        "## Columns\n\n" + _columns(data, next(iter(own))),
        "## Attributes\n\nIn label order; the evaluated ones are marked. Share of positives among "
        "the known labels of all rows.\n\n" + _attributes(data, list(own)),
        "## Terms\n\n" + _terms(data),
    ]
    return "\n\n".join(sections) + "\n"


def _head(
    data: PersonData, files: Mapping[str, Sequence[str]], num_images: int, content: str
) -> dict:
    terms = data.terms
    is_other = terms.hub_license == "other"
    config = {
        "config_name": data.config_name,
        "default": True,
        # The library keys its cache by this entry and not by the files: without a word that
        # follows their content, a folder converted anew would give the old rows.
        "description": f"content {content}",
        "data_files": [{"split": split, "path": list(paths)} for split, paths in files.items()],
    }
    return {
        "pretty_name": data.name,
        "license": terms.hub_license,
        **({"license_name": "as-stated-by-the-owners"} if is_other else {}),
        **({"license_link": terms.homepage} if is_other and terms.homepage else {}),
        "task_categories": ["image-classification"],
        "task_ids": ["multi-label-image-classification"],
        "tags": ["person-attribute-recognition", "person-retrieval", "pedestrian"],
        "size_categories": [next((n for end, n in _SIZES if num_images < end), "1M<n<10M")],
        "configs": [config],
    }


_COLUMNS = """| column | meaning |
|---|---|
| `image` | the crop, in the bytes of its original file |
| `labels` | one int8 per attribute: 1 present, 0 absent, -100 unknown |
| `person_id` | identity; -1 unknown |
| `camera` | -1 unknown |
| `image_name` | unique name |
| `category_id` | number of the full label vector, equal across splits |"""


def _columns(data: PersonData, split: str) -> str:
    extra = data.rows(split).features.keys() - person_features(data.schema).keys()
    lines = [f"| `{name}` | of this data set alone |" for name in sorted(extra)]
    return "\n".join([_COLUMNS, *lines])


def _usage(data: PersonData) -> str:
    return f"""```python
from datasets import load_dataset

rows = load_dataset("PATH_OR_HUB_ID", split="{next(iter(data.split_sizes))}")
rows[0]["image"], rows[0]["labels"]
```

`schema.json` names the labels. CLEAR trains and evaluates on it by `--dataset PATH_OR_HUB_ID`."""


def _splits(sizes: Mapping[str, int], repeated: Mapping[str, Sequence[str]]) -> str:
    lines = ["| split | images | |", "|---|---|---|"]
    for split, size in sizes.items():
        parts = " and ".join(f"`{part}`" for part in repeated.get(split, []))
        note = f"the rows of {parts}, stored once" if parts else ""
        lines.append(f"| `{split}` | {size:,} | {note} |")
    return "\n".join(lines)


def _attributes(data: PersonData, splits: Sequence[str]) -> str:
    labels = np.concatenate([_labels(data, split) for split in splits])
    known, positive = (labels >= 0).sum(axis=0), (labels == 1).sum(axis=0)
    lines = ["| | attribute | evaluated | positive | known |", "|---|---|---|---|---|"]
    for index, name in enumerate(data.schema.attributes):
        share = f"{positive[index] / known[index]:.1%}" if known[index] else ""
        mark = "yes" if name in data.schema.evaluated else ""
        lines.append(f"| {index} | `{name}` | {mark} | {share} | {known[index]:,} |")
    return "\n".join(lines)


def _labels(data: PersonData, split: str) -> np.ndarray:
    rows = data.rows(split).select_columns("labels").with_format("numpy")[:]["labels"]
    return np.asarray(rows).reshape(-1, data.schema.num_attributes)


def _terms(data: PersonData) -> str:
    terms = data.terms
    lines = [f"Licence, as stated by the owners: {terms.license}."]
    if not terms.may_be_published:
        lines.append("This does not allow to publish the images again: keep this copy private.")
    lines += [f"Home: <{terms.homepage}>"] if terms.homepage else []
    lines += [f"Cite: {terms.citation}"] if terms.citation else []
    return "\n\n".join(lines)


__all__ = ["CARD_FILE", "dataset_card"]
