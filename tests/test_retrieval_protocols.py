import functools
from collections import Counter

import numpy as np
import pytest
from scipy.io import loadmat

from clear_par.datasets_scripts.market1501 import Market1501
from clear_par.datasets_scripts.named_protocols import (
    PROTOCOLS,
    group_vectors,
    load_protocol,
    protocol_split,
)
from clear_par.datasets_scripts.pa100k import PA100K
from clear_par.datasets_scripts.person_builder import PersonSource
from clear_par.datasets_scripts.peta import PETA
from clear_par.datasets_scripts.peta_annotation import read_annotation
from clear_par.datasets_scripts.retrieval_protocols import (
    category_ids,
    held_out_categories,
    retrieval_split,
    unseen_categories,
)
from clear_par.datasets_scripts.upar2024_annotation import read_table
from clear_par.datasets_scripts.verification import VerificationReport
from clear_par.tests.small_market1501 import EXPECTED, SmallMarket, published_source

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


# ---- protocols by name, on the real annotations


@pytest.fixture(scope="module")
def records(shared_folder, tmp_path_factory):
    """A function that reads the rows of a protocol's data set; no image is needed."""
    builders = {"market1501": Market1501, "peta": PETA, "pa100k": PA100K}

    @functools.cache
    def read(name):
        protocol, folder = PROTOCOLS[name], shared_folder / "data"
        if protocol.dataset == "market1501":
            source = published_source(folder / "market1501")
        else:
            file = {"peta": "PETA.mat", "pa100k": "annotation.mat"}[protocol.dataset]
            source = PersonSource([folder / protocol.dataset / file], images={})
        make, cache = builders[protocol.dataset], tmp_path_factory.mktemp("cache")
        builder = make(cache_dir=str(cache), config_name=protocol.config_name)
        return builder.read_records(source, VerificationReport(name))

    return read


