"""The queries and the rows of features that the retrieval stage learns from."""

import numpy as np
import pytest
import torch

from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts.synthetic import SCHEMA_FILE
from clear_par.processing_clear import ClearProcessor
from clear_par.training.queries import (
    embed_texts,
    full_rows,
    known_columns,
    matching_rows,
    partial_rows,
)
from clear_par.training.retrieval import FeatureRows

SCHEMA = AttributeSchema.from_json(SCHEMA_FILE)
SMALL = AttributeSchema.from_names(["hat", "glasses", "backpack", "skirt"])


def test_full_rows_state_their_columns_only():
    rows = full_rows(np.array([[1, 0], [0, 0]]), [3, 1], 4)
    assert rows.tolist() == [[-100, 0, -100, 1], [-100, 0, -100, 0]]


def test_known_columns_are_evaluated_and_known_in_every_split():
    train_labels = np.array([[1, 0, 0, -100], [0, 0, 0, 1]])
    validation_labels = np.array([[1, -100, 0, 0]])
    assert known_columns([train_labels, validation_labels], SMALL) == [0, 2]
    partly = AttributeSchema.from_dict({**SMALL.to_dict(), "evaluated": ["hat", "glasses"]})
    assert known_columns([train_labels], partly) == [0, 1]
    with pytest.raises(ValueError, match="`dataset` must have an evaluated attribute"):
        known_columns([np.full((2, 4), -100)], SMALL)


def random_labels(images: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (images, SCHEMA.num_attributes)
    return rng.choice([1, 0, -100], size=shape, p=[0.2, 0.6, 0.2])


def test_partial_rows_name_what_the_person_has_and_exclude_the_rest_of_a_choice():
    labels = np.zeros((300, SCHEMA.num_attributes), dtype=np.int64)
    rng = np.random.default_rng(0)
    for row in labels:  # one option of each choice, a fifth of the flags
        for group in SCHEMA.groups:
            row[SCHEMA.index(rng.choice(list(group.options.values())))] = 1
        for flag in SCHEMA.flags:
            row[SCHEMA.index(flag.attribute)] = rng.random() < 0.2
    queries = partial_rows(labels, SCHEMA, np.random.default_rng(1), max_said=4)
    said = (queries == 1).sum(axis=1)
    assert set(said.tolist()) == {1, 2, 3, 4}
    assert (labels[queries == 1] == 1).all()
    excluded = 0
    for query in queries:
        expected = np.full(len(query), -100)
        for group in SCHEMA.groups:
            options = [SCHEMA.index(a) for a in group.options.values()]
            if group.exclusive and (query[options] == 1).any():
                expected[options] = 0
        excluded += (expected == 0).sum()
        expected[query == 1] = 1
        assert query.tolist() == expected.tolist()
    assert excluded > 100
    assert matching_rows(torch.tensor(labels), torch.tensor(queries)).diagonal().all()


def test_partial_rows_are_as_often_long_as_short():
    labels = np.tile([1, 1, 1, 0], (300, 1))
    queries = partial_rows(labels, SMALL, np.random.default_rng(0), max_said=3)
    counts = np.bincount((queries == 1).sum(axis=1), minlength=4)
    assert counts[0] == 0
    assert (abs(counts[1:] - 100) < 33).all()  # 4 standard deviations


def test_partial_rows_follow_the_generator_and_leave_unknown_people_unsaid():
    labels = random_labels(20)
    labels[3], labels[4] = -100, 0
    draws = [partial_rows(labels, SCHEMA, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert (draws[0][[3, 4]] == -100).all()
    assert ((draws[0] == 1).any(axis=1) == (labels == 1).any(axis=1)).all()


def test_matching_rows_equal_plain_loops():
    rng = np.random.default_rng(2)
    labels = rng.choice([1, 0, -100], size=(40, 4))
    queries = rng.choice([1, 0, -100], size=(30, 4), p=[0.3, 0.2, 0.5])
    queries[0] = -100
    found = matching_rows(torch.tensor(labels), torch.tensor(queries))
    for image, person in enumerate(labels):
        for number, query in enumerate(queries):
            fits = any(wish == 1 for wish in query)
            for has, wish in zip(person, query, strict=True):
                if (wish == 1 and has != 1) or (wish == 0 and has == 1):
                    fits = False
            assert found[image, number].item() is fits
    assert 0 < found.sum() < found.numel() / 2
    assert not found[:, 0].any()


def test_embed_texts_keep_order_share_duplicates_and_leave_the_silent_zero(
    micro_model, make_tokenizer
):
    schema = AttributeSchema.from_names(list(micro_model.config.id2label.values()))
    tokenizer = make_tokenizer("a person with hat glasses backpack female skirt red , and .")
    processor = ClearProcessor.for_schema(schema, 32, 32, tokenizer, query_kind="soft")
    rng = np.random.default_rng(0)
    rows = rng.choice([1, 0, -100], size=(11, 6), p=[0.4, 0.3, 0.3])
    rows[4], rows[7], rows[10] = rows[1], 0, -100
    embeds = embed_texts(micro_model, processor, rows, batch_size=3)
    assert embeds.shape == (11, 16)
    for row, embed in zip(rows, embeds, strict=True):
        if not (row == 1).any():
            assert not embed.any()
            continue
        inputs = processor(labels=row[None], return_tensors="pt")
        expected = micro_model.encode_text(inputs["input_ids"], inputs["attention_mask"])[0]
        torch.testing.assert_close(embed, expected)
    assert torch.equal(embeds[4], embeds[1])
    assert not torch.allclose(embeds[0], embeds[1])


def test_feature_rows_draw_a_view_from_seed_epoch_and_index():
    features = torch.arange(4)[:, None, None] * 100.0 + torch.arange(50)[None, :, None]  # view, row
    rows = FeatureRows(features, np.arange(50) % 7, seed=3)
    drawn = {}
    for rows.epoch in (1, 2):
        items = [rows[index] for index in range(len(rows))]
        assert [item["index"] for item in items] == list(range(50))
        assert [item["categories"].item() for item in items] == [i % 7 for i in range(50)]
        values = torch.cat([item["features"] for item in items])
        assert torch.equal(values % 100, torch.arange(50.0))
        views = drawn[rows.epoch] = (values // 100).int().tolist()
        assert set(views) == {0, 1, 2, 3}
        assert [int(rows[index]["features"] // 100) for index in reversed(range(50))] == views[::-1]
    assert drawn[1] != drawn[2]
    other = FeatureRows(features, np.zeros(50), seed=4)
    other.epoch = 1
    assert [int(other[index]["features"] // 100) for index in range(50)] != drawn[1]
