import csv
from collections import Counter

import numpy as np
import pytest
from scipy.io import loadmat

from clear_par.datasets_scripts.peta_annotation import read_annotation
from clear_par.datasets_scripts.retrieval_protocols import (
    category_ids,
    held_out_categories,
    retrieval_split,
    unseen_categories,
)

LABELS = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 0, 1]])


@pytest.fixture(scope="module")
def peta(shared_folder):
    return read_annotation(shared_folder / "data/peta/PETA.mat")


def parts(annotation, columns=None):
    """Labels of trainval, train and test of partition 0, as published."""
    split = annotation.partitions[0]
    labels = annotation.labels[:, :columns]
    trainval = np.concatenate([split["train"], split["validation"]])
    return labels[trainval], labels[split["train"]], labels[split["test"]]


def test_categories_are_numbered_by_first_appearance():
    assert category_ids(LABELS).tolist() == [0, 1, 0, 2, 1]


def test_every_image_is_relevant_to_its_own_vector_only():
    split = retrieval_split(LABELS)
    assert split.queries.tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 1]]
    by_definition = (split.queries[:, None, :] == LABELS[None, :, :]).all(-1)
    np.testing.assert_array_equal(split.relevance(), by_definition)
    np.testing.assert_array_equal(split.relevance(np.array([2, 0])), by_definition[[2, 0]])
    mask = np.array([False, True, True])
    np.testing.assert_array_equal(split.relevance(mask), by_definition[1:])


def test_indices_choose_the_attributes_of_a_category():
    split = retrieval_split(LABELS, indices=[2, 1])
    assert split.queries.tolist() == [[1, 0], [1, 1]]
    assert split.gallery_categories.tolist() == [0, 0, 0, 1, 0]


def test_unknown_labels_are_refused_unless_left_out():
    labels = np.array([[1, -100], [0, 1]])
    with pytest.raises(ValueError, match="`labels` must be 0 or 1, got \\[-100\\]"):
        retrieval_split(labels)
    assert retrieval_split(labels, indices=[0]).queries.tolist() == [[1], [0]]


@pytest.mark.parametrize("labels", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0))])
def test_labels_must_be_a_filled_matrix(labels):
    with pytest.raises(ValueError, match="`labels` must"):
        retrieval_split(labels)


def test_unseen_means_that_no_training_row_is_equal():
    queries = np.array([[1, 0], [1, 1], [0, 0]])
    train = np.array([[7, 1, 0], [7, 0, 0]])
    assert unseen_categories(queries, train, indices=[1, 2]).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="`train_labels` must have the 2 attributes"):
        unseen_categories(queries, np.zeros((2, 3)))


def test_held_out_categories_share_nothing_and_drop_single_images():
    labels = np.repeat(np.eye(8, dtype=int), [1, 2, 3, 1, 2, 4, 2, 2], axis=0)
    train, test = held_out_categories(labels, num_train=4)
    train_rows, test_rows = (set(map(bytes, labels[rows])) for rows in (train, test))
    assert len(train_rows) == 4
    assert len(test_rows) == 2
    assert not train_rows & test_rows
    assert len(train) + len(test) == len(labels) - 2
    with pytest.raises(ValueError, match="`num_train` must lie between 0 and the 6"):
        held_out_categories(labels, num_train=6)


@pytest.mark.parametrize(
    ("columns", "all_images", "trainval", "test", "unseen", "unseen_in_train_alone"),
    [(35, 3710, 2847, 2242, 863, 953), (105, 7769, 5262, 3840, 2507, 2629)],
)
def test_peta_categories(peta, columns, all_images, trainval, test, unseen, unseen_in_train_alone):
    trainval_labels, train_labels, test_labels = parts(peta, columns)
    assert category_ids(peta.labels[:, :columns]).max() + 1 == all_images
    assert len(retrieval_split(trainval_labels).queries) == trainval
    split = retrieval_split(test_labels)
    assert len(split.queries) == test
    assert len(split.gallery_categories) == 7600
    # The published number is taken against train and validation together.
    assert unseen_categories(split.queries, trainval_labels).sum() == unseen
    assert unseen_categories(split.queries, train_labels).sum() == unseen_in_train_alone


def test_peta_full_vectors_with_several_images(peta):
    sizes = np.bincount(category_ids(peta.labels))
    assert (sizes >= 2).sum() == 2090
    assert sizes[sizes >= 2].sum() == 13321


def test_peta_protocol_with_held_out_categories(peta):
    train, test = held_out_categories(peta.labels)
    assert (len(train), len(test)) == (11886, 1435)
    train_split, test_split = (
        retrieval_split(peta.labels[train]),
        retrieval_split(peta.labels[test]),
    )
    assert (len(train_split.queries), len(test_split.queries)) == (1890, 200)
    assert unseen_categories(test_split.queries, peta.labels[train]).all()


def test_the_draw_of_held_out_categories_is_the_published_one(peta):
    """Repeat it the way the protocol is published: the global generator, a loop over images."""
    sizes = Counter(map(bytes, peta.labels))
    order = list(dict.fromkeys(row for row in map(bytes, peta.labels) if sizes[row] >= 2))
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    drawn = np.random.choice(2090, 1890, replace=False)  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002
    expected = {order[k] for k in drawn}
    train, _ = held_out_categories(peta.labels)
    assert set(map(bytes, peta.labels[train])) == expected


def test_pa100k_categories(shared_folder):
    struct = loadmat(shared_folder / "data/pa100k/annotation.mat")
    train, val, test = (struct[f"{part}_label"] for part in ("train", "val", "test"))
    split = retrieval_split(test)
    assert split.relevance().shape == (849, 10000)
    assert unseen_categories(split.queries, np.concatenate([train, val])).sum() == 153


def test_market1501_categories(shared_folder):
    struct = loadmat(shared_folder / "data/market1501/market_attribute.mat", simplify_cells=True)[
        "market_attribute"
    ]
    fields = sorted(set(struct["train"]) - {"image_index"})
    assert len(fields) == 27
    codes = {part: np.stack([struct[part][f] for f in fields], axis=1) for part in struct}
    # One column for each value of each field.
    train, test = (
        (codes[part][:, :, None] == np.arange(1, 5)).reshape(len(codes[part]), -1)
        for part in ("train", "test")
    )
    split = retrieval_split(test)
    unseen = unseen_categories(split.queries, train)
    assert len(retrieval_split(train).queries) == 508
    assert (len(split.queries), unseen.sum(), (~unseen).sum()) == (484, 315, 169)


def test_upar_validation_categories(shared_folder):
    with (shared_folder / "data/upar/val_gt.csv").open(encoding="utf-8") as file:
        rows = [row[1:] for row in csv.reader(file) if not row[0].startswith("#")]
    split = retrieval_split(np.array(rows, dtype=np.float64).astype(int))
    relevant = np.bincount(split.gallery_categories)
    assert (len(split.gallery_categories), len(split.queries)) == (33407, 3462)
    assert (relevant.min(), np.median(relevant), relevant.max()) == (1, 2, 484)
    assert relevant.mean() == pytest.approx(9.65, abs=0.005)
    assert (relevant == 1).sum() == 1498