# Training images and categories, gallery images, queries, unseen queries.
PUBLISHED = {
    "market1501": (12936, 508, 16483, 484, 315),
    "peta-sal": (11886, 1890, 1435, 200, 200),
    "peta-split0": (11400, 2847, 7600, 2242, 863),
    "pa100k": (90000, 2217, 10000, 849, 153),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_protocols_have_the_published_counts(records, name):
    rows = records(name)
    split = retrieval_split(rows, name)
    assert tuple(split.counts.values()) == PUBLISHED[name]
    assert dict(PROTOCOLS[name].counts) == split.counts
    # Against the definition, on some of the queries.
    protocol = PROTOCOLS[name]
    gallery, train = (
        rows.labels[np.concatenate([rows.splits[part] for part in parts])][:, split.columns]
        for parts in (protocol.gallery, protocol.train)
    )
    chosen = np.arange(0, len(split.queries), 37)
    for query, relevant in zip(chosen, split.relevance(chosen), strict=True):
        vector = split.queries[query]
        np.testing.assert_array_equal(relevant, (gallery == vector).all(axis=1))
        assert split.unseen[query] != (train == vector).all(axis=1).any()
    np.testing.assert_array_equal(split.train_queries[split.train_categories], train)
    assert split.relevance(split.unseen).shape == (PUBLISHED[name][-1], len(gallery))


def test_market1501_categories_in_the_groups_of_asmr(records, shared_folder):
    rows = records("market1501")
    split = protocol_split(rows, "market1501")
    assert split.group_vectors.shape == (484, 39)
    ends = np.cumsum([4, 4, 10, 9, 2, 2, 2, 2, 2, 2])
    for block in np.split(split.group_vectors, ends[:-1], axis=1):
        assert (block.sum(axis=1) == 1).all()
    assert len(np.unique(split.group_vectors, axis=0)) == 484
    relevant = np.bincount(split.gallery_categories)
    assert (relevant.min(), np.median(relevant), relevant.max()) == (5, 24, 340)
    # The vectors of the test persons, by hand from the codes of the file.
    path = shared_folder / "data/market1501/market_attribute.mat"
    codes = loadmat(path, simplify_cells=True)["market_attribute"]["test"]
    lower = "black blue brown gray green pink purple white yellow".split()
    upper = "black blue green gray purple red white yellow".split()
    choices = [("backpack", "bag", "handbag")]
    choices += [[f"down{c}" for c in lower], [f"up{c}" for c in upper]]
    vectors = set()
    for person in range(750):
        vector = [int(codes["age"][person] == age) for age in (1, 2, 3, 4)]
        for names in choices:
            present = [int(codes[name][person] == 2) for name in names]
            vector += [int(not any(present)), *present]
        for name in ("clothes", "down", "up", "hair", "hat", "gender"):
            vector += [int(codes[name][person] == 1), int(codes[name][person] == 2)]
        vectors.add(tuple(vector))
    assert set(map(tuple, split.group_vectors.tolist())) == vectors


def test_upar_protocol_on_the_real_tables(shared_folder):
    folder = shared_folder / "data/upar"
    gallery = read_table(folder / "val_gt.csv", 40).labels
    split = retrieval_split(gallery, protocol="upar2024-val")
    assert split.counts == {"gallery images": 33407, "queries": 3462}
    assert split.unseen is None
    relevant = np.bincount(split.gallery_categories)
    assert (relevant.min(), np.median(relevant), relevant.max()) == (1, 2, 484)
    assert relevant.mean() == pytest.approx(9.65, abs=0.005)
    assert (relevant == 1).sum() == 1498
    sample = read_table(folder / "train_sample.csv", 40).labels
    rows = {"train": sample, "validation": gallery}
    with pytest.raises(ValueError, match=r"with 97670 training images, got 19534\. With `strict"):
        retrieval_split(rows, "upar2024-val")
    split = protocol_split({**rows, "validation": gallery[:500]}, "upar2024-val", strict=False)
    train = {row.tobytes() for row in np.ascontiguousarray(sample)}
    seen = [query.astype(sample.dtype).tobytes() in train for query in split.queries]
    assert split.unseen.tolist() == [not is_seen for is_seen in seen]
    assert 0 < sum(seen) < len(seen)


def test_a_lost_row_is_noticed(records):
    rows = records("market1501")
    splits = {split: rows.labels[places] for split, places in rows.splits.items()}
    splits["query"] = splits["query"][:-1]
    with pytest.raises(ValueError, match="'market1501' with 16483 gallery images, got 16482"):
        protocol_split(splits, "market1501")


# ---- protocols by name, on small rows


def test_all_protocols_and_splits_must_be_known():
    with pytest.raises(ValueError, match=r"`protocol` must be one of market1501, .*, got 'market'"):
        retrieval_split(LABELS, "market")
    with pytest.raises(ValueError, match="none of the name 'validation'"):
        protocol_split({"train": LABELS, "test": LABELS}, "pa100k")
    with pytest.raises(ValueError, match="`indices` must be left to the protocol"):
        retrieval_split(LABELS, [0], protocol="pa100k")


def test_a_group_without_a_value_is_named():
    schema = PA100K.schema()
    labels = np.zeros((3, 26), dtype=int)
    labels[:, schema.index("Front")] = labels[0, schema.index("Hat")] = 1
    assert group_vectors(labels, schema, ["hat", "gender", "view"]).tolist() == [
        [0, 1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0, 0],
    ]
    labels[2, schema.index("Back")] = 1
    with pytest.raises(ValueError, match="must have one value of 'view', got none or several in"):
        group_vectors(labels, schema, ["view"])
    with pytest.raises(ValueError, match=r"`names` must be of .*, got 'shoes'"):
        group_vectors(labels, schema, ["shoes"])


def test_a_protocol_is_loaded_with_its_rows(tmp_path, monkeypatch):
    for name, value in EXPECTED.items():
        monkeypatch.setattr(Market1501, name, value)
    small = SmallMarket(tmp_path)
    for part in small.codes.values():  # At most one bag and one colour, as published.
        for name in part:
            part[name][:] = 2 if name in ("bag", "upred", "downblue") else 1
    small.codes["test"]["hat"][0] = 2
    small.write_annotation()
    where = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    with pytest.raises(ValueError, match=r"12936 training images, got 32; .*; 315 unseen"):
        load_protocol("market1501", **where)
    loaded = load_protocol("market1501", strict=False, **where)
    assert len(loaded.train) == 32
    assert loaded.schema == Market1501.schema()
    # In the order of the gallery: person 1 alone wears a hat, and no one did in training.
    assert loaded.gallery["person_id"][:] == [1, 20, 21, 1, 20, 21]
    assert loaded.split.gallery_categories.tolist() == [0, 1, 1, 0, 1, 1]
    assert loaded.split.unseen.tolist() == [True, False]
    assert loaded.split.relevance(loaded.split.unseen).tolist() == [[True, False, False] * 2]
    with_junk = load_protocol("market1501", strict=False, junk=True, distractors=True, **where)
    assert with_junk.gallery["image_name"][:] == loaded.gallery["image_name"][:]
